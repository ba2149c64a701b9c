"""Values as bytes in shared memory, and back.

A codec turns a value into a format number and the pieces of its payload. The core joins the pieces in shared
memory (so nothing is joined here first) and stores the format beside the entry. The format says how a payload
is read: whoever reads an entry that another serializer wrote gets a DecodeError, never another value.

    BYTES            the value itself, a bytes
    STR              UTF-8, lone surrogates included
    PICKLE           a pickle, protocol 5
    PICKLE_BUFFERS   a pickle whose large buffers follow it, see below
    ARRAY            a NumPy array by itself, see arrays.py
    CUSTOM           what the `dumps` of the user's serializer returned
    JSON, MSGPACK    what they are called
    FAILURE          no value but an exception, see failures.py

Pickle protocol 5 hands out large buffers, such as the data of a NumPy array, instead of copying them into the
pickle. Each then begins at a multiple of 64 bytes from the start of the payload, which suits every dtype and
vector unit (the core puts large payloads at multiples of 64). On reading, each buffer is a read-only slice of
the payload: an array comes back over shared memory, unwritable and without a copy, however large it is.

    PICKLE_BUFFERS:  count of buffers (u32), 0 (u32), length of the pickle (u64), length of each buffer (u64),
                     all little-endian; the pickle; each buffer, after zero bytes up to a multiple of 64

Only trusted bytes may be unpickled, since a pickle can run code: that the segment belongs to us is checked
before it is mapped (P9). What is guarded against here is damage: every length is checked before it is used.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from types import CoroutineType
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from . import arrays
from .config import SERIALIZERS, resolve_object
from .errors import ConfigError, DecodeError, EncodeError, shorten, type_name
from .failures import RemoteTraceback, decode_failure, encode_failure

__all__ = [
    "ARRAY",
    "BYTES",
    "CUSTOM",
    "FAILURE",
    "JSON",
    "MSGPACK",
    "OVER_MEMORY",
    "PICKLE",
    "PICKLE_BUFFERS",
    "STR",
    "Codec",
    "Encoded",
    "NoCache",
    "RemoteTraceback",
    "codec",
    "decode_failure",
    "encode_failure",
    "view",
]

T = TypeVar("T")

BYTES = 1
STR = 2
PICKLE = 3
PICKLE_BUFFERS = 4
CUSTOM = 5
JSON = 6
MSGPACK = 7
ARRAY = 8
FAILURE = 16

#: Formats whose values refer to their payload: large ones come back over shared memory.
OVER_MEMORY: Final = frozenset((PICKLE_BUFFERS, ARRAY))

_ALIGNMENT = 64

#: Buffers below this many bytes stay in the pickle and come back as a private copy. Out of band, a buffer
#: takes about 1 µs longer to read, and up to 71 bytes for its length and padding. By time alone, 8 KiB would
#: do (timed with one and eight NumPy arrays of 512 bytes to 32 KiB); memory, and arrays that are read-only
#: whatever their size, speak for less.
_OUT_OF_BAND_MIN = 1024

_HEAD = struct.Struct("<IIQ")
_LENGTH = struct.Struct("<Q")
_ZEROS = bytes(_ALIGNMENT)


class NoCache(Generic[T]):
    """Wraps a result of `fn` that is to be returned, to the caller and to all who wait for it, but not stored.

    Args:
        value: what the callers get.
    """

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"NoCache({self.value!r})"


class Encoded(NamedTuple):
    """A value ready to be stored: its format, and the pieces whose concatenation is its payload.

    Views among the pieces are C-contiguous and consist of bytes, so `len()` is the size of every piece. They
    may refer to memory of the value itself, which must not change until the pieces have been stored.
    """

    format: int
    pieces: tuple[bytes | memoryview, ...]


class Codec(Protocol):
    """How the values of one cache are stored. Safe to use from several threads at once."""

    #: What `decode` calls for a payload of the format PICKLE; None if it takes none.
    loads: Callable[[bytes], object] | None

    def encode(self, value: object) -> Encoded:
        """Return `value` ready to be stored. Raises EncodeError where the serializer cannot handle it."""

    def decode(self, format: int, data: bytes | memoryview) -> object:
        """Return the value whose payload in `format` is `data`.

        What is returned may refer to `data`, which must therefore never change. Raises DecodeError, and
        nothing else, where `data` is damaged or of another serializer.
        """


def codec(serializer: object = "pickle") -> Codec:
    """Return the codec for the setting `serializer`.

    Args:
        serializer: one of
            "pickle": any picklable object; bytes, str and large buffers are stored as they are.
            "raw": bytes, bytearray and C-contiguous memoryview; each comes back as bytes.
            "json": what the json module takes. Tuples become lists, and keys of dicts str.
            "msgpack": what msgspec.msgpack takes, from the extra coopshm[msgpack]. Tuples become lists.
            "package.module:object", or an object, with `dumps(value)` returning bytes or a C-contiguous view
            of them and `loads(bytes)` returning the value. `loads` always gets bytes, so that it need not
            handle views.

    Raises:
        ConfigError: no such serializer, or what it needs is not installed.
    """
    if serializer == "pickle":
        return _PickleCodec()
    if serializer == "raw":
        return _RawCodec()
    if serializer == "json":
        import json

        return _DumpsCodec(JSON, "json", lambda value: json.dumps(value).encode(), json.loads)
    if serializer == "msgpack":
        try:
            from msgspec import msgpack
        except ImportError as exc:
            raise ConfigError('serializer "msgpack" needs the package msgspec: pip install "coopshm[msgpack]"') from exc
        return _DumpsCodec(MSGPACK, "msgpack", msgpack.encode, msgpack.decode)
    found = serializer
    if isinstance(serializer, str):
        if ":" not in serializer:
            known = ", ".join(SERIALIZERS)
            raise ConfigError(f"there is no serializer {serializer!r}: use {known} or package.module:object")
        found = resolve_object(serializer, "serializer")
    dumps, loads = getattr(found, "dumps", None), getattr(found, "loads", None)
    if not (callable(dumps) and callable(loads)):
        raise ConfigError(f"serializer {shorten(serializer)} must have the methods dumps and loads")
    return _DumpsCodec(CUSTOM, shorten(serializer), dumps, loads)


def view(format: int, data: bytes | memoryview) -> memoryview:
    """Return a payload that consists of bytes as a read-only view, without copying it.

    Raises:
        TypeError: the entry is something else than bytes, a str or an array for instance.
    """
    if format in (BYTES, CUSTOM, JSON, MSGPACK):
        return memoryview(data).toreadonly()
    raise TypeError(
        'only a value that is stored as bytes has a view: return bytes, or use serializer = "raw"; '
        "a NumPy array needs none, it already comes back over shared memory"
    )


class _PickleCodec:
    loads: Callable[[bytes], object] | None = staticmethod(pickle.loads)

    def encode(self, value: object) -> Encoded:
        if type(value) is bytes:
            return Encoded(BYTES, (value,))
        if type(value) is str:
            return Encoded(STR, (value.encode("utf-8", "surrogatepass"),))
        pieces = arrays.encode(value, _OUT_OF_BAND_MIN)
        if pieces is not None:
            return Encoded(ARRAY, pieces)
        buffers: list[memoryview] = []

        def stays_in_band(buffer: pickle.PickleBuffer) -> bool:
            try:
                raw = buffer.raw()
            except BufferError:
                return True  # not contiguous: pickle explains that it cannot do this
            if raw.nbytes < _OUT_OF_BAND_MIN:
                return True
            buffers.append(raw)
            return False

        try:
            stream = pickle.dumps(value, 5, buffer_callback=stays_in_band)
        except Exception as exc:
            raise _not_encoded(value, "pickle", exc) from exc
        if not buffers:
            return Encoded(PICKLE, (stream,))
        return Encoded(PICKLE_BUFFERS, _join(stream, buffers))

    def decode(self, format: int, data: bytes | memoryview) -> object:
        try:
            if format == PICKLE:
                return pickle.loads(data)
            if format == ARRAY:
                return arrays.decode(data)
            if format == STR:
                return str(data, "utf-8", "surrogatepass")
            if format == BYTES:
                return bytes(data)
            if format == PICKLE_BUFFERS:
                stream, buffers = _split(data)
                return pickle.loads(stream, buffers=buffers)
        except DecodeError:
            raise
        except Exception as exc:
            raise _not_decoded("pickle", exc) from exc
        raise _other_format(format, "pickle")


def _join(stream: bytes, buffers: list[memoryview]) -> tuple[bytes | memoryview, ...]:
    """Lay out a pickle and its buffers as PICKLE_BUFFERS."""
    head = _HEAD.pack(len(buffers), 0, len(stream)) + b"".join([_LENGTH.pack(len(raw)) for raw in buffers])
    pieces: list[bytes | memoryview] = [head, stream]
    end = len(head) + len(stream)
    for buffer in buffers:
        padding = -end % _ALIGNMENT
        if padding:
            pieces.append(_ZEROS[:padding])
        pieces.append(buffer)
        end += padding + len(buffer)
    return tuple(pieces)


def _split(data: bytes | memoryview) -> tuple[memoryview, list[memoryview]]:
    """Take a PICKLE_BUFFERS payload apart, believing no length before it is checked."""
    whole = memoryview(data).toreadonly()
    total = len(whole)
    if total < _HEAD.size:
        raise DecodeError(f"a payload of {total} bytes is too short for its header")
    count, zero, length = _HEAD.unpack_from(whole)
    start = _HEAD.size + _LENGTH.size * count
    end = start + length
    if zero != 0 or end > total:
        raise DecodeError(f"the header of a payload of {total} bytes is damaged")
    stream = whole[start:end]
    buffers = []
    for position in range(_HEAD.size, start, _LENGTH.size):
        (size,) = _LENGTH.unpack_from(whole, position)
        start = end + -end % _ALIGNMENT
        end = start + size
        if end > total:
            raise DecodeError(f"a buffer lies outside its payload of {total} bytes")
        buffers.append(whole[start:end])
    if end != total:
        raise DecodeError(f"a payload of {total} bytes has {total - end} more than its header says")
    return stream, buffers


class _RawCodec:
    loads: Callable[[bytes], object] | None = None

    def encode(self, value: object) -> Encoded:
        if isinstance(value, bytes):
            return Encoded(BYTES, (value,))
        if isinstance(value, (bytearray, memoryview)):
            return Encoded(BYTES, (_as_bytes(value, "raw"),))
        raise EncodeError(
            f'serializer "raw" takes bytes, bytearray and memoryview, not {type_name(type(value))}: '
            "convert the value, or choose another serializer"
        )

    def decode(self, format: int, data: bytes | memoryview) -> object:
        if format == BYTES:
            return bytes(data)
        raise _other_format(format, "raw")


class _DumpsCodec:
    """Any pair of functions between values and bytes."""

    loads: Callable[[bytes], object] | None = None

    def __init__(
        self, format: int, name: str, dumps: Callable[[object], object], loads: Callable[[bytes], object]
    ) -> None:
        self._format = format
        self._name = name
        self._dumps = dumps
        self._loads = loads

    def encode(self, value: object) -> Encoded:
        try:
            data = self._dumps(value)
        except Exception as exc:
            raise _not_encoded(value, self._name, exc) from exc
        return Encoded(self._format, (data if type(data) is bytes else _as_bytes(data, self._name),))

    def decode(self, format: int, data: bytes | memoryview) -> object:
        if format != self._format:
            raise _other_format(format, self._name)
        try:
            return self._loads(bytes(data))
        except Exception as exc:
            raise _not_decoded(self._name, exc) from exc


def _as_bytes(data: object, name: str) -> memoryview:
    """Return the bytes of any C-contiguous buffer; PickleBuffer flattens also what memoryview.cast cannot."""
    try:
        whole = memoryview(data)  # type: ignore[arg-type]  # what is no buffer raises TypeError
        if whole.c_contiguous:
            return pickle.PickleBuffer(whole).raw()
        reason = "a view that is not C-contiguous, use bytes(...)"
    except (TypeError, ValueError, BufferError) as exc:
        reason = f"{type_name(type(data))} ({exc})"
    raise EncodeError(f"serializer {name} needs bytes or a C-contiguous view of them, but got {reason}")


def _not_encoded(value: object, name: str, exc: Exception) -> EncodeError:
    remedy = "; coroutine functions are for acached()" if isinstance(value, CoroutineType) else ""
    return EncodeError(
        f"serializer {name} cannot encode a value of type {type_name(type(value))}: {type(exc).__name__}: {exc}{remedy}"
    )


def _not_decoded(name: str, exc: Exception) -> DecodeError:
    return DecodeError(f"serializer {name} cannot decode an entry: {type(exc).__name__}: {exc}")


def _other_format(format: int, name: str) -> DecodeError:
    return DecodeError(
        f"an entry has format {format}, which serializer {name} does not write: "
        "all processes that share a cache must be configured with the same serializer"
    )
