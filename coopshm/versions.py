"""Versions as bytes: canonical JSON, so that two versions are equal exactly when their bytes are.

A version is compared in shared memory and between hosts, by processes that share no objects, and may be shown
by tools in other languages: hence JSON, of which one form is canonical (keys sorted, no blanks, ASCII). What
JSON would silently turn into something else, such as a number as key of a dict, is refused.
"""

from __future__ import annotations

from .errors import ConfigError, not_allowed, shorten

__all__ = ["VERSION_BYTES_MAX", "decode_version", "encode_version"]

#: Longest encoded version, in bytes: the place that the segment header has for it.
VERSION_BYTES_MAX = 1024

_DEPTH_MAX = 32


def encode_version(version: object) -> bytes:
    """Return the canonical JSON of a version: equal versions, and only those, have equal bytes.

    Args:
        version: None, bool, int, finite float, str, or lists and str-keyed dicts of them. A tuple counts as
            the list of the same items, which it is after `decode_version`.

    Raises:
        ConfigError: another type, or more than VERSION_BYTES_MAX bytes.
    """
    if type(version) is int and abs(version) < 10**18:
        return b"%d" % version  # what most versions are; the general way costs a reset more than all the rest of it

    import json

    _check_version(version, "version", 0)
    try:
        data = json.dumps(version, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    except ValueError as exc:  # an int with more digits than Python converts
        raise ConfigError(f"version: {shorten(version)} is not allowed: {exc}") from exc
    if len(data) > VERSION_BYTES_MAX:
        allowed = f"it takes {len(data)} bytes as JSON, {VERSION_BYTES_MAX} are allowed; use a digest of it"
        raise not_allowed("version", version, allowed)
    return data


def decode_version(data: bytes) -> object:
    """Return the version that `data` stands for, the inverse of `encode_version`.

    Raises:
        ValueError: `data` is not what `encode_version` returns.
    """
    if data.isdigit() and len(data) < 19 and (len(data) == 1 or data[:1] != b"0"):
        return int(data)

    import json

    try:
        version: object = json.loads(bytes(data[: VERSION_BYTES_MAX + 1]).decode("ascii"))
        if encode_version(version) == data:
            return version
    except (ValueError, RecursionError):
        pass
    raise ValueError(f"not an encoded version: {shorten(bytes(data))}")


def _check_version(value: object, where: str, depth: int) -> None:
    """Refuse what JSON would turn into something else, or give the same bytes as another version."""
    if depth > _DEPTH_MAX:
        raise not_allowed(where, "...", f"at most {_DEPTH_MAX} levels of lists and dicts")
    if value is None or isinstance(value, int):
        return
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise not_allowed(where, value, "a str without lone surrogates")
    elif isinstance(value, float):
        if not abs(value) < float("inf"):
            raise not_allowed(where, value, "a finite number")
    elif isinstance(value, (list, tuple)):
        for position, item in enumerate(value):
            _check_version(item, f"{where}[{position}]", depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise not_allowed(where, key, "keys of dicts are str")
            _check_version(key, where, depth + 1)
            _check_version(item, f"{where}.{key}", depth + 1)
    else:
        name = type(value).__name__
        quote = "; put the date in quotes" if name in ("date", "datetime", "time") else ""
        raise not_allowed(where, value, f"None, bool, int, float, str, lists and dicts, not {name}{quote}")
