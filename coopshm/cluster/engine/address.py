"""Where the engine is: the setting `engine`, and the client of redis-py for it.

    redis://[USER[:PASSWORD]@]HOST[:PORT][/DB]                     one server
    rediss://...                                                   with TLS
    unix:///PATH[?db=DB]                                           one on this host
    redis+sentinel://[USER[:PASSWORD]@]HOST[:PORT],.../SERVICE[/DB]
    redis+cluster://[USER[:PASSWORD]@]HOST[:PORT],...
    rediss+sentinel://, rediss+cluster://                          with TLS

User and password are the engine's; those of Sentinels are settings of their own. redis-py never tries anything again by
itself: whether that is right is known here only (connection.py).
"""

from __future__ import annotations

import re
import ssl
from typing import NamedTuple, cast
from urllib.parse import parse_qs, unquote, urlsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff

__all__ = ["Address", "Client", "Tls", "connect", "disconnect", "parse"]

Client = Redis | RedisCluster

_PORTS = {"single": 6379, "cluster": 6379, "sentinel": 26379}
_SCHEMES = {
    "redis": ("single", False),
    "rediss": ("single", True),
    "unix": ("unix", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}


class Tls(NamedTuple):
    """Files in PEM; "" for none. Without an authority, those of the system."""

    ca: str = ""
    cert: str = ""
    key: str = ""


class Address(NamedTuple):
    """An engine, as `engine` says."""

    kind: str  #: "single", "unix", "sentinel" or "cluster"
    hosts: tuple[tuple[str, int], ...]
    path: str = ""  #: of a socket
    service: str = ""  #: that the Sentinels watch
    database: int = 0
    user: str = ""
    password: str = ""
    sentinel_user: str = ""
    sentinel_password: str = ""
    encrypted: bool = False

    def __str__(self) -> str:
        """Without the password."""
        scheme = next(name for name, what in _SCHEMES.items() if what == (self.kind, self.encrypted))
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"{scheme}://{hosts}{self.path}{'/' + self.service if self.service else ''}"


def parse(url: str) -> Address:
    """Return what `url` says.

    Raises:
        ValueError: it is not of one of the forms above.
    """
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"it begins with none of {', '.join(f'{name}://' for name in _SCHEMES)}")
    kind, encrypted = _SCHEMES[parts.scheme]
    login, _, names = parts.netloc.rpartition("@")
    user, _, password = (unquote(part) for part in login.partition(":"))
    address = Address(kind, (), user=user, password=password, encrypted=encrypted)
    if kind == "unix":
        if names or not parts.path.strip("/"):
            raise ValueError("write unix:///path/of/the/socket")
        return address._replace(
            path=unquote(parts.path), database=_database(parse_qs(parts.query).get("db", ["0"])[-1])
        )
    if parts.query or parts.fragment:
        raise ValueError("nothing is said by ?... or #...")
    hosts = tuple(_host(name, _PORTS[kind]) for name in names.split(","))
    if kind == "single" and len(hosts) > 1:
        raise ValueError("one host only; several are redis+sentinel://... or redis+cluster://...")
    path = [unquote(part) for part in parts.path.split("/") if part]
    service = ""
    if kind == "sentinel":
        if not path:
            raise ValueError("which service of the Sentinels? redis+sentinel://host:26379/SERVICE")
        service = path.pop(0)
    if len(path) > 1 or (kind == "cluster" and path):
        raise ValueError(f"too much of a path: {parts.path}")
    return address._replace(hosts=hosts, service=service, database=_database(path[0] if path else "0"))


def _database(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ValueError(f"the database is a number, not {text}")
    return int(text)


def _host(text: str, port: int) -> tuple[str, int]:
    host, colon, number = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host, number = text, str(port)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not re.fullmatch("[0-9]{1,5}", number) or not 0 < int(number) < 65536:
        raise ValueError(f"{text or 'nothing'} is no host:port")
    return host, int(number)


def connect(address: Address, tls: Tls, timeout: float, connections: int) -> Client:
    """Return a client that has not connected yet; it does so by itself, and has at most so many connections.

    Args:
        timeout: seconds for an answer, and for connecting.
    """
    user, password = address.user or None, address.password or None
    never = Retry(NoBackoff(), 0)
    if address.kind == "unix":
        return Redis(
            unix_socket_path=address.path, db=address.database, username=user, password=password, protocol=2,
            socket_timeout=timeout, socket_connect_timeout=timeout, max_connections=connections, retry=never,
        )  # fmt: skip
    if address.kind == "single":
        host, port = address.hosts[0]
        return Redis(
            host=host, port=port, db=address.database, username=user, password=password, protocol=2,
            socket_timeout=timeout, socket_connect_timeout=timeout, max_connections=connections, retry=never,
            ssl=address.encrypted, ssl_ca_certs=tls.ca or None, ssl_certfile=tls.cert or None,
            ssl_keyfile=tls.key or None, ssl_min_version=ssl.TLSVersion.TLSv1_2,
        )  # fmt: skip
    if address.kind == "cluster":
        return RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in address.hosts], username=user, password=password,
            protocol=2, socket_timeout=timeout, socket_connect_timeout=timeout, max_connections=connections,
            retry=never, ssl=address.encrypted, ssl_ca_certs=tls.ca or None, ssl_certfile=tls.cert or None,
            ssl_keyfile=tls.key or None, ssl_min_version=ssl.TLSVersion.TLSv1_2,
        )  # fmt: skip
    limits = {"socket_timeout": timeout, "socket_connect_timeout": timeout, "retry": never, "protocol": 2}
    if address.encrypted:
        limits |= {
            "ssl": True, "ssl_ca_certs": tls.ca or None, "ssl_certfile": tls.cert or None,
            "ssl_keyfile": tls.key or None, "ssl_min_version": ssl.TLSVersion.TLSv1_2,
        }  # fmt: skip
    own = {"username": address.sentinel_user or None, "password": address.sentinel_password or None}
    sentinels = Sentinel(  # type: ignore[no-untyped-call]  # what it does not know goes to connections with the server
        address.hosts, sentinel_kwargs=limits | own, db=address.database, username=user, password=password,
        max_connections=connections, **limits,
    )  # fmt: skip
    return cast("Redis", sentinels.master_for(address.service))


async def disconnect(client: Client) -> None:
    """Close all its connections; those with Sentinels as well, which are clients of their own."""
    try:
        await client.aclose()
    finally:
        pool = getattr(client, "connection_pool", None)
        if isinstance(pool, SentinelConnectionPool):
            for sentinel in pool.sentinel_manager.sentinels:
                await sentinel.aclose()
