"""Becoming the sidecar of a cache, when that is not to be had at once (coopshm.cluster.segment.Candidate)."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

import coopshm
from coopshm import config as configuration
from coopshm.cluster.host import SegmentHost
from coopshm.cluster.segment import Candidate, SidecarSegment
from coopshm.errors import BusyError
from tests.loops import go
from tests.procs import WATCHDOG

from .hosting import LONG, Heard


def _candidate(settings: dict[str, Any]) -> Candidate:
    config = configuration.load(settings)
    return Candidate(config.namespace, config.caches["c"], "web1", 10.0)


def _mappings(settings: dict[str, Any]) -> int:
    name = f"coopshm:{settings['namespace']}:c"
    return sum(line.rstrip().endswith(name) for line in Path("/proc/self/maps").read_text().splitlines())


def test_who_is_refused_attaches_once_however_often_it_tries(cache: Any, settings: Any) -> None:
    cache().cached("k", lambda: 1)
    conf = settings()
    first = _candidate(conf).open()
    candidate = _candidate(conf)
    others = _mappings(conf)
    assert others > 0
    for _ in range(5):
        with pytest.raises(BusyError, match="has a sidecar already"):
            candidate.open()
        assert _mappings(conf) == others + 1
    first.close()
    second = candidate.open()
    assert isinstance(second, SidecarSegment)
    candidate.close()  # that one is not its any more
    assert coopshm.open("c")._attachment.segment.sidecar() is not None
    second.close()


def test_who_is_refused_follows_to_another_segment(cache: Any, settings: Any) -> None:
    cache().cached("k", lambda: 1)
    first = _candidate(settings()).open()
    candidate = _candidate(settings())
    with pytest.raises(BusyError):
        candidate.open()
    coopshm.open("c").destroy()
    with pytest.raises(FileNotFoundError):
        candidate.open()
    first.close()
    assert coopshm.open("c").cached("k", lambda: 2) == 2
    candidate.open().close()


def test_who_is_stopped_while_it_attaches_leaves_nothing(cache: Any, settings: Any) -> None:
    cache().cached("k", lambda: 1)
    config = configuration.load(settings())
    before = _mappings(settings())
    entered, go_on, opened = threading.Event(), threading.Event(), threading.Event()

    async def main() -> None:
        host = SegmentHost(config.namespace, config.caches["c"], "web1", LONG, Heard())
        original = host._candidate.open

        def slow() -> SidecarSegment:
            entered.set()
            assert go_on.wait(WATCHDOG)
            segment = original()
            opened.set()
            return segment

        host._candidate.open = slow  # type: ignore[method-assign]
        starting = asyncio.create_task(host.start())
        assert await asyncio.to_thread(entered.wait, WATCHDOG)
        starting.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert await asyncio.to_thread(opened.wait, WATCHDOG)
        assert coopshm.open("c")._attachment.segment.sidecar() is None
        await host.stop()
        assert _mappings(settings()) == before

    go(main)
