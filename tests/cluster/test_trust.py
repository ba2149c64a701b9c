"""Strangers: whoever cannot prove who it is gets one line in the log, and nothing of what it sends is decoded."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509

from coopshm.cluster import links, trust
from tests.cluster.authority import Authority
from tests.cluster.loops import run

SECRET = b"0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def trusted() -> trust.Trust:
    return trust.from_secret(SECRET, "shop")


@pytest.fixture(autouse=True)
def _short_handshakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a test is about the time limit, it need not be long; where it is not, the machine may be slow."""
    monkeypatch.setattr(links, "HANDSHAKE_SECONDS", 20.0)


class Served:
    def __init__(self, listener: links.Listener, refusals: links.Refusals) -> None:
        self.listener = listener
        self.refusals = refusals
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()

    @property
    def address(self) -> links.Address:
        return links.parse_address(self.listener.addresses[0])

    async def refused(self, count: int = 1) -> None:
        while self.refusals.count < count:
            await asyncio.sleep(0.001)
        assert self.heard.empty()


@asynccontextmanager
async def serving(how: trust.Trust) -> AsyncIterator[Served]:
    """A listener that puts the first bytes of each connection that it trusts into a queue."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> None:
        served.heard.put_nowait(await reader.readexactly(5))

    refusals = links.Refusals()
    served = Served(links.Listener(how, handle, refusals), refusals)
    await served.listener.open(("127.0.0.1", 0))
    try:
        yield served
    finally:
        await served.listener.close()


def files(
    ca: Authority,
    name: str,
    days: int = 10,
    names: Sequence[x509.GeneralName] = (),
    allowed: Sequence[str] = (),
) -> trust.Trust:
    """Certificate files signed by `ca`, valid for `days` more, for `names`; trusts those for `allowed`."""
    certificate, key = ca.certify(name, days=days, names=names)
    return trust.from_files(str(certificate), str(key), str(ca.path), names=allowed)


async def hello(how: trust.Trust, served: Served) -> None:
    """Dial, and say something; raises what a node would see."""
    reader, writer = await links.dial(served.address, how)
    writer.write(b"hello")
    try:
        await writer.drain()
        # A client of TLS 1.3 is through before the server has seen its certificate: this is where it hears of that.
        if await reader.read(1) == b"":
            raise ConnectionResetError
    finally:
        writer.transport.abort()


def test_who_knows_the_secret_is_heard_over_tls_1_3(trusted: trust.Trust) -> None:
    async def check() -> None:
        async with serving(trusted) as served:
            _, writer = await links.dial(served.address, trust.from_secret(SECRET, "shop"))
            assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
            writer.write(b"hello")
            assert await served.heard.get() == b"hello"
            assert served.refusals.count == 0
            writer.transport.abort()

    run(check())


def test_given_certificates_are_trusted(tmp_path: Path) -> None:
    async def check() -> None:
        ca = Authority(tmp_path)
        async with serving(files(ca, "one")) as served:
            _, writer = await links.dial(served.address, files(ca, "two"))
            writer.write(b"hello")
            assert await served.heard.get() == b"hello"
            writer.transport.abort()

    run(check())


@pytest.mark.parametrize("who", ["another secret", "another namespace"])
def test_another_secret_is_refused_on_both_sides(
    who: str, trusted: trust.Trust, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = trust.from_secret(SECRET[::-1], "shop") if who == "another secret" else trust.from_secret(SECRET, "bar")

    async def check() -> None:
        async with serving(trusted) as served:
            with pytest.raises(ssl.SSLCertVerificationError):
                await hello(stranger, served)
            await served.refused()

    with caplog.at_level(logging.WARNING, "coopshm.cluster"):
        run(check())
    (line,) = [record.getMessage() for record in caplog.records]
    assert "refused: it " in line  # that the other side refuses it as well may come first
    assert "another secret (secret_file), or another namespace" in line


@pytest.mark.parametrize("who", ["expired", "foreign", "none"])
def test_certificates_that_are_not_good_are_refused(who: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By the server, whatever the client thinks of it."""
    ca = Authority(tmp_path)
    if who == "none":
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        stranger = trust.Trust(None, client, "")
    else:
        stranger = files(ca, "two", days=-1) if who == "expired" else files(Authority(tmp_path / "foreign"), "two")
    assert stranger.client is not None
    stranger.client.check_hostname = False
    stranger.client.verify_mode = ssl.CERT_NONE

    async def check() -> None:
        async with serving(files(ca, "one")) as served:
            with pytest.raises(OSError):  # noqa: PT011  # an alert or a reset, whichever comes first
                await hello(stranger._replace(server=stranger.client), served)
            await served.refused()

    with caplog.at_level(logging.WARNING, "coopshm.cluster"):
        run(check())
    (line,) = [record.getMessage() for record in caplog.records]
    expected = {"expired": "has expired", "foreign": "certificate", "none": "PEER_DID_NOT_RETURN_A_CERTIFICATE"}
    assert expected[who] in line


WEB1, WEB2 = x509.DNSName("web1.shop.example"), x509.IPAddress(ipaddress.ip_address("2001:db8::2"))


@pytest.mark.parametrize("allowed", [["*.shop.example", "2001:DB8:0::2"], ["WEB1.shop.example", "2001:db8::2", "x"]])
def test_with_tls_names_certificates_for_them_are_trusted(allowed: list[str], tmp_path: Path) -> None:
    async def check() -> None:
        ca = Authority(tmp_path)
        async with serving(files(ca, "one", names=[WEB1], allowed=allowed)) as served:
            _, writer = await links.dial(served.address, files(ca, "two", names=[WEB2], allowed=allowed))
            writer.write(b"hello")
            assert await served.heard.get() == b"hello"
            writer.transport.abort()

    run(check())


@pytest.mark.parametrize("names", [[], [x509.DNSName("mail.example")], [x509.DNSName("a.web1.shop.example")]])
@pytest.mark.parametrize("who", ["who dials", "who is dialled"])
def test_with_tls_names_others_are_strangers_on_both_sides(
    who: str, names: list[x509.GeneralName], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Although the authority has signed their certificates."""
    ca = Authority(tmp_path)
    node = files(ca, "one", names=[WEB1], allowed=["*.shop.example"])
    other = files(ca, "two", names=names)  # which itself trusts anybody

    async def check() -> None:
        async with serving(other if who == "who is dialled" else node) as served:
            if who == "who is dialled":
                with pytest.raises(PermissionError, match="none of tls_names"):
                    await links.dial(served.address, node)
                assert served.heard.empty()
            else:
                with pytest.raises(OSError):  # noqa: PT011  # as above
                    await hello(other, served)
                await served.refused()

    with caplog.at_level(logging.WARNING, "coopshm.cluster"):
        run(check())
    if who == "who dials":
        assert "none of tls_names" in caplog.text


def test_a_secret_is_changed_in_steps_at_each_of_which_all_trust_each_other() -> None:
    old, new = SECRET, SECRET[::-1]
    steps = [(old,), (old, new), (new, old), (new,)]
    trusts = [trust.from_secret(first, "shop", *others) for first, *others in steps]

    async def knows(one: trust.Trust, other: trust.Trust) -> bool:
        async with serving(one) as served:
            try:
                _, writer = await links.dial(served.address, other)
            except ssl.SSLCertVerificationError:
                await served.refused()
                return False
            writer.write(b"hello")
            assert await served.heard.get() == b"hello"
            writer.transport.abort()
            return True

    async def check() -> None:
        for at in range(len(steps)):
            for to in range(len(steps)):
                if abs(at - to) <= 1:
                    assert await knows(trusts[at], trusts[to])
        assert not await knows(trusts[0], trusts[3])

    run(check())


def test_what_is_trusted_may_change_for_those_who_come_later(trusted: trust.Trust) -> None:
    later = trust.from_secret(SECRET[::-1], "shop")

    async def check() -> None:
        async with serving(trusted) as served:
            _, early = await links.dial(served.address, trusted)
            served.listener.trust = later
            early.write(b"hello")
            assert await served.heard.get() == b"hello"
            with pytest.raises(ssl.SSLCertVerificationError):
                await links.dial(served.address, trusted)
            _, late = await links.dial(served.address, later)
            late.write(b"later")
            assert await served.heard.get() == b"later"
            for writer in (early, late):
                writer.transport.abort()

    run(check())


def test_older_tls_is_refused(trusted: trust.Trust) -> None:
    old = trust.from_secret(SECRET, "shop")
    assert old.client is not None
    old.client.minimum_version = ssl.TLSVersion.TLSv1_2
    old.client.maximum_version = ssl.TLSVersion.TLSv1_2

    async def check() -> None:
        async with serving(trusted) as served:
            with pytest.raises(OSError):  # noqa: PT011  # as above
                await hello(old, served)
            await served.refused()

    run(check())


def random_bytes(seed: int) -> Callable[[Served], Awaitable[None]]:
    """A client that sends noise, some of which begins like a TLS record."""

    async def client(served: Served) -> None:
        generator = random.Random(seed)
        head = b"" if seed % 3 else b"\x16\x03\x01" + generator.randbytes(2)
        reader, writer = await asyncio.open_connection(*served.address)
        writer.write(head + generator.randbytes(generator.randrange(1, 3000)))
        writer.write_eof()
        while await reader.read(1000):
            pass
        writer.transport.abort()

    return client


@pytest.mark.parametrize("seed", range(30))
def test_noise_is_refused(seed: int, trusted: trust.Trust) -> None:
    async def check() -> None:
        async with serving(trusted) as served:
            try:
                await random_bytes(seed)(served)
            except OSError:
                pass  # reset: it was not all read
            await served.refused()

    run(check())


@pytest.mark.parametrize("says", [b"", b"\x16", b"\x16\x03\x01\x40\x00\x01"])
def test_who_says_too_little_is_refused_after_a_time(
    says: bytes, trusted: trust.Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing at all, half a record, or the beginning of a long one: it keeps a place for some seconds, and no more."""
    monkeypatch.setattr(links, "HANDSHAKE_SECONDS", 0.2)

    async def check() -> None:
        async with serving(trusted) as served:
            reader, writer = await asyncio.open_connection(*served.address)
            writer.write(says)
            try:
                while await reader.read(1000):
                    pass
            except OSError:
                pass
            await served.refused()
            writer.transport.abort()

    run(check())


def test_strangers_take_a_limited_number_of_places_and_lines(
    trusted: trust.Trust, caplog: pytest.LogCaptureFixture
) -> None:
    extra = 20

    async def check() -> None:
        async with serving(trusted) as served:
            silent = [await asyncio.open_connection(*served.address) for _ in range(links.STRANGERS_MAX + extra)]
            await served.refused(extra)
            assert served.listener._strangers == links.STRANGERS_MAX
            for _, writer in silent:
                writer.transport.abort()
            while served.listener._strangers:
                await asyncio.sleep(0.001)
            _, writer = await links.dial(served.address, trusted)  # and there is room again
            writer.write(b"hello")
            assert await served.heard.get() == b"hello"
            writer.transport.abort()

    with caplog.at_level(logging.WARNING, "coopshm.cluster"):
        run(check())
    assert len(caplog.records) == links.REFUSALS_MAX


def test_without_trust_only_loopback_is_used() -> None:
    async def check() -> None:
        async with serving(trust.without()) as served:
            _, writer = await links.dial(served.address, trust.without())
            writer.write(b"hello")
            assert await served.heard.get() == b"hello"
            writer.transport.abort()
            with pytest.raises(ValueError, match="only loopback"):
                await served.listener.open(("0.0.0.0", 0))
            with pytest.raises(ValueError, match="only loopback"):
                await links.dial(("192.0.2.1", 7411), trust.without())

    run(check())


def test_a_half_open_connection_is_given_up_when_dialling(
    trusted: trust.Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody accepts, and never answers."""
    monkeypatch.setattr(links, "HANDSHAKE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:

        async def check() -> None:
            with pytest.raises(ConnectionAbortedError, match="longer than"):
                await links.dial(silent.getsockname(), trusted)

        run(check())


def test_secrets_are_long_and_private(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(SECRET + b"\n")
    path.chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        trust.read_secrets(str(path))
    path.chmod(0o600)
    assert trust.read_secrets(str(path)) == [SECRET]
    path.write_bytes(b"\n " + SECRET + b" \r\n\n" + SECRET[::-1] + b"\n")
    assert trust.read_secrets(str(path)) == [SECRET, SECRET[::-1]]
    for bad in (b"", b"\n \n", SECRET + b"\n" + SECRET[:-1]):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match="too short"):
            trust.read_secrets(str(path))
    path.write_bytes(SECRET[:-1])
    with pytest.raises(ValueError, match="too short"):
        trust.read_secrets(str(path))
    with pytest.raises(ValueError, match="too short"):
        trust.from_secret(b"", "shop")


@pytest.mark.parametrize(
    ("text", "address"),
    [("web1:7411", ("web1", 7411)), ("[::1]:1", ("::1", 1)), ("10.0.0.1:0", ("10.0.0.1", 0))],
)
def test_addresses(text: str, address: links.Address) -> None:
    assert links.parse_address(text) == address
    assert links.format_address(address) == text


@pytest.mark.parametrize("text", ["web1", ":7411", "web1:", "web1:x", "web1:65536", "::1:7411", "web1:-1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="no address"):
        links.parse_address(text)
