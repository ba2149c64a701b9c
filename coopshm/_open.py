"""How a process attaches to a segment: which object it accepts, and which it replaces because nobody uses it."""

from __future__ import annotations

import os
import time
from typing import Any, Final

from ._codes import APP, FLIGHTS, GONE, NODES, OBSERVER, OK, ROWS, check
from ._core import ffi, lib
from ._segment import Segment
from .config import CacheConfig, segment_name
from .errors import BusyError
from .objects import open_object, reopen, unlink_if

#: How long to wait for another process that is creating the segment, in seconds. It takes milliseconds; one that
#: is stopped in the middle must not hold others up longer than the contract's second.
CREATE_PATIENCE: Final = 0.8

# An object that this process cannot use, but another might.
_FOREIGN = (lib.CSM_LAYOUT, lib.CSM_CORRUPT)


def in_use(fd: int) -> bool:
    """Does any process hold a row of the object behind `fd`, whatever release of coopshm it has?"""
    return lib.csm_in_use(fd) != 0  # type: ignore[no-any-return]  # an error: better "yes" than a wrong "no"


def bytes_needed(config: CacheConfig) -> int:
    """Return how much of /dev/shm the segment of a cache takes when it is full, index and headers included."""
    return lib.csm_segment_bytes(_settings(config))  # type: ignore[no-any-return]


def _settings(config: CacheConfig) -> Any:
    return ffi.new("csm_settings *", (config.memory_limit, config.max_items, ROWS, FLIGHTS, NODES))


def open_segment(namespace: str, config: CacheConfig, version: bytes, role: int = APP, create: bool = True) -> Segment:
    """Attach to the segment of a cache, creating or replacing it as needed.

    Args:
        version: canonical JSON of the configured version, empty for none.
        role: APP, OBSERVER or SIDECAR; only an app flips, and keeps a cache alive.
        create: False to fail with FileNotFoundError when there is none.

    Raises:
        SegmentError and its subclasses, ConfigError (unknown user or group).
    """
    name = segment_name(namespace, config.name)
    label = f"cache {config.name!r} (/dev/shm{name})"
    deadline = time.monotonic() + CREATE_PATIENCE
    while True:
        fd = open_object(name, label, config, create, check_owner=role != OBSERVER)
        segment = _attach(fd, name, label, config, role, version, create)
        if segment is not None:
            return segment
        if time.monotonic() > deadline:
            raise BusyError(f"{label}: another process is creating it and does not get on (stopped?)")
        time.sleep(0.001)


def _attach(
    fd: int, name: str, label: str, config: CacheConfig, role: int, version: bytes, create: bool
) -> Segment | None:
    """Attach to the object behind `fd`. None: it was replaced; look again."""
    out, created = ffi.new("csm **"), ffi.new("int *")
    code = lib.csm_open(fd, _settings(config) if create else ffi.NULL, int(CREATE_PATIENCE * 1e9), out, created)
    if code != OK:
        try:
            if code == lib.CSM_MISS or (code == GONE and not create):
                raise FileNotFoundError(f"{label}: there is no such segment, or none any more")
            if code == GONE or (code in _FOREIGN and role == APP and lib.csm_in_use(fd) == 0):
                _replace(name, fd)
                return None
            if code == lib.CSM_NO_SPACE:
                _replace(name, fd, only_empty=True)  # not what another process has meanwhile made of it
            check(code, label)
        finally:
            os.close(fd)
    segment = Segment(name, label, out[0], bool(created[0]))
    try:
        if (
            role == APP
            and not created[0]
            and _differs(segment, config)
            and lib.csm_in_use_by_others(segment.handle) == 0
        ):
            # Nobody is attached, so nobody can miss it: the new settings take effect.
            segment.destroy()
            segment.leave()
            return None
        flipped = ffi.new("int *")
        cold = role == APP and config.lifetime == "app"
        check(lib.csm_join(segment.handle, role, cold, version, len(version), flipped), label)
        segment.flipped = bool(flipped[0])
        if not _is_named(name, segment):  # replaced or destroyed while this process was joining
            segment.leave()
            return None
    except BaseException:
        segment.leave()
        raise
    return segment


def _differs(segment: Segment, config: CacheConfig) -> bool:
    info = segment.describe()
    return bool(info.memory_limit != config.memory_limit or info.max_items != config.max_items)


def _is_named(name: str, segment: Segment) -> bool:
    fd = reopen(name)
    if fd is None:
        return False
    try:
        return lib.csm_is_object(segment.handle, fd) == 1  # type: ignore[no-any-return]
    finally:
        os.close(fd)


def _replace(name: str, fd: int, only_empty: bool = False) -> None:
    """Unlink `name` if it still is the object behind `fd`, which nobody can use."""
    if lib.csm_guard(fd) != OK:
        return  # its creator, or somebody else who replaces it
    try:
        mine = os.fstat(fd)
        if not (only_empty and mine.st_size):
            unlink_if(name, lambda other: os.path.samestat(os.fstat(other), mine))
    finally:
        lib.csm_unguard(fd)
