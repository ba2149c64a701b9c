"""What `[cluster]` says of an engine: checked, with the password's file read. Needs `coopshm[redis]`."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ...config import parse_size
from ...errors import ConfigError, not_allowed
from .. import trust
from ..settings import secrets
from .address import Address, Tls
from .address import parse as parse_address
from .context import EngineConfig

__all__ = ["parse"]

_FILES: Final = (
    "secret_file", "engine_password_file", "engine_sentinel_password_file", "engine_ca", "engine_cert", "engine_key"
)  # fmt: skip
_TTL_MIN, _TTL_MAX = 0.1, 600.0


def parse(table: Mapping[str, object], name: str, namespace: str, lease_timeout: float) -> EngineConfig:
    """Check the keys of an engine in `[cluster]`; `name`, `namespace` and `lease_timeout` have been.

    Raises:
        ConfigError: something is not allowed, or a file cannot be used.
    """
    paths = {key: _path(table[key], f"cluster.{key}") for key in _FILES if key in table}
    if "secret_file" not in paths:
        raise ConfigError(
            "cluster.secret_file: is missing; who can write to an engine must not be able to run code here"
        )
    secret, *others = secrets(paths["secret_file"], "cluster.secret_file")
    replicate = table.get("replicate", EngineConfig.replicate)
    if replicate not in ("all", "on_demand"):
        raise not_allowed("cluster.replicate", replicate, '"all" or "on_demand"')
    ttl = table.get("lease_ttl", EngineConfig.lease_ttl)
    if not isinstance(ttl, (int, float)) or isinstance(ttl, bool) or not _TTL_MIN <= ttl <= _TTL_MAX:
        raise not_allowed("cluster.lease_ttl", ttl, f"a number of seconds from {_TTL_MIN:g} to {_TTL_MAX:g}")
    most = table.get("engine_max_bytes", EngineConfig.bytes_max)
    above = table.get("compress_above")
    return EngineConfig(
        name=name,
        namespace=namespace,
        address=_sentinels(_address(table["engine"], paths), table, paths),
        secret=secret,
        others=tuple(others),
        tls=Tls(paths.get("engine_ca", ""), paths.get("engine_cert", ""), paths.get("engine_key", "")),
        replicate=str(replicate),
        lease_timeout=lease_timeout,
        lease_ttl=float(ttl),
        bytes_max=_size(most, "cluster.engine_max_bytes"),
        compress_above=_compress_above(above),
    )


def _path(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise not_allowed(where, value, "write the path of a file")
    path = os.path.expanduser(value)
    try:
        with open(path, "rb"):
            return path
    except OSError as exc:
        raise ConfigError(f"{where}: {path} cannot be read: {exc.strerror or exc}") from exc


def _address(url: object, paths: Mapping[str, str]) -> Address:
    if not isinstance(url, str):
        raise not_allowed("cluster.engine", url, 'write an address such as "redis://host:6379/0"')
    try:
        address = parse_address(url)
    except ValueError as exc:
        raise ConfigError(f"cluster.engine: {exc}") from exc  # not the address itself: it may have a password in it
    if not address.encrypted and any(key in paths for key in ("engine_ca", "engine_cert", "engine_key")):
        raise ConfigError("cluster.engine_ca, engine_cert and engine_key are for rediss://... only")
    if ("engine_cert" in paths) != ("engine_key" in paths):
        raise ConfigError("cluster.engine_cert and engine_key go together")
    _check_certificates(paths)
    if "engine_password_file" in paths:
        if address.password:
            raise ConfigError("cluster.engine_password_file: there is a password in cluster.engine as well; say either")
        address = address._replace(password=_password(paths, "engine_password_file"))
    return address


def _sentinels(address: Address, table: Mapping[str, object], paths: Mapping[str, str]) -> Address:
    """With what is said to the Sentinels, if that is anything."""
    user = table.get("engine_sentinel_user", "")
    if not isinstance(user, str):
        raise not_allowed("cluster.engine_sentinel_user", user, "write the name of a user")
    key = "engine_sentinel_password_file"
    if address.kind != "sentinel" and (user or key in paths):
        raise ConfigError(f"cluster.engine_sentinel_user and {key} are for redis+sentinel://... only")
    if user and key not in paths:
        raise ConfigError(f"cluster.engine_sentinel_user: goes with {key}")
    if key not in paths:
        return address
    return address._replace(sentinel_user=user, sentinel_password=_password(paths, key))


def _password(paths: Mapping[str, str], key: str) -> str:
    path = paths[key]
    if os.stat(path).st_mode & 0o077:
        raise ConfigError(f"cluster.{key}: others than its owner may use {path}; chmod 600 it")
    try:
        password = Path(path).read_text(encoding="utf-8").strip()
    except ValueError as exc:
        raise ConfigError(f"cluster.{key}: {path} is not UTF-8: {exc}") from exc
    if not password:
        raise ConfigError(f"cluster.{key}: {path} is empty")
    return password


def _check_certificates(paths: Mapping[str, str]) -> None:
    """Load what the client will load, so that it is not first told when it connects."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if "engine_ca" in paths:
        try:
            context.load_verify_locations(paths["engine_ca"])
        except ssl.SSLError as exc:
            text = f"{paths['engine_ca']} has no certificates in PEM{trust.reason(exc)}"
            raise ConfigError(f"cluster.engine_ca: {text}") from exc
    if "engine_cert" in paths:
        cert, key = paths["engine_cert"], paths["engine_key"]
        try:
            context.load_cert_chain(cert, key, password=trust.no_password)
        except ssl.SSLError as exc:
            text = f"{cert} and {key} are not a certificate and the key to it, both in PEM{trust.reason(exc)}"
            raise ConfigError(f"cluster.engine_cert, engine_key: {text}") from exc
        except ValueError as exc:
            raise ConfigError(f"cluster.engine_key: {exc}") from exc


def _size(value: object, where: str) -> int:
    if not isinstance(value, (int, str)):
        raise not_allowed(where, value, 'write a size such as "1 GiB"')
    return parse_size(value, where)


def _compress_above(value: object) -> int | None:
    if value is None:
        return None
    try:
        import zstandard  # noqa: F401
    except ImportError as exc:
        raise ConfigError("cluster.compress_above: takes zstandard; install coopshm[zstd] on all hosts") from exc
    return _size(value, "cluster.compress_above")
