"""A segment as its sidecar has it (coopshm.cluster.segment): how long it stays, whenever its payloads end."""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

import coopshm
from coopshm import config as configuration
from coopshm.cluster.segment import Candidate, LogEntry, SidecarSegment
from tests.procs import Child

#: More than the instructions of the calls that are interrupted.
VIEWS = 2000


def _view(segment: SidecarSegment) -> LogEntry:
    found = segment.entry(segment.generation(), False, 0)
    assert isinstance(found, LogEntry)
    return found


def _mappings(settings: dict[str, Any]) -> int:
    name = f"coopshm:{settings['namespace']}:c"
    return sum(line.rstrip().endswith(name) for line in Path("/proc/self/maps").read_text().splitlines())


def _end_at_every_instruction(conn: Connection, settings: dict[str, Any]) -> tuple[int, int, int, int]:
    """Have a payload end at each instruction of what counts them, in that thread. Returns how many did, and the
    mappings of the segment: of the cache alone, after `close` with payloads left, and without."""
    coopshm.configure(settings)
    coopshm.cached("c", "k", lambda: b"value")
    before = _mappings(settings)
    config = configuration.load(settings)
    segment = Candidate(config.namespace, config.caches["c"], "web1", 10.0).open()
    views = [_view(segment) for _ in range(VIEWS)]
    code = sys.modules[SidecarSegment.__module__].__file__

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename != code:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            sys.settrace(None)
            views.pop()
            sys.settrace(trace)
        return trace

    sys.settrace(trace)
    try:
        segment.keep()
        one = _view(segment)
        segment.let_go()
        del one
        segment.close()
    finally:
        sys.settrace(None)
    ended, left = VIEWS - len(views), _mappings(settings)
    views.clear()
    return ended, before, left, _mappings(settings)


def test_a_payload_may_end_at_every_instruction_of_what_counts_payloads(settings: Any) -> None:
    """The collector may choose that moment, in the thread that it is: so what counts them takes no lock."""
    ended, before, left, after = Child(_end_at_every_instruction, settings()).result()
    assert 50 < ended < VIEWS
    assert before == 1
    assert left == 2
    assert after == 1
