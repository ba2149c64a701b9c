"""What the processes of a soak write down, so that it survives their deaths; and the words that rule them.

One file, to which each event is appended as a line of JSON by one write. One whose process is killed in that may be
there in part (the kernel looks for signals between two pages), and is as if it had not been begun. Times are
nanoseconds of CLOCK_MONOTONIC, which all hosts of one machine share.

    born, died    a worker: who, host, pid (in its host); died: how
    call          how (cached, get), cache, key, begin, end, before and after (stamps seen first and last in it), came
                  (value, failure, nothing, error), meta (of what came), text (of an error), starved (ns without a CPU)
    computes      id, cache, key, asked (when its call began), looked (when by then the host's sidecar had last looked
                  at what workers ask for), at, nested, patience (timeout of its call, in seconds),
                  ticket (its generation, 0: without the cache), stamp (the ticket's; none if there had been a reset by
                  then), source (the version that was read)
    computed      id, before (publishing), at, code (of publish; "alone": nothing to publish to)
    resets        who, cache, at: a reset begins
    reset         host, cache, begin, end, stamp (what it came to; none: it was not seen), done
    published     host, version, at: the callback is about to
    fault         what, on, begin, end (of its effects: both are there when it is over)
    stopped       host, pid, begin, end
    gone          host, at: it has lost power
    whole         begin, end: nothing was wrong in between
    lease         what sidecars did about leases, for people (trace.py)
"""

from __future__ import annotations

import json
import mmap
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

now = time.monotonic_ns

#: (counter, version as JSON, who reset): ordered as coopshm.cluster.relay.Stamp.
Stamp = tuple[int, str, str]

_LOG, _CONTROL = "events", "control"


class Log:
    """The events of one soak; `directory` is on a file system that all hosts see."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / _LOG
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, event: str, **details: object) -> None:
        line = json.dumps({"event": event, **details}, separators=(",", ":"))
        os.write(self._fd, line.encode() + b"\n")

    def close(self) -> None:
        os.close(self._fd)

    def read(self) -> Iterator[dict[str, Any]]:
        with self.path.open() as lines:
            for line in lines:
                try:
                    yield json.loads(line)
                except ValueError:  # the first part of one whose process was killed, then a whole one
                    begin = line.rindex('{"event":')
                    if begin > 0:
                        yield json.loads(line[begin:])


class Control:
    """Shared memory by which the run rules its workers."""

    WAIT, GO, END = range(3)

    def __init__(self, directory: Path) -> None:
        path = directory / _CONTROL
        if not path.exists():
            path.write_bytes(bytes(mmap.PAGESIZE))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    @property
    def word(self) -> int:
        return self._map[0]

    @word.setter
    def word(self, value: int) -> None:
        self._map[0] = value

    @property
    def resets(self) -> bool:
        """Whether workers may reset."""
        return bool(self._map[1])

    @resets.setter
    def resets(self, value: bool) -> None:
        self._map[1] = value
