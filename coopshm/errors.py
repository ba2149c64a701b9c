"""Every exception that coopshm raises on its own account: one tree, rooted in CoopshmError.

A cache must not take its server down, so most of what can go wrong inside it is counted as a bypass and the
request is answered anyway (P8). What is raised is what only a person can put right: a wrong setting, a key of
a type that has no stable encoding, a segment that belongs to somebody else, a computation that waits for
itself. Where the standard library has a class for the same mistake, ours inherits from it as well, so `except
KeyError` or `except TypeError` goes on working.

Each class says when it is raised and what to do about it. All of them survive pickling, because an exception
of a computation travels from the process that ran it to the processes that waited for it.

This module imports nothing: every other module imports it.
"""

from __future__ import annotations

__all__ = [
    "BusyError",
    "ComputeError",
    "ConfigError",
    "CoopshmError",
    "CorruptError",
    "CycleError",
    "DecodeError",
    "EncodeError",
    "InvalidKeyError",
    "LayoutError",
    "NoSpaceError",
    "OwnershipError",
    "ResetError",
    "SegmentError",
    "UnknownCacheError",
    "WaitTimeout",
    "count",
    "not_allowed",
    "shorten",
    "shorten_text",
    "type_name",
]


class CoopshmError(Exception):
    """The root of the tree: `except CoopshmError` catches whatever this library raises by itself.

    An exception of your own `fn` is not one of these: it reaches you with its own type.
    """


class ConfigError(CoopshmError, ValueError):
    """A setting is missing, misspelt, of the wrong type or out of range.

    Raised while a configuration is loaded, and by functions whose argument takes the place of a setting (such
    as `version=`). The message names the file, the key path, the offending value and what is allowed there.
    """


class UnknownCacheError(CoopshmError, KeyError):
    """The configuration has no cache of this name.

    Raised by every function that takes a cache name, once there is a configuration at all. The message lists
    the known names and says where the configuration came from: add a `[caches.NAME]` table there, or correct
    the name.
    """

    def __str__(self) -> str:
        # KeyError shows its argument through repr(), which would wrap a whole sentence in quotes.
        return Exception.__str__(self)


class InvalidKeyError(CoopshmError, TypeError):
    """A key cannot be encoded: it has a type without a stable encoding, or it is too long.

    Keys are str, bytes, int, float, bool, None and tuples of them. The message names the type, where in the
    tuple it was found, and what to write instead.
    """


class SegmentError(CoopshmError):
    """The shared-memory segment of a cache cannot be used; the subclasses say why.

    `coopshm-admin doctor` examines the host for the usual causes.
    """


class LayoutError(SegmentError):
    """The segment was made by a coopshm with another layout, word size or C library.

    Raised on attaching. Let all processes of a host use one coopshm build, give the other release a
    `namespace` of its own, or remove the old segment with `coopshm-admin destroy`.
    """


class OwnershipError(SegmentError):
    """The segment belongs to another user, has another mode, is not a regular file, or may not be opened.

    Raised on attaching, because trusting such a segment would let another user choose the values you see.
    Check which user the processes run as, and the settings `user`, `group` and `mode`.
    """


class NoSpaceError(SegmentError):
    """/dev/shm is missing or has no room even for the headers of the segment.

    Raised on creating a segment. Enlarge /dev/shm (in a container: `--shm-size`) or lower `memory_limit`. An
    arena that fills up later raises nothing: new values are then simply not stored.
    """


class BusyError(SegmentError):
    """The lock of the segment is held by a process that is alive but does not run, such as a stopped one.

    Raised by calls that cannot do without the lock, such as `reset()`. Continue or end that process, then
    call again. `cached()` never raises this: it computes the value without the cache.
    """


class CorruptError(SegmentError):
    """The segment holds something that no coopshm process writes.

    Remove it with `coopshm-admin destroy` and restart the processes; `coopshm-admin verify` shows what is
    wrong.
    """


class CycleError(CoopshmError, RuntimeError):
    """A computation asked, directly or through others, for a key that waits for its own result.

    Raised at once, in place of the deadlock. Break the circle in the functions that compute the values.

    `chain` holds the keys in the order in which they wait for each other, beginning and ending with the same
    key.
    """

    def __init__(self, message: str = "", chain: tuple[object, ...] = ()) -> None:
        super().__init__(message)
        self.chain = chain


class WaitTimeout(CoopshmError, TimeoutError):  # noqa: N818  # as the standard library's classes for this are named
    """Another's computation of the key has taken longer than this call was to wait for it.

    Raised where a `timeout` was given or configured, with `on_timeout="raise"`. The computation goes on, and its value
    will be stored. `coopshm-admin flights` shows which process computes; if that is stopped, continue or kill it.
    """


class ComputeError(CoopshmError):
    """The function of another process raised an exception that could not be carried over to this one.

    Raised in a process that waited, in place of the original, when that cannot be pickled or its class does
    not exist here. Make the exception class importable and picklable to get the original.

    `type_name` is the qualified name of the original type, `text` its formatted traceback.
    """

    def __init__(self, message: str = "", type_name: str = "", text: str = "") -> None:
        super().__init__(message)
        self.type_name = type_name
        self.text = text


class ResetError(CoopshmError, RuntimeError):
    """A reset could not be carried out; the cache still has the generation it had.

    Raised by `reset()` when another reset does not come to an end, or when it is called from where it would
    wait for itself, such as from an `on_reset` callback.
    """


class EncodeError(CoopshmError, TypeError):
    """A value cannot be turned into bytes by the serializer of its cache.

    `__cause__` is what the serializer raised, if it did. Return a value it can handle, or choose another
    `serializer` for the cache.
    """


class DecodeError(CoopshmError):
    """Stored bytes cannot be turned back into a value.

    Seen when processes of different releases share a segment and a class has moved or changed, or when they
    are configured with different serializers. `__cause__` is what the serializer raised. `reset()` the cache,
    or give the new release its own `namespace`.
    """


def not_allowed(where: str, value: object, allowed: str) -> ConfigError:
    """Return the error for a setting at the key path `where`, to be raised."""
    return ConfigError(f"{where}: {shorten(value)} is not allowed: {allowed}")


def shorten(key: object, limit: int = 80) -> str:
    """Return `repr(key)` for a message, its middle left out where it is longer than `limit` characters.

    Never raises: an object whose `repr` fails is shown by its type.
    """
    try:
        text = repr(key)
    except Exception:  # noqa: BLE001  # code of the key's class; a message must not fail for it
        text = f"<{type(key).__name__} object, whose repr() fails>"
    return shorten_text(text, limit)


def shorten_text(text: str, limit: int = 80) -> str:
    """Return `text`, its middle replaced by "..." where it is longer than `limit` characters (at least 5)."""
    limit = max(limit, 5)
    if len(text) <= limit:
        return text
    tail = (limit - 3) // 2
    return f"{text[: limit - 3 - tail]}...{text[-tail:]}"


def count(number: int, singular: str, plural: str) -> str:
    """Return the number with its noun."""
    return f"{number} {singular if number == 1 else plural}"


def type_name(kind: type) -> str:
    """Return the name of a class for a message: with its module, unless it is built in."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
