"""What a soak's processes write down, so that it survives their deaths.

One append-only memory file is inherited by every process. A record is 64 bytes, written by one write(2) at the end of
the file: it is there as a whole or not at all, whenever its process is killed. The checker reads behind the writers,
and gives back the pages of what it has read. Faults go to a second such file, a JSON line each.

The board is shared memory with one line per worker: what it is doing right now. Who was killed in the middle of a call
leaves no record of it, but the board still says when that call began: a kill cannot hide a hang.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import mmap
import os
import struct
import time
from typing import Any

import numpy as np

now = time.monotonic_ns

#: Kinds of records.
CALL, BEGIN, END, RESET, HELD, BORN, KILL, STOP, CONT, DEAD, FORK, UNFINISHED, ALARM, PUBLISH = range(1, 15)

#: How a call asked (CALL, UNFINISHED).
CACHED, VIEW, GET, RESETTING, OTHER = range(5)
HOWS = ("cached", "view", "get", "reset", "other")

#: How a call ended: code of a CALL.
VALUE, FAILURE, MISS, INTERRUPTED, ERROR = range(5)

#: Codes of an END beside those of the core: the computation was left by an exception of a signal handler; was done
#: without the cache.
ABANDONED, BYPASSED = 100, 101

#: One record. `who` is a life: number of the worker << 16 | number of its forked child.
RECORD = np.dtype(
    [
        ("kind", "u1"),
        ("how", "u1"),
        ("code", "i2"),
        ("pid", "u4"),
        ("key", "u4"),
        ("delay", "u4"),  # CALL: microseconds for which the process was runnable and had no CPU
        ("who", "u8"),
        ("begin", "u8"),
        ("look", "u8"),  # CALL: clock before the last look at the generation; PUBLISH, END: clock before publish
        ("end", "u8"),
        ("generation", "u8"),  # CALL: of the value; BEGIN, PUBLISH, END: of the ticket, 0 without the cache
        ("extra", "u8"),  # CALL: generation last seen
    ]
)
_PACK = struct.Struct("<BBhIIIQQQQQQ")
assert _PACK.size == RECORD.itemsize == 64

_BATCH = 1 << 14
_PUNCH_AND_KEEP_SIZE = 3
libc = ctypes.CDLL(None, use_errno=True)


def _appending(name: str) -> int:
    fd = os.memfd_create(name)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
    return fd


class Log:
    """The records and the faults of one soak."""

    def __init__(self) -> None:
        self._fd = _appending("soak-history")
        self.faults_fd = _appending("soak-faults")
        self._read = self._faults_read = 0

    def write(
        self,
        kind: int,
        who: int,
        *,
        how: int = 0,
        code: int = 0,
        key: int = 0,
        delay: int = 0,
        begin: int = 0,
        look: int = 0,
        end: int = 0,
        generation: int = 0,
        extra: int = 0,
    ) -> None:
        record = _PACK.pack(
            kind, how, code, os.getpid(), key, min(delay, 0xFFFFFFFF), who, begin, look, end, generation, extra
        )
        os.write(self._fd, record)

    def fault(self, what: str, who: int, text: str) -> None:
        """`what`: one word or two, by which faults are counted."""
        line = json.dumps({"what": what, "who": name_of(who), "at": now(), "text": text[:3000]})
        os.write(self.faults_fd, line.encode() + b"\n")

    def read(self) -> Any:
        """Return the records that are new since the last time."""
        data = os.pread(self._fd, _BATCH * RECORD.itemsize, self._read)
        data = data[: len(data) // RECORD.itemsize * RECORD.itemsize]
        whole = (self._read + len(data)) // mmap.PAGESIZE * mmap.PAGESIZE
        done = self._read // mmap.PAGESIZE * mmap.PAGESIZE
        self._read += len(data)
        if whole > done:
            libc.fallocate(self._fd, _PUNCH_AND_KEEP_SIZE, ctypes.c_long(done), ctypes.c_long(whole - done))
        return np.frombuffer(data, RECORD)

    def read_faults(self) -> list[dict[str, Any]]:
        """Return the new faults; text between them (a dumped stack) comes as a fault of its own."""
        data = os.pread(self.faults_fd, 1 << 20, self._faults_read)
        data = data[: data.rfind(b"\n") + 1]
        self._faults_read += len(data)
        faults: list[dict[str, Any]] = []
        for line in data.decode(errors="replace").splitlines():
            try:
                faults.append(json.loads(line))
            except ValueError:
                if not faults or faults[-1]["what"] != "stack":
                    faults.append({"what": "stack", "who": "", "at": now(), "text": ""})
                faults[-1]["text"] += line + "\n"
        return faults


_LINE = struct.Struct("<QQIIQ")  # begin (0: between calls), who, key, how, delay() at the beginning
_LINE_BYTES = 64
_CHILD_AT = 48


class Board:
    """What each worker slot does now, and a word by which the soak is ended."""

    def __init__(self, slots: int) -> None:
        self._map = mmap.mmap(-1, (slots + 2) * _LINE_BYTES)  # one more for all forked children
        self.slots = slots

    def enter(self, slot: int, who: int, key: int, how: int, begin: int, waited: int = 0) -> None:
        _LINE.pack_into(self._map, (slot + 1) * _LINE_BYTES, begin, who, key, how, waited)

    def leave(self, slot: int) -> None:
        struct.pack_into("<Q", self._map, (slot + 1) * _LINE_BYTES, 0)

    def line(self, slot: int) -> tuple[int, int, int, int, int]:
        return _LINE.unpack_from(self._map, (slot + 1) * _LINE_BYTES)  # type: ignore[return-value]

    def set_child(self, slot: int, pid: int, who: int) -> None:
        struct.pack_into("<QQ", self._map, (slot + 1) * _LINE_BYTES + _CHILD_AT, pid, who)

    def child(self, slot: int) -> tuple[int, int]:
        """Pid and name of the last child that the slot's worker forked; pid 0: none. It may be gone."""
        return struct.unpack_from("<QQ", self._map, (slot + 1) * _LINE_BYTES + _CHILD_AT)  # type: ignore[return-value]

    def is_due(self, gap: float) -> bool:
        """Is it time for a reset? Then the next one is due in `gap` seconds. Several may be told so at once."""
        at = now()
        if at < struct.unpack_from("<Q", self._map, 8)[0]:
            return False
        struct.pack_into("<Q", self._map, 8, at + int(gap * 1e9))
        return True

    @property
    def word(self) -> int:
        """0: not begun; 1: go; 2: end."""
        return struct.unpack_from("<Q", self._map, 0)[0]  # type: ignore[no-any-return]

    @word.setter
    def word(self, value: int) -> None:
        struct.pack_into("<Q", self._map, 0, value)


def name_of(who: int) -> str:
    """A life, for people."""
    life, child = who >> 16, who & 0xFFFF
    return f"life {life}" + (f" child {child}" if child else "")
