"""Exceptions as bytes: how a failure reaches the processes that waited for the value, and what it is there.

A waiter must see the exception that it would have seen had it computed the value itself (P6): the same type,
and the traceback of the process where it happened. Exceptions are code of strangers, so nothing is taken for
granted: pickling one, unpickling it, its str() and its traceback may each fail or be huge, and then its text
is carried over.

The payload: five lengths (u32, little-endian), then as many bytes each of the pickled exception (none where
it does not survive pickling), its type name, its message, its traceback, and the origin, in UTF-8.
"""

from __future__ import annotations

import pickle
import struct
import sys

from .errors import ComputeError, DecodeError, type_name

__all__ = ["RemoteTraceback", "decode_failure", "encode_failure"]

_HEAD = struct.Struct("<5I")

#: Caps, in bytes. 32 KiB hold a traceback of some 300 frames; what pickles to 1 MiB drags a value along.
_TRACEBACK_MAX = 32 * 1024
_LINE_MAX = 1024
_PICKLED_MAX = 1024 * 1024


class RemoteTraceback(Exception):  # noqa: N818  # it is no error by itself; named as in concurrent.futures
    """The `__cause__` of an exception that was raised in another process: its traceback there, as text."""

    def __str__(self) -> str:
        return f'\n"""\n{Exception.__str__(self)}"""'


def encode_failure(exc: Exception, origin: str) -> bytes:
    """Return the payload that stands for `exc`, which is left as it is. Never raises.

    Args:
        exc: what the computation raised.
        origin: where it did, to be noted on the exception where it arrives, such as "raised in process 4711".
    """
    name = type_name(type(exc))
    try:
        message = str(exc)
    except Exception as inner:  # noqa: BLE001  # code of the class
        message = f"<its str() raised {type(inner).__name__}>"
    try:
        import traceback

        text = "".join(traceback.format_exception(exc))
    except Exception as inner:  # noqa: BLE001  # it calls code of every class in the chain
        text = f"{name}: {message}\n(formatting its traceback raised {type(inner).__name__})\n"
    parts = (
        _pickled(exc),
        _capped(name, _LINE_MAX),
        _capped(message, _LINE_MAX),
        _capped(text, _TRACEBACK_MAX),
        _capped(origin, _LINE_MAX),
    )
    return _HEAD.pack(*map(len, parts)) + b"".join(parts)


def decode_failure(data: bytes | memoryview) -> Exception:
    """Return the exception that `data` stands for, to be raised.

    It has the type of the original, a note that names the origin (Python 3.11 and later) and the traceback of
    the other process as its `__cause__`. Where it cannot be rebuilt here, it is a ComputeError with its text.

    Raises:
        DecodeError: `data` is not what `encode_failure` returns.
    """
    pickled, name, message, text, origin = _failure_parts(bytes(data))
    exc = _rebuilt(pickled)
    if exc is None:
        said = f"{name}: {message}" if message else name
        exc = ComputeError(f"{said} ({origin}; the exception itself cannot be carried over)", name, text)
    if sys.version_info >= (3, 11):
        try:
            exc.add_note(origin)
        except Exception:  # noqa: BLE001  # an exception that takes no attributes is raised without the note
            pass
    else:
        text = f"{origin}\n{text}"
    # Past the __setattr__ of the class: that of a frozen dataclass would refuse.
    BaseException.__setattr__(exc, "__cause__", RemoteTraceback(text))
    return exc


def _pickled(exc: Exception) -> bytes:
    """Return `exc` pickled, or nothing where unpickling does not give an exception of its type."""
    try:
        data = pickle.dumps(exc, 5)
        if len(data) <= _PICKLED_MAX and type(pickle.loads(data)) is type(exc):
            return data
    except Exception:  # noqa: BLE001  # code of the class failed: the text is carried over
        pass
    return b""


def _rebuilt(pickled: bytes) -> Exception | None:
    if pickled:
        try:
            exc = pickle.loads(pickled)
            if isinstance(exc, Exception):
                return exc
        except Exception:  # noqa: BLE001  # its class is missing here, or of another release
            pass
    return None


def _capped(text: str, limit: int) -> bytes:
    """Encode `text`, the middle left out above `limit` bytes: a traceback says most at its end."""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= limit:
        return data
    gap = b"\n[...]\n"
    head = limit // 4
    return data[:head] + gap + data[len(data) - (limit - head - len(gap)) :]


def _failure_parts(data: bytes) -> tuple[bytes, str, str, str, str]:
    if len(data) < _HEAD.size:
        raise DecodeError(f"a failure of {len(data)} bytes is too short for its header")
    end = _HEAD.size
    parts = []
    for length in _HEAD.unpack_from(data):
        parts.append(data[end : end + length])
        end += length
    if end != len(data):
        raise DecodeError(f"a failure of {len(data)} bytes has a damaged header")
    name, message, text, origin = (part.decode("utf-8", "replace") for part in parts[1:])
    return parts[0], name, message, text, origin
