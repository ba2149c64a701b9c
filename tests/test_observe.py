"""observe.py, and what a segment tells those who only look on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import coopshm
from coopshm import keys
from coopshm.config import segment_name
from coopshm.objects import Place
from coopshm.observe import attach


def mappings(namespace: str) -> list[str]:
    """The mappings of this process that are of caches of the namespace."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in lines if segment_name(namespace, "c") in line]


def test_a_forgotten_segment_takes_no_memory(cache: Callable[..., coopshm.Cache], namespace: str) -> None:
    cache().cached("key", lambda: bytes(1000))
    mine = len(mappings(namespace))
    segment = attach(Place(namespace, "c"))
    assert len(mappings(namespace)) == mine + 1
    assert segment.describe().entries == 1
    segment.forget()
    assert len(mappings(namespace)) == mine
    assert cache().get("key") == bytes(1000)


def test_chunks_tell_what_is_used_and_pinned(cache: Callable[..., coopshm.Cache], namespace: str) -> None:
    mine = cache(memory_limit="1 MiB")
    mine.cached("key", lambda: bytes(10_000))
    view = mine.view("key")
    chunks = attach(Place(namespace, "c")).chunks()
    assert sum(chunk.bytes for chunk in chunks) == 1 << 20
    assert 10_000 < sum(chunk.allocated_bytes for chunk in chunks) < 10_200
    assert [chunk.view_pins for chunk in chunks[:4]] == [1, 1, 1, 0]
    assert all(chunk.entered and chunk.backed for chunk in chunks[:3])
    assert not any(chunk.entered or chunk.view_pins for chunk in chunks[3:])
    view.release()
    assert not any(chunk.view_pins for chunk in attach(Place(namespace, "c")).chunks())


def test_rows_slowest_and_the_last_reset_tell_who(cache: Callable[..., coopshm.Cache], namespace: str) -> None:
    mine = cache()
    mine.reset("spring")
    mine.cached("key", lambda: 1)
    segment = attach(Place(namespace, "c"))
    (row,) = segment.rows()
    assert (row.pid, bool(row.alive)) == (os.getpid(), True)
    (slow,) = segment.slowest()
    assert keys.decode_key(bytes(slow.key)[: slow.key_bytes]) == "key"
    assert slow.pid == os.getpid()
    reset = segment.last_reset()
    assert (reset.pid, reset.uid, reset.generation) == (os.getpid(), os.geteuid(), mine.stats().generation)
