"""Values that know what they are: key, generation at the start of their computation, length, checksum.

A value made up of two others, one with a hole of zeros in it, one that belongs to another key or that changes while it
is held, fails `check`. What cannot carry all that (None, empty bytes) is checked to be just that, and has generation 0.
"""

from __future__ import annotations

import mmap
import os
import random
import struct
import zlib
from typing import Any

import numpy as np

from coopshm import keys

KEYS = 96
NEVER_STORED = (17, 34)  # asked for often: their waiters get outcomes, large ones too
TIERS = 4  # a computation asks only for keys of higher tiers: no cycles
LARGEST = 8 << 20
HEAD = struct.Struct("<4sIQQQI")  # magic, key, generation, nonce, length of the body, checksum of all
_MAGIC = b"soak"

BYTES, LARGE, ARRAY, TUPLE, STR, DICT, SMALL, EMPTY = range(8)
_EMPTIES = (b"", None, "", 0, (), False)


class Wrong(Exception):  # noqa: N818
    """A value is not what it should be."""


class Failed(Exception):  # noqa: N818
    """What a computation raises; it has the self-check of a value."""

    def __init__(self, key: int, generation: int, nonce: int, checksum: int) -> None:
        super().__init__(key, generation, nonce, checksum)


class Unshareable:
    """A value that cannot be encoded."""

    def __init__(self, head: bytes) -> None:
        self.head = head

    def __reduce__(self) -> Any:
        raise TypeError("this value is not to be pickled")


class Undecodable(Unshareable):
    """A value that can be stored, and not be decoded by anybody."""

    def __reduce__(self) -> Any:
        return _refuse, (self.head,)


def _refuse(_: bytes) -> None:
    raise ValueError("this value is not to be unpickled")


_pool = mmap.mmap(-1, LARGEST + (1 << 16))  # shared, so that a fork need not copy its page tables


def fill_pool(seed: int) -> None:
    _pool[:] = np.random.default_rng(seed).bytes(len(_pool))


def kind_of(key: int) -> int:
    return key % 8


def tier_of(key: int) -> int:
    return key * TIERS // KEYS


def cache_key(key: int) -> Any:
    """The key as the cache knows it: of several types."""
    return (f"key {key}", key, ("key", key, None), b"key %d" % key)[key // 8 % 4]


def encoded_keys() -> list[bytes]:
    return [keys.encode_key(cache_key(key)) for key in range(KEYS)]


def sizes(kind: int, rng: random.Random) -> int:
    """Length of a body: mostly small, sometimes up to 8 MiB."""
    if kind in (TUPLE, STR, SMALL):
        return rng.randrange(2048)
    r = rng.random()
    if r < 0.1:
        return 0
    if kind == LARGE or r > 0.98:
        return int(1024 * (LARGEST / 1024) ** rng.random() ** 3)
    return int(4096 ** rng.random()) if r < 0.6 else int(4096 * 64 ** rng.random())


def _sealed(key: int, generation: int, nonce: int, body: Any) -> bytes:
    head = HEAD.pack(_MAGIC, key, generation, nonce, len(body), 0)
    return HEAD.pack(_MAGIC, key, generation, nonce, len(body), zlib.crc32(body, zlib.crc32(head)))


def failure(key: int, generation: int, nonce: int) -> Failed:
    return Failed(key, generation, nonce, zlib.crc32(struct.pack("<QQQ", key, generation, nonce)))


def make(key: int, generation: int, rng: random.Random) -> Any:
    kind, nonce = kind_of(key), rng.getrandbits(32)
    if kind == EMPTY:
        return _EMPTIES[key // 8 % len(_EMPTIES)]
    size = sizes(kind, rng)
    at = nonce % (len(_pool) - size + 1)
    if kind == STR:
        body = _pool[at : at + size].hex().encode()
        return _sealed(key, generation, nonce, body).hex() + body.decode()
    body = _pool[at : at + size]
    head = _sealed(key, generation, nonce, body)
    if kind == ARRAY:
        return np.frombuffer(head + body, np.uint8)
    if kind == TUPLE:
        return (head, nonce, body)
    if kind == DICT:
        return {"head": head, "body": np.frombuffer(body, np.uint8), "nonce": nonce}
    return head + body


def check(key: int, value: Any) -> int:
    """Return the generation in which the value was computed, 0 when it cannot tell.

    Raises:
        Wrong: it is not a whole value of `key`.
    """
    kind = kind_of(key)
    if isinstance(value, Failed):
        args = value.args
        if len(args) != 4 or zlib.crc32(struct.pack("<QQQ", *args[:3])) != args[3] or args[0] != key:
            raise Wrong(f"failure {args} for key {key}")
        return int(args[1])
    if isinstance(value, Unshareable):
        return _check_sealed(key, value.head, b"")
    if kind == EMPTY:
        expected = _EMPTIES[key // 8 % len(_EMPTIES)]
        if value != expected or (type(value) is not type(expected) and not isinstance(value, memoryview)):
            raise Wrong(f"key {key}: {str(value)[:80]!r} instead of {expected!r}")
        return 0
    try:
        if kind == STR:
            data = value.encode()
            return _check_sealed(key, bytes.fromhex(value[: 2 * HEAD.size]), memoryview(data)[2 * HEAD.size :])
        if kind == TUPLE:
            head, nonce, body = value
            if HEAD.unpack(head)[3] != nonce:
                raise Wrong(f"key {key}: a tuple of two values")
            return _check_sealed(key, head, body)
        if kind == DICT:
            return _check_sealed(key, value["head"], memoryview(value["body"]))
        data = memoryview(value)
        return _check_sealed(key, bytes(data[: HEAD.size]), data[HEAD.size :])
    except (TypeError, ValueError, KeyError, struct.error) as exc:
        raise Wrong(f"key {key}: {type(value).__name__} {str(value)[:80]!r}: {exc!r}") from exc


def _check_sealed(key: int, head: bytes, body: Any) -> int:
    magic, of, generation, nonce, size, checksum = HEAD.unpack(head)
    found = f"key {of} generation {generation} nonce {nonce} length {size} checksum {checksum:#x}"
    if magic != _MAGIC or of != key or size != len(body):
        raise Wrong(f"key {key}: the value says {magic!r} {found}, its body has {len(body)} bytes")
    real = zlib.crc32(body, zlib.crc32(HEAD.pack(magic, of, generation, nonce, size, 0)))
    if real != checksum:
        at = nonce % (len(_pool) - size + 1)
        made = np.frombuffer(_pool[at : at + size], np.uint8)
        there = np.frombuffer(body, np.uint8)
        if kind_of(key) != STR:
            bad = np.flatnonzero(made != there)
            where = f"; {len(bad)} bytes differ, from {bad[0]} to {bad[-1]}, {there[bad[0] :][:16].tobytes().hex()}..."
        else:
            where = ""
        raise Wrong(f"key {key}: {found}, but its checksum is {real:#x}{where} (process {os.getpid()})")
    return int(generation)
