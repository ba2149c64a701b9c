"""Settings: where they come from, what is allowed, and what is said when something is not.

One configuration describes all caches of a deployment. It is a mapping, or a TOML file of the same shape:

    namespace = "shop"            # $COOPSHM_NAMESPACE overrides it, so that two releases can share a host
    [caches.example]
    memory_limit = "64 MiB"
    on_reset = "shop.data:reload"
    [cluster]                     # handed on as it is: the sidecar, which reads it, checks it

Every mistake is an error when the configuration is loaded, not when a cache is first used: a misspelt setting
that is silently ignored costs more than a server that does not start. Messages name the source, the key path,
the value and what is allowed. Nothing here looks at the host, so whether a user or a module exists is found
out when needed.

CacheConfig checks its arguments itself, so that an invalid one cannot exist, whoever makes it. It is a
NamedTuple rather than a dataclass because importing `dataclasses` takes about as long as everything else here
together; for the same reason what only some configurations or messages need is imported where it is used.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from .errors import ConfigError, UnknownCacheError, not_allowed, shorten
from .limits import OnTimeout, check_on_timeout, check_timeout
from .versions import VERSION_BYTES_MAX, decode_version, encode_version

__all__ = [
    "MEMORY_LIMIT_MAX",
    "MEMORY_LIMIT_MIN",
    "SERIALIZERS",
    "VERSION_BYTES_MAX",
    "CacheConfig",
    "Config",
    "check_name",
    "decode_version",
    "did_you_mean",
    "encode_version",
    "load",
    "parse_size",
    "read_toml",
    "resolve_callable",
    "resolve_object",
    "segment_name",
]

#: Smallest and largest `memory_limit`, in bytes: a few chunks of the arena, and far above any /dev/shm.
MEMORY_LIMIT_MIN = 64 * 1024
MEMORY_LIMIT_MAX = 1024**4

#: Largest `max_items`: positions in the index are 32-bit numbers.
MAX_ITEMS_MAX = 2**31

#: Names of the built-in serializers.
SERIALIZERS = ("pickle", "raw", "json", "msgpack")

_DEFAULT_FILE = "coopshm.toml"

# No "/", of which a segment name has exactly one, at its start, and no ":", which separates its parts.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_SIZE = re.compile(r"([0-9]{1,20}) *([A-Za-z]*)")
_REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_UNITS = {"": 1, "b": 1}
_UNITS.update({f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", 1)})
_UNITS.update({f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", 1)})


def did_you_mean(name: object, known: Sequence[str]) -> str:
    """Return the end of a message: which of the known names is meant, nothing if none is like it."""
    from difflib import get_close_matches

    close = get_close_matches(str(name), known, 1)
    return f", did you mean {close[0]!r}?" if close else ""


def check_name(name: object, what: str = "name") -> str:
    """Return `name` if it can name a cache or a namespace.

    Raises:
        ConfigError: it cannot; the message begins with `what`.
    """
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    raise not_allowed(what, name, "1 to 100 of the characters A-Z a-z 0-9 _ . - and neither . nor - at the start")


def segment_name(namespace: str, cache: str) -> str:
    """Return the name of the POSIX shared-memory object that holds `cache`."""
    return f"/coopshm:{check_name(namespace, 'namespace')}:{check_name(cache, 'cache name')}"


def parse_size(size: str | int, where: str = "size") -> int:
    """Return a size in bytes.

    Args:
        size: a number of bytes, or a string of a whole number and a unit, in any case: KB, MB, GB, TB are
            powers of 1000, KiB, MiB, GiB, TiB are powers of 1024, B or nothing is bytes. K, M, G and T alone
            are refused, because some programs mean the one by them and some the other.
        where: what the message of an error begins with.

    Raises:
        ConfigError: anything else, bool, float and negative numbers included.
    """
    if type(size) is int and size >= 0:
        return size
    match = _SIZE.fullmatch(size.strip()) if isinstance(size, str) else None
    if match:
        number, unit = int(match[1]), match[2].lower()
        if unit in _UNITS:
            return number * _UNITS[unit]
        if unit + "ib" in _UNITS:
            both = f'"{number} {unit.upper()}iB" (powers of 1024) or "{number} {unit.upper()}B" (powers of 1000)'
            raise not_allowed(where, size, f"it can mean {both}: write which")
    raise not_allowed(where, size, 'write a whole number of bytes, or one with a unit such as "64 MiB" or "500 MB"')


def resolve_object(reference: str, where: str = "reference") -> object:
    """Import what "package.module:attribute" refers to.

    Raises:
        ConfigError: malformed, no such attribute, or the module cannot be imported (`__cause__` says why).
    """
    if not _REFERENCE.fullmatch(reference):
        raise not_allowed(where, reference, 'write "package.module:function"')
    from importlib import import_module

    module, _, path = reference.partition(":")
    try:
        found: object = import_module(module)
    except Exception as exc:
        raise ConfigError(
            f"{where}: {reference!r}: importing {module!r} raised {type(exc).__name__}: {exc}; "
            "the module must be importable in every process that uses the cache"
        ) from exc
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as exc:
            known = [other for other in dir(found) if not other.startswith("__")]
            raise ConfigError(f"{where}: {reference!r}: {module!r} has no {path!r}{did_you_mean(name, known)}") from exc
    return found


def resolve_callable(
    reference: str | Callable[[object], object], where: str = "on_reset"
) -> Callable[[object], object]:
    """Import the function that "package.module:function" refers to; a callable is returned as it is.

    Raises:
        ConfigError: as `resolve_object`, or what was found cannot be called.
    """
    found = resolve_object(reference, where) if isinstance(reference, str) else reference
    if not callable(found):
        raise not_allowed(where, reference, f"it must be callable, not {type(found).__name__}")
    return found


class _CacheFields(NamedTuple):
    name: str
    memory_limit: int
    max_items: int
    version: object
    on_reset: str | Callable[[object], object] | None
    serializer: object
    lifetime: str
    hot_objects: bool | str
    timeout: float | None
    on_timeout: OnTimeout
    user: str | int | None
    group: str | int | None
    mode: int


class CacheConfig(_CacheFields):
    """The settings of one cache. Immutable, and checked on construction.

    Args:
        name: of the cache, see `check_name`.
        memory_limit: size of the arena, in bytes or as for `parse_size`; taken only as the cache fills.
        max_items: most entries; by default one per KiB of `memory_limit`, and at least 1024.
        version: of the source when the cache is created, any JSON-able term (see `encode_version`), or None.
        on_reset: called with the desired version by the process that resets; "module:function" or a callable.
        serializer: see `coopshm.values.codec`.
        lifetime: "app": the cache starts cold when no live process has it; "host": it survives restarts.
        hot_objects: keep decoded values in the process: True for immutable ones, "share" for all, or False.
        timeout: seconds that a call waits for another's computation, unless it says otherwise; None: without limit.
        on_timeout: what it does then, unless it says otherwise: "raise" WaitTimeout, or "compute" without the cache.
        user: owner of the segment, a name or uid; None for the effective user of the process that creates it.
        group: likewise for the group.
        mode: permissions of the segment, 0o600, or 0o660 with `group`; a string is read as octal.

    Raises:
        ConfigError: with a message that begins with the key path, `caches.NAME.SETTING`.
    """

    __slots__ = ()

    def __new__(
        cls,
        name: str,
        memory_limit: int | str = 64 * 1024 * 1024,
        max_items: int | None = None,
        version: object = None,
        on_reset: str | Callable[[object], object] | None = None,
        serializer: object = "pickle",
        lifetime: str = "app",
        hot_objects: bool | str = True,
        timeout: float | None = None,
        on_timeout: str = "raise",
        user: str | int | None = None,
        group: str | int | None = None,
        mode: int | str = 0o600,
    ) -> CacheConfig:
        check_name(name, "cache name")
        at = f"caches.{name if '.' not in name else repr(name)}"
        given, memory_limit = memory_limit, parse_size(memory_limit, f"{at}.memory_limit")
        if not MEMORY_LIMIT_MIN <= memory_limit <= MEMORY_LIMIT_MAX:
            raise not_allowed(f"{at}.memory_limit", given, "64 KiB to 1 TiB; without a unit it is bytes")
        if max_items is None:
            max_items = max(1024, memory_limit // 1024)
        elif type(max_items) is not int or not 1 <= max_items <= MAX_ITEMS_MAX:
            raise not_allowed(f"{at}.max_items", max_items, f"a whole number from 1 to {MAX_ITEMS_MAX}")
        try:
            version = decode_version(encode_version(version)) if version is not None else None
        except ConfigError as exc:
            raise ConfigError(f"{at}.{exc}") from exc.__cause__
        if isinstance(on_reset, str):
            if not _REFERENCE.fullmatch(on_reset):
                raise not_allowed(f"{at}.on_reset", on_reset, 'write "package.module:function"')
        elif on_reset is not None and not callable(on_reset):
            raise not_allowed(f"{at}.on_reset", on_reset, '"package.module:function" or a callable')
        _check_serializer(serializer, f"{at}.serializer")
        if lifetime not in ("app", "host"):
            raise not_allowed(f"{at}.lifetime", lifetime, '"app" or "host"')
        if hot_objects is not True and hot_objects is not False and hot_objects != "share":
            raise not_allowed(f"{at}.hot_objects", hot_objects, 'true, false or "share"')
        if timeout is not None:
            timeout = check_timeout(timeout, f"{at}.timeout")
        on_timeout = check_on_timeout(on_timeout, f"{at}.on_timeout")
        _check_principal(user, f"{at}.user")
        _check_principal(group, f"{at}.group")
        mode = _parse_mode(mode, f"{at}.mode")
        if mode & 0o070 and group is None:
            allowed = 'it lets a group in, but `group` is not set: add `group`, or write mode = "0600"'
            raise not_allowed(f"{at}.mode", f"{mode:04o}", allowed)
        return super().__new__(
            cls,
            name,
            memory_limit,
            max_items,
            version,
            on_reset,
            serializer,
            lifetime,
            hot_objects,
            timeout,
            on_timeout,
            user,
            group,
            mode,
        )


def _check_serializer(serializer: object, where: str) -> None:
    if isinstance(serializer, str):
        if serializer not in SERIALIZERS and not _REFERENCE.fullmatch(serializer):
            known = ", ".join(f'"{name}"' for name in SERIALIZERS)
            allowed = f'{known}, "package.module:object"{did_you_mean(serializer, list(SERIALIZERS))}'
            raise not_allowed(where, serializer, allowed)
    elif not (callable(getattr(serializer, "dumps", None)) and callable(getattr(serializer, "loads", None))):
        raise not_allowed(where, serializer, "an object with the methods dumps and loads, or the name of a serializer")


def _check_principal(principal: object, where: str) -> None:
    """Check a user or group; -1 (in 32 bits) is no identity but means "leave as it is" to chown."""
    if principal is None or (type(principal) is int and 0 <= principal < 2**32 - 1):
        return
    if not (isinstance(principal, str) and principal and principal.isprintable() and not principal.isspace()):
        raise not_allowed(where, principal, "a name or a number from 0")


def _parse_mode(mode: object, where: str) -> int:
    bits = mode
    if isinstance(mode, str) and re.fullmatch("(0o)?[0-7]{1,4}", mode):
        bits = int(mode, 8)
    if bits in (0o600, 0o660) and type(bits) is int:
        return bits
    hint = 'write "0600", or "0660" with a group, as a string or in octal'
    if type(bits) is int and bits & 0o007:
        # P9: what may write a segment chooses the values that its users see, and pickled values can run code.
        hint = f"nobody but the owner and the group may have access, or anyone could change the values; {hint}"
    if type(mode) is int:
        raise ConfigError(f"{where}: {mode}, which is {mode:#o}, is not allowed: {hint}")
    raise not_allowed(where, mode, hint)


class Config(NamedTuple):
    """A loaded configuration. Immutable; made by `load`.

    Attributes:
        namespace: of all its caches on the host.
        caches: the configured caches by name.
        cluster: the `[cluster]` table as it stands, None without one.
        source: where it came from, for messages.
        implicit: no configuration was given or found, so that every name gets a cache with the defaults.
    """

    namespace: str
    caches: Mapping[str, CacheConfig]
    cluster: Mapping[str, object] | None
    source: str
    implicit: bool

    def cache(self, name: str) -> CacheConfig:
        """Return the settings of the cache `name`.

        Raises:
            UnknownCacheError: there is a configuration, and this cache is not in it.
            ConfigError: there is none, and `name` is not a valid name.
        """
        if name in self.caches:
            return self.caches[name]
        if self.implicit:
            return CacheConfig(name)
        known = sorted(self.caches)
        listed = f"the known ones are {', '.join(known)}" if known else "it has no [caches.NAME] table at all"
        raise UnknownCacheError(f"{self.source} has no cache {shorten(name)}{did_you_mean(name, known)}; {listed}")


def load(source: Mapping[str, object] | str | os.PathLike[str] | None = None) -> Config:
    """Load and check a configuration.

    Args:
        source: a mapping; the path of a TOML file; or None: the file that $COOPSHM_CONFIG names, else
            coopshm.toml in the current directory if there is one, else no configuration (`Config.implicit`).
            $COOPSHM_NAMESPACE replaces the namespace in each case. An empty variable counts as unset.

    Raises:
        ConfigError: the file cannot be read, or something in it is not allowed.
    """
    implicit = False
    table: object = source
    if isinstance(source, Mapping):
        label = "<mapping>"
    elif source is not None:
        if not isinstance(source, (str, os.PathLike)):
            raise not_allowed("configuration", source, "a mapping, or the path of a TOML file")
        label = os.fsdecode(source)
        table = read_toml(label, label)
    elif path := os.environ.get("COOPSHM_CONFIG"):
        label = f"<$COOPSHM_CONFIG: {path}>"
        table = read_toml(path, label)
    elif os.path.exists(_DEFAULT_FILE):
        label = os.path.abspath(_DEFAULT_FILE)
        table = read_toml(label, label)
    else:
        label, table, implicit = "<no configuration>", {}, True
    try:
        config = _parse(table, label, implicit)
    except ConfigError as exc:
        raise ConfigError(f"{label}: {exc}") from exc.__cause__
    if namespace := os.environ.get("COOPSHM_NAMESPACE"):
        return config._replace(namespace=check_name(namespace, "$COOPSHM_NAMESPACE"))
    return config


def read_toml(path: str, label: str) -> dict[str, object]:
    """Return what a TOML file says, unchecked. Raises ConfigError, whose message begins with `label`."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as exc:
        raise ConfigError(f"{label}: cannot be read: {exc.strerror or exc}") from exc
    except (ValueError, RecursionError) as exc:  # TOML or UTF-8 that is none
        raise ConfigError(f"{label}: is not valid TOML: {exc}") from exc


def _parse(source: object, label: str, implicit: bool) -> Config:
    table = _table(source, "the configuration")
    _check_keys(table, ["namespace", "caches", "cluster"], "")
    namespace = check_name(table.get("namespace", "default"), "namespace")
    caches = {}
    fields = [field for field in CacheConfig._fields if field != "name"]
    for name, value in _table(table.get("caches", {}), "caches").items():
        check_name(name, "cache name")
        settings = _table(value, f"caches.{name}")
        _check_keys(settings, fields, f"caches.{name}.")
        caches[name] = CacheConfig(name, **settings)  # type: ignore[arg-type]  # it checks them
    cluster = MappingProxyType(_table(table["cluster"], "cluster")) if "cluster" in table else None
    return Config(namespace, MappingProxyType(caches), cluster, label, implicit)


def _table(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise not_allowed(where, value, "it must be a table (a mapping)")
    return dict(value)


def _check_keys(table: Mapping[str, object], known: list[str], where: str) -> None:
    for key, value in table.items():
        if key not in known:
            hint = did_you_mean(key, known) or f"; known are {', '.join(known)}"
            if where and isinstance(value, Mapping):
                hint += '; a cache name with a dot needs quotes: [caches."NAME"]'
            raise ConfigError(f"{where}{key}: there is no such setting{hint}")
