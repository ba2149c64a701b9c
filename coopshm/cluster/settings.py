"""The `[cluster]` table of a configuration: checked, with its files read."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from ..config import Config, check_name, did_you_mean
from ..errors import ConfigError, count, not_allowed
from . import trust
from .links import parse_address

if TYPE_CHECKING:
    from .engine import EngineConfig

__all__ = ["Settings", "parse", "secrets"]

#: As the segment allows it (csrc/relay.c), in seconds.
_TIMEOUT_MIN, _TIMEOUT_MAX = 0.01, 10.0

#: Longest name of a node, in bytes: the segment has room for it (csrc/layout.h).
_NAME_BYTES_MAX: Final = 63

_KNOWN: Final = (
    "name", "namespace", "listen", "nodes", "secret_file", "tls_cert", "tls_key", "tls_ca", "tls_names",
    "lease_timeout", "drain"
)  # fmt: skip
_ENGINE: Final = (
    "engine", "engine_password_file", "engine_sentinel_user", "engine_sentinel_password_file", "engine_ca",
    "engine_cert", "engine_key", "replicate", "lease_ttl", "engine_max_bytes", "compress_above",
)  # fmt: skip
_SECURED: Final = {"secret": "a secret", "certificates": "certificates", "none": "nothing, so on loopback only"}
_TLS: Final = ("tls_cert", "tls_key", "tls_ca")


class Settings(NamedTuple):
    """What a sidecar is told.

    Attributes:
        name: of this node, unique in the cluster; by default the host's name.
        namespace: of the cluster, the same on all nodes; by default that of the caches.
        listen: "host:port", where the other nodes find this one.
        nodes: addresses of all nodes; this one's may be among them. A DNS name stands for all its addresses.
        trust: how nodes are sure of each other.
        lease_timeout: seconds that a worker waits for the cluster's answer before it computes.
        drain: seconds that an ending sidecar goes on sending what its host has computed, at most.
        engine: where the nodes meet, if they do not know each other; then `listen`, `nodes` and `trust` say nothing.
    """

    name: str
    namespace: str
    listen: str
    nodes: tuple[str, ...]
    trust: trust.Trust
    lease_timeout: float
    drain: float
    engine: EngineConfig | None = None

    def describe(self) -> str:
        """Return how this node meets the others, and how they are sure of each other, for a message."""
        if self.engine is not None:
            how = f"meets others in {self.engine.address}, replicate: {self.engine.replicate}"
            return f"{how}, secured by a secret"
        addresses = count(len(self.nodes), "address", "addresses")
        return f"listens on {self.listen}, {addresses} in `nodes`, secured by {_SECURED[self.trust.kind]}"

    def warnings(self) -> list[str]:
        """Return what is allowed, and hardly what is meant."""
        found = []
        if self.engine is None and self.trust.server is None:
            found.append(
                "no secret_file and no tls_cert: every user of this host can be a node, and have the workers run code; "
                "for trying things out only"
            )
        if self.engine is None and not self.nodes:
            found.append("`nodes` is empty: this node is not connected to any other one")
        return found


def parse(config: Config) -> Settings:
    """Check the `[cluster]` table.

    Raises:
        ConfigError: there is none, or something in it is not allowed; a file that it names cannot be used; or there are
            no caches.
    """
    if config.implicit:
        raise ConfigError(
            "there is no configuration: no coopshm.toml in the current directory, and $COOPSHM_CONFIG names none"
        )
    if config.cluster is None:
        raise ConfigError(
            f"{config.source} has no [cluster] table: say at least `listen` and `nodes` in it, or `engine`"
        )
    if not config.caches:
        raise ConfigError(f"{config.source} has no [caches.NAME] table: there is nothing to connect")
    try:
        return _parse(config.cluster, config.namespace)
    except ConfigError as exc:
        raise ConfigError(f"{config.source}: {exc}") from exc.__cause__


def _parse(table: Mapping[str, object], namespace: str) -> Settings:
    for key in table:
        if key not in _KNOWN + _ENGINE:
            hint = did_you_mean(key, _KNOWN + _ENGINE) or f"; known are {', '.join(_KNOWN + _ENGINE)}"
            raise ConfigError(f"cluster.{key}: there is no such setting{hint}")
    nodes = table.get("nodes", ())
    if not isinstance(nodes, (list, tuple)) or not all(isinstance(node, str) for node in nodes):
        raise not_allowed("cluster.nodes", nodes, 'write a list of addresses, such as ["web1:7411", "web2:7411"]')
    for node in nodes:
        _check_address(node, "cluster.nodes")
    listen = _check_address(table.get("listen", "127.0.0.1:7411"), "cluster.listen")
    name = table.get("name", socket.gethostname())
    if (
        not isinstance(name, str)
        or not name.isprintable()
        or not 0 < len(name.encode()) <= _NAME_BYTES_MAX
        or "#" in name
    ):
        raise not_allowed("cluster.name", name, f"1 to {_NAME_BYTES_MAX} bytes of printable text without #")
    namespace = check_name(table.get("namespace", namespace), "cluster.namespace")
    timeout = _seconds(table.get("lease_timeout", 1.0), "cluster.lease_timeout", _TIMEOUT_MIN, _TIMEOUT_MAX)
    drain = _seconds(table.get("drain", 2.0), "cluster.drain", 0.0, 60.0)
    if "engine" in table:
        engine = _engine(table, name, namespace, timeout)
        return Settings(name, namespace, listen, (), trust.without(), timeout, drain, engine)
    if more := [key for key in _ENGINE if key in table]:
        raise ConfigError(f"cluster.{more[0]}: is for nodes that meet in an engine; say `engine` as well")
    return Settings(name, namespace, listen, tuple(nodes), _trust(table, namespace, listen), timeout, drain)


def _engine(table: Mapping[str, object], name: str, namespace: str, lease_timeout: float) -> EngineConfig:
    if more := [key for key in ("listen", "nodes", *_TLS, "tls_names") if key in table]:
        raise ConfigError(f"cluster.{more[0]}: not together with `engine`: nodes either know each other or meet there")
    try:
        from .engine.settings import parse as parse_engine
    except ModuleNotFoundError as exc:
        raise ConfigError(f"cluster.engine: {exc}; install coopshm[redis]") from exc
    return parse_engine(table, name, namespace, lease_timeout)


def _trust(table: Mapping[str, object], namespace: str, listen: str) -> trust.Trust:
    given = [key for key in ("secret_file", *_TLS) if key in table]
    for key in given:
        if not isinstance(table[key], str):
            raise not_allowed(f"cluster.{key}", table[key], "write the path of a file")
    names = table.get("tls_names", ())
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) and name for name in names):
        raise not_allowed("cluster.tls_names", names, 'write a list of names, such as ["*.shop.example", "10.0.0.1"]')
    if "tls_names" in table and (not names or "tls_cert" not in given):
        raise ConfigError("cluster.tls_names: goes with tls_cert, and has at least one name")
    paths = {key: os.path.expanduser(str(table[key])) for key in given}
    if "secret_file" in paths and len(given) > 1:
        raise ConfigError(f"cluster.secret_file: not together with {given[1]}; say either")
    if "secret_file" in paths:
        first, *others = secrets(paths["secret_file"], "cluster.secret_file")
        return trust.from_secret(first, namespace, *others)
    if given:
        missing = [key for key in _TLS if key not in paths]
        if missing:
            raise ConfigError(f"cluster.{missing[0]}: is missing; tls_cert, tls_key and tls_ca go together")
        return _certificates(paths, names)
    if not trust.is_loopback(parse_address(listen)[0]):
        raise ConfigError(
            f"cluster.listen: {listen} can be reached by other hosts; that takes secret_file, or tls_cert, tls_key and "
            f"tls_ca. Without them only a loopback address, such as 127.0.0.1:7411, is allowed"
        )
    return trust.without()


def secrets(path: str, where: str) -> list[bytes]:
    """Return the secrets in a file, at least one.

    Raises:
        ConfigError: there are none; the message begins with `where`.
    """
    try:
        return trust.read_secrets(path)
    except OSError as exc:
        raise ConfigError(f"{where}: {path} cannot be read: {exc.strerror or exc}") from exc
    except ValueError as exc:
        raise ConfigError(f"{where}: {exc}") from exc


def _certificates(paths: Mapping[str, str], names: Sequence[str]) -> trust.Trust:
    for key in _TLS:  # since OpenSSL does not say which of them it could not read
        try:
            with open(paths[key], "rb"):
                pass
        except OSError as exc:
            raise ConfigError(f"cluster.{key}: {paths[key]} cannot be read: {exc.strerror or exc}") from exc
    try:
        return trust.from_files(paths["tls_cert"], paths["tls_key"], paths["tls_ca"], names)
    except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
        raise ConfigError(f"cluster.{exc}") from exc


def _check_address(value: object, where: str) -> str:
    try:
        if isinstance(value, str) and parse_address(value):
            return value
    except ValueError:
        pass
    raise not_allowed(where, value, 'write "host:port", or "[address]:port" for IPv6')


def _seconds(value: object, where: str, least: float, most: float) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most:
        return float(value)
    raise not_allowed(where, value, f"a number of seconds from {least:g} to {most:g}")
