"""What `stats` says: exact sums over processes, the dead included; times; and what looks closer (`_describe`)."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

import coopshm
from coopshm import _describe, keys
from tests.conftest import clean
from tests.procs import Child, run, threads, until


def _fail() -> Any:
    raise AssertionError("not a hit")


def _compute_and_hit(conn: Any, settings: Any, first: int, n: int, hits: int) -> None:
    """Compute `n` keys from `first` on and hit each `hits` times; then begin one more, which nobody lets end."""
    coopshm.configure(settings)
    c = coopshm.open("c")
    for key in range(first, first + n):
        c.cached(key, lambda key=key: [key])
        for _ in range(hits):
            c.cached(key, _fail)
    conn.send("done")
    c.cached(f"never {first}", lambda: conn.recv())


def _consistent(stats: coopshm.Stats) -> bool:
    for times in (stats.compute, stats.wait):
        numbers = [n for _, n in times.buckets]
        assert numbers == sorted(numbers)
        assert times.count == numbers[-1]
        assert [le for le, _ in times.buckets] == list(_describe.BUCKETS)
        assert times.max <= times.sum or times.count == 0
    return True


def test_sums_are_exact_over_processes_also_over_those_that_were_killed(settings, cache) -> None:
    c = cache()
    children = [Child(_compute_and_hit, settings(), first, 50, 20) for first in range(0, 400, 100)]
    for child in children:
        assert child.receive() == "done"
    until(lambda: c.stats().flights >= 4)

    def look() -> coopshm.Stats:
        stats = c.stats()
        assert _consistent(stats)
        assert (stats.computations, stats.misses) == (204, 204)
        assert (stats.hits, stats.hot_hits) == (4000, 0)
        assert (stats.stored, stats.entries) == (200, 200)
        assert stats.stored_bytes == stats.bytes_used
        assert stats.compute.count == 200, "four are under way, or will never end"
        assert 0 < stats.compute.max <= stats.compute.sum
        return stats

    assert look().processes == 5
    for child in children:
        child.kill()
    assert look().processes == 1


def _hold(conn: Any, settings: Any) -> Any:
    coopshm.configure(settings)
    return coopshm.cached("c", "k", lambda: (conn.send("computing"), conn.recv()))


def _ask(_: Any, settings: Any, n: int) -> Any:
    coopshm.configure(settings)
    return threads(n, lambda _: coopshm.cached("c", "k", _fail))


def test_each_wait_is_counted_with_its_time_when_it_ends(settings, cache) -> None:
    c = cache()
    owner = Child(_hold, settings())
    assert owner.receive() == "computing"
    children = [Child(_ask, settings(), 4) for _ in range(3)]
    until(lambda: c.stats().waiters >= 12)
    before = c.stats()
    assert (before.waits, before.wait.count) == (12, 0)
    owner.send("value")
    for child in children:
        child.result()
    owner.result()
    stats = c.stats()
    assert _consistent(stats)
    assert (stats.waits, stats.wait.count, stats.computations, stats.compute.count) == (12, 12, 1, 1)
    assert 0 < stats.wait.max <= stats.compute.max, "who waits came after who computes"
    assert clean(c)


@pytest.mark.parametrize("what", ["failure", "nocache", "too large", "unshareable", "given up"])
def test_a_computation_counts_however_it_ends(cache, what) -> None:
    class Interrupt(BaseException):
        pass

    def fn() -> Any:
        if what == "failure":
            raise ValueError
        if what == "given up":
            raise Interrupt
        return {"nocache": coopshm.NoCache(1), "too large": bytes(5 << 20), "unshareable": threading.Lock()}[what]

    c = cache()
    try:
        c.cached("k", fn)
    except (ValueError, Interrupt):
        pass
    stats = c.stats()
    assert (stats.computations, stats.compute.count, stats.stored) == (1, 1, 0)
    assert _consistent(stats)


def test_times_are_in_seconds_and_in_their_bucket(cache) -> None:
    c = cache()
    ended = threading.Event()
    c.cached("k", lambda: ended.wait(0.03))
    stats = c.stats()
    assert stats.compute.sum == stats.compute.max >= 0.03
    for le, n in stats.compute.buckets:
        assert n == (stats.compute.max <= le)


def test_a_document_of_them_is_json(cache) -> None:
    c = cache()
    c.cached("k", lambda: 1)
    stats = c.stats()
    document = json.loads(json.dumps(stats.as_dict(), allow_nan=False))
    assert document.keys() == set(stats._fields)
    assert document["compute"]["buckets"][0] == {"le": 0.001, "count": stats.compute.buckets[0][1]}
    assert document["compute"]["buckets"][-1] == {"le": "+Inf", "count": 1}
    assert document["bypasses"] == dict(stats.bypasses)


def test_moments_are_told(cache) -> None:
    c = cache()
    first = c.stats()
    assert first.created_at == first.reset_at > 1e9
    c.reset()
    assert c.stats().created_at == first.created_at < c.stats().reset_at


def test_pinned_bytes_are_those_of_the_chunks_that_views_hold(cache) -> None:
    c = cache(serializer="raw")
    chunk = 4 * 1024 * 1024 // 256
    c.cached("k", lambda: bytes(chunk * 2))
    assert c.stats().pinned_bytes == 0
    view = c.view("k")
    stats = c.stats()
    assert stats.pinned_bytes == stats.pinned_chunks * chunk >= 2 * chunk
    assert view is not None
    view.release()
    assert c.stats().pinned_bytes == 0


# ---- looking closer


def _segment(c: coopshm.Cache) -> Any:
    return c._attachment.segment


def test_rows_tell_who_is_there_and_what_each_counted(settings, cache) -> None:
    c = cache()
    living, dead = (Child(_compute_and_hit, settings(), first, 10, 1) for first in (0, 100))
    for child in (living, dead):
        assert child.receive() == "done"
    dead.kill()
    rows = {row.pid: row for row in _describe.rows(_segment(c))}
    assert rows[living.pid].alive
    assert rows[living.pid].role == "app"
    assert not rows[dead.pid].alive
    assert [rows[child.pid].counts["stored"] for child in (living, dead)] == [10, 10]
    total = c.stats()
    assert sum(row.counts["hits"] for row in rows.values()) == total.hits
    assert sum(sum(row.compute.buckets) for row in rows.values()) == total.compute.count


def test_chunks_add_up(cache) -> None:
    c = cache()
    for key in range(100):
        c.cached(key, lambda key=key: bytes(key * 300))
    chunks = _describe.chunks(_segment(c))
    stats = c.stats()
    assert len(chunks) == stats.chunks
    assert sum(chunk.bytes for chunk in chunks) == stats.memory_limit
    assert sum(chunk.allocated_bytes for chunk in chunks) == stats.bytes_used
    assert all(chunk.entered for chunk in chunks if chunk.allocated_bytes)


def _one_slow(index: int, settings: Any) -> None:
    coopshm.configure(settings)
    ended = threading.Event()
    for turn in range(10):
        coopshm.cached("c", (index, turn), lambda turn=turn: ended.wait(0.02 if turn == index else 0))


def test_the_slowest_computations_of_all_processes_are_remembered(settings, cache) -> None:
    c = cache()
    run(3, _one_slow, settings())
    all_of_them = _describe.slowest(_segment(c))
    assert len(all_of_them) == 20, "of eight a row"
    found = all_of_them[:3]
    assert {keys.decode_key(slow.key) for slow in found} == {(0, 0), (1, 1), (2, 2)}
    assert [slow.ns for slow in found] == sorted((slow.ns for slow in found), reverse=True)
    assert found[-1].ns >= 20_000_000
    assert {slow.generation for slow in found} == {c.stats().generation}


def _reset(_: Any, settings: Any) -> None:
    coopshm.configure(settings)
    coopshm.reset("c", version="of the child")


def test_who_reset_is_known(settings, cache) -> None:
    c = cache()
    assert _describe.last_reset(_segment(c)).former is None
    child = Child(_reset, settings())
    child.result()
    told = _describe.last_reset(_segment(c))
    assert (told.pid, told.version, told.former) == (child.pid, "of the child", 1)
    assert told.generation == c.stats().generation


def test_a_computation_within_another_names_it(cache) -> None:
    c = cache()
    seen: list[Any] = []
    c.cached("outer", lambda: c.cached("inner", lambda: seen.extend(_segment(c).flights())))
    outer, inner = sorted(seen, key=lambda flight: flight.started_ns)
    assert (outer.parent_id, outer.parent_serial) == (0, 0)
    assert (inner.parent_id, inner.parent_serial) == (_segment(c).id, outer.serial)
    assert inner.row == outer.row
    assert inner.takeovers == 0
