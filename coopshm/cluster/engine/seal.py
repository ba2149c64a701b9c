"""What is said over the engine is sealed: nobody who lacks the secret can make, change or move anything of it.

Who can write to the engine is not thereby a node. All that a node keeps there carries an HMAC-SHA-256 under a key that
is derived from the secret and the namespace, over what it is for, the cache, the stamp and so on, and the thing itself.
It is checked before anything is decoded; what fails is counted and dropped. So whoever else can write to the engine may
delete things, put old ones back and hold leases; he cannot have a value stored that no node has computed, nor one that
was computed under another stamp: a stamp is part of what is sealed.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
from collections.abc import Sequence

__all__ = ["MAC_BYTES", "Seal", "TamperedError"]

MAC_BYTES = 32

Bytes = bytes | memoryview


class TamperedError(ValueError):
    """Not sealed by a node of this cluster for this purpose."""


@functools.lru_cache(maxsize=16)
def _derived(secret: bytes, namespace: str) -> bytes:
    # Parameters of RFC 7914 for interactive use: 16 MiB, once per process.
    salt = b"coopshm engine 1\0" + namespace.encode()
    return hashlib.scrypt(secret, salt=salt, n=2**14, r=8, p=1, dklen=32)


class Seal:
    """The key of one cluster and namespace, and what it authenticates."""

    def __init__(self, secret: bytes, namespace: str) -> None:
        """`secret` has been checked for its length (trust.py). Takes a twentieth of a second."""
        self._key = _derived(secret, namespace)

    @property
    def fingerprint(self) -> str:
        """A few digits that follow from the key, and say nothing of it."""
        return self.mac((b"fingerprint",), ())[:4].hex()

    def mac(self, purpose: Sequence[bytes], body: Sequence[Bytes]) -> bytes:
        """Over what it is for and what it is, each part after its length: no two ways to cut it up are the same."""
        code = hmac.new(self._key, digestmod=hashlib.sha256)
        code.update(len(purpose).to_bytes(4, "big"))
        for part in purpose:
            code.update(len(part).to_bytes(8, "big"))
            code.update(part)
        for piece in body:
            code.update(len(piece).to_bytes(8, "big"))
            code.update(piece)
        return code.digest()

    def check(self, mac: Bytes, purpose: Sequence[bytes], body: Sequence[Bytes]) -> None:
        """
        Raises:
            TamperedError: `mac` is not of this.
        """
        if not hmac.compare_digest(bytes(mac), self.mac(purpose, body)):
            raise TamperedError("not authenticated")

    def close(self, purpose: Sequence[bytes], body: bytes) -> bytes:
        """Return `body`, sealed."""
        return self.mac(purpose, (body,)) + body

    def open(self, purpose: Sequence[bytes], sealed: bytes) -> bytes:
        """Return the body of what `close` made.

        Raises:
            TamperedError: it is not what a node made for this purpose.
        """
        body = sealed[MAC_BYTES:]
        self.check(sealed[:MAC_BYTES], purpose, (body,))
        return body
