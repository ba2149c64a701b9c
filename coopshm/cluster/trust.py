"""Who may talk to whom: mutual TLS 1.3, by certificates that are given or by a secret that all nodes share.

There is one transport and nothing of our own in it. With a *secret*, all nodes derive the same certificate authority
from it (scrypt, then Ed25519); each process makes itself a certificate under that authority, which lives in memory as
long as the process does, and accepts whoever shows another one. Knowing the secret is what it takes to sign one, so the
handshake is the challenge and response in both directions, and OpenSSL does it. Such certificates never expire: it is
the secret that is to be changed, and a node whose clock is wrong must not be cut off. There may be several secrets: a
process shows a certificate by the first, and accepts those by any. So a secret is changed in three steps, at each of
which all nodes accept each other: the new one is added, then put first, then the old one is removed.

With *files*, whoever has a certificate of that authority is a node: either it is one for this cluster alone, or nodes
are told by the names in their certificates (`names`). Which address a node was found at says nothing: the one that is
dialled does not know it of the other, and it is the certificate that makes a node. Validity and signatures are
OpenSSL's business.

With neither, only loopback addresses may be listened on and dialled. Then every user of the host can be a node, and a
node's values are unpickled by the others: for trying things out, on a machine of one's own.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..errors import count

__all__ = [
    "SECRET_BYTES_MIN",
    "Trust",
    "from_files",
    "from_secret",
    "is_loopback",
    "no_password",
    "read_secrets",
    "reason",
    "without",
]

#: Shortest secret, in bytes. 32 random ones are 256 bits; a typed password is not a secret, which scrypt only makes
# slower.
SECRET_BYTES_MIN = 32

_SUBJECT = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "coopshm cluster")])
_EVER = (datetime.datetime(2000, 1, 1), datetime.datetime(9999, 1, 1))  # naive UTC, as x509 wants it


class Trust(NamedTuple):
    """How to be sure of the other side; None: not at all, and so on loopback only."""

    server: ssl.SSLContext | None
    client: ssl.SSLContext | None
    kind: str  #: "secret", "certificates", "none"
    names: tuple[str, ...] = ()  #: one of them must be in the other side's certificate, if there are any

    def check(self, certificate: Mapping[str, object] | None) -> None:
        """Look at the names of a certificate (ssl.SSLSocket.getpeercert) whose signature and validity are good.

        Raises:
            PermissionError: it is not a node's.
        """
        if not self.names:
            return
        said = cast("Iterable[tuple[str, str]]", (certificate or {}).get("subjectAltName", ()))
        found = [name for _, name in said]
        if not any(_is_name(each, name) for each in self.names for name in found):
            raise PermissionError(f"its certificate is for {', '.join(found) or 'no name'}: none of tls_names")


def _is_name(allowed: str, name: str) -> bool:
    """Whether this name is the one that is allowed, or one of those: "*." at its beginning stands for one label."""
    allowed, name = allowed.lower(), name.lower()
    if allowed.startswith("*."):
        return name.partition(".")[2] == allowed[2:]
    try:
        return ipaddress.ip_address(allowed) == ipaddress.ip_address(name.strip())
    except ValueError:
        return allowed == name


def without() -> Trust:
    """No way to be sure of anybody."""
    return Trust(None, None, "none")


def from_files(certificate: str, key: str, authority: str, names: Sequence[str] = ()) -> Trust:
    """Trust by the certificates in these PEM files, in those with one of these names if any are given.

    Raises:
        OSError, ssl.SSLError, ValueError: a file cannot be read, or is not what it should be.
    """
    contexts = _contexts()
    for context in contexts:
        try:
            context.load_cert_chain(certificate, key, password=no_password)
        except ssl.SSLError as exc:
            why = f"{certificate} and {key} are not a certificate and the key to it, both in PEM"
            raise ValueError(f"tls_cert, tls_key: {why}{reason(exc)}") from exc
        except ValueError as exc:
            raise ValueError(f"tls_key: {exc}") from exc
        try:
            context.load_verify_locations(authority)
        except ssl.SSLError as exc:
            raise ValueError(f"tls_ca: {authority} has no certificates in PEM{reason(exc)}") from exc
    return Trust(*contexts, "certificates", tuple(names))


def reason(exc: ssl.SSLError) -> str:
    """Return what OpenSSL says, in brackets, for the end of a message; nothing if it has no words for it."""
    return f" ({exc.reason.lower().replace('_', ' ')})" if exc.reason else ""


def no_password() -> str:
    """Instead of OpenSSL's question on the terminal, which a service does not have."""
    raise ValueError("the key is encrypted; write it without a password, readable by its owner only")


def read_secrets(path: str) -> list[bytes]:
    """Return the secrets in a file, one a line, less white space around them.

    Raises:
        OSError: it cannot be read.
        ValueError: others may read it, or one of them is too short, or there is none.
    """
    with open(path, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if mode & 0o077:
            raise ValueError(f"{path}: others than its owner may use it (mode {mode & 0o777:04o}); chmod 600 it")
        secrets = [line.strip() for line in file.read().splitlines() if line.strip()]
    for secret in secrets or [b""]:
        _check_length(secret, path)
    return secrets


def _check_length(secret: bytes, what: str) -> None:
    if len(secret) < SECRET_BYTES_MIN:
        has = count(len(secret), "byte", "bytes")
        how = "make one by: head -c 32 /dev/urandom | base64"
        raise ValueError(f"{what}: too short for a secret: it has {has}, and needs {SECRET_BYTES_MIN}; {how}")


def from_secret(secret: bytes, namespace: str, *others: bytes) -> Trust:
    """Trust in those who know `secret`, or one of the others, and are of the same namespace. Takes a tenth of a second
    for each.

    Raises:
        ValueError: a secret is too short.
    """
    authorities = [_authority(each, namespace) for each in (secret, *others)]
    mine = Ed25519PrivateKey.generate()
    pem = _certificate(mine, authorities[0], is_authority=False).public_bytes(Encoding.PEM)
    pem += mine.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    contexts = _contexts()
    for context in contexts:
        for authority in authorities:
            certificate = _certificate(authority, authority, is_authority=True)
            context.load_verify_locations(cadata=certificate.public_bytes(Encoding.PEM).decode())
        _load_from_memory(context, pem)
    return Trust(*contexts, "secret")


def _authority(secret: bytes, namespace: str) -> Ed25519PrivateKey:
    _check_length(secret, "secret")
    # Parameters of RFC 7914 for interactive use: 16 MiB, once per process.
    stretched = Scrypt(salt=b"coopshm cluster 1\0" + namespace.encode(), length=32, n=2**14, r=8, p=1).derive(secret)
    seed = HKDF(hashes.SHA256(), 32, salt=None, info=b"certificate authority").derive(stretched)
    return Ed25519PrivateKey.from_private_bytes(seed)


def _certificate(key: Ed25519PrivateKey, signer: Ed25519PrivateKey, is_authority: bool) -> x509.Certificate:
    public = signer.public_key()
    subject = _SUBJECT if is_authority else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "coopshm node")])
    use = x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(_SUBJECT)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_EVER[0])
        .not_valid_after(_EVER[1])
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=0 if is_authority else None), critical=True)
        .add_extension(use, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
    )
    if not is_authority:
        purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = builder.add_extension(purposes, critical=False)
    return builder.sign(signer, None)


def _contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False  # see Trust.check
    for context in (server, client):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
    server.num_tickets = 0  # no resumption: each connection is authenticated anew
    return server, client


def _load_from_memory(context: ssl.SSLContext, pem: bytes) -> None:
    """ssl takes certificates from files only: one that has no name, where there is /proc to open it by."""
    fd = os.memfd_create("coopshm certificate", os.MFD_CLOEXEC)
    try:
        os.write(fd, pem)
        path = f"/proc/self/fd/{fd}"
        if os.path.exists(path):
            context.load_cert_chain(path)
            return
    finally:
        os.close(fd)
    with tempfile.NamedTemporaryFile(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as file:  # mode 0600
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)


def is_loopback(host: str) -> bool:
    """Whether this address (not a name) reaches nobody but this host."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
