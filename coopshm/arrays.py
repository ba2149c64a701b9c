"""A NumPy array by itself, as bytes and back.

The most usual large value, and NumPy takes some twenty times as long to unpickle it as to make it. So it has a format
of its own, if its dtype is one that its `str` names (no fields, no objects), its data contiguous, and its header short.

    number of dimensions (u8), 1 if in Fortran order (u8), length of the dtype's name (u16), each dimension (u64), all
    little-endian; the dtype's name; zero bytes up to 64; the data

NumPy is imported only where there is an array.
"""

from __future__ import annotations

import functools
import math
import struct
import sys
from typing import Any, Final

__all__ = ["decode", "encode"]

_HEAD_BYTES: Final = 64
_HEAD: Final = struct.Struct("<BBH")
_DIMENSION: Final = struct.Struct("<Q")


def encode(array: Any, least_bytes: int) -> tuple[bytes, memoryview] | None:
    """Return the pieces of the payload; None if `array` is no array of this format, or has fewer bytes than that."""
    np: Any = sys.modules.get("numpy")  # who has an array has imported it
    if np is None or type(array) is not np.ndarray or array.nbytes < least_bytes:
        return None
    kind = array.dtype
    name = kind.str.encode()
    if kind.hasobject or kind.names is not None or kind.metadata is not None or not array.flags.forc:
        return None
    if _HEAD.size + _DIMENSION.size * array.ndim + len(name) > _HEAD_BYTES or np.dtype(kind.str) != kind:
        return None
    head = _HEAD.pack(array.ndim, not array.flags.c_contiguous, len(name))
    head += b"".join(map(_DIMENSION.pack, array.shape)) + name
    # As plain bytes, since NumPy hands out no buffer of some dtypes, such as datetime64.
    return head.ljust(_HEAD_BYTES, b"\0"), memoryview(array.ravel(order="K").view(np.uint8))


def decode(data: Any) -> object:
    """Return the array whose payload is `data`, over it and read-only.

    Args:
        data: an immutable buffer: bytes, or a view of the arena. (NumPy looks through a memoryview at what is behind.)

    Raises:
        Exception: it is damaged.
    """
    whole = memoryview(data).toreadonly()
    make, shape, kind, order, size = _parse(bytes(whole[:_HEAD_BYTES]))
    if len(whole) != size:
        raise ValueError(f"an array of {size} bytes has {len(whole)}")
    return make(shape, kind, whole, _HEAD_BYTES, None, order)


@functools.lru_cache(256)
def _parse(head: bytes) -> tuple[Any, tuple[int, ...], Any, str, int]:
    """Return what the header says: ndarray itself, shape, dtype, order, and the bytes that the payload must have."""
    import numpy as np

    ndim, fortran, length = _HEAD.unpack_from(head)
    start = _HEAD.size + _DIMENSION.size * ndim
    end = start + length
    if len(head) != _HEAD_BYTES or fortran > 1 or end > _HEAD_BYTES or any(head[end:]):
        raise ValueError("the header of an array is damaged")
    shape = struct.unpack_from(f"<{ndim}Q", head, _HEAD.size)
    kind = np.dtype(head[start:end].decode("ascii"))
    if kind.hasobject:
        raise ValueError("the header of an array is damaged")
    return np.ndarray, shape, kind, "F" if fortran else "C", _HEAD_BYTES + math.prod(shape) * kind.itemsize
