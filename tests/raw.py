"""The segment's bytes, for tests that need what no API gives: a held write lock, pins, locks of a descriptor.

Offsets are those that csrc/layout.h asserts. Nothing here is atomic: it is for moments at which nobody else writes.
"""

from __future__ import annotations

import os
import struct
from typing import Any

import coopshm
from coopshm._segment import ffi, lib

NO_ROW = 0xFFFFFFFF
_WRITE_LOCK, _SIDECAR_SEEN, _ROWS_OFF = 320, 520, 64 + 14 * 8
_ROW_BYTES, _VIEW_PINS, _CHUNKS = 4096, 1776, 256


def memory(cache: coopshm.Cache) -> Any:
    """All of the mapping, writable."""
    handle = cache._attachment.segment.handle
    return memoryview(ffi.buffer(lib.csm_base(handle), lib.csm_mapped_bytes(handle)))


def _u64(cache: coopshm.Cache, at: int) -> int:
    return struct.unpack_from("<Q", memory(cache), at)[0]


def sidecar_seen(cache: coopshm.Cache) -> int:
    """When the host's sidecar last looked (CLOCK_MONOTONIC, ns); 0 if none has."""
    return _u64(cache, _SIDECAR_SEEN)


def row(cache: coopshm.Cache) -> int:
    """This process's row, NO_ROW when it has none."""
    return cache._attachment.segment.describe().my_row


def _row_at(cache: coopshm.Cache, row: int) -> int:
    return _u64(cache, _ROWS_OFF) + row * _ROW_BYTES


def owner_word(cache: coopshm.Cache) -> int:
    """As layout.h packs it: row + 1 and incarnation."""
    mine = row(cache)
    assert mine != NO_ROW
    return (mine + 1) << 40 | _u64(cache, _row_at(cache, mine))


def pins(cache: coopshm.Cache) -> int:
    """View pins in this process's own row."""
    mine = row(cache)
    if mine == NO_ROW:
        return 0
    at = _row_at(cache, mine) + _VIEW_PINS
    return sum(struct.unpack_from(f"<{_CHUNKS}I", memory(cache), at))


def hold_write_lock(cache: coopshm.Cache) -> None:
    """As if a thread of this process were inside a critical section, and did not run."""
    assert _u64(cache, _WRITE_LOCK) == 0
    struct.pack_into("<Q", memory(cache), _WRITE_LOCK, owner_word(cache))


def drop_write_lock(cache: coopshm.Cache) -> None:
    assert _u64(cache, _WRITE_LOCK) == owner_word(cache), "nobody took it from its living holder"
    struct.pack_into("<Q", memory(cache), _WRITE_LOCK, 0)


def descriptors(namespace: str) -> list[int]:
    """This process's descriptors of the segments of `namespace`."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if f"/coopshm:{namespace}:" in os.readlink(f"/proc/self/fd/{name}"):
                found.append(int(name))
        except FileNotFoundError:
            pass  # the one that lists them
    return found


def locks(fd: int) -> int:
    """How many locks are held through the open file description behind `fd`, by whomever."""
    with open(f"/proc/self/fdinfo/{fd}") as info:
        return sum(line.startswith("lock:") for line in info)
