"""Caches come and go while somebody looks at them: coopshm/status/look.py and history.py."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import coopshm
from coopshm import keys
from coopshm.config import segment_name
from coopshm.objects import SHM, Place
from coopshm.status.history import SAMPLES, History, Sampler
from coopshm.status.look import Look, Numbers, Watch
from tests.procs import Child, until


def mappings(namespace: str) -> int:
    """The segments of the namespace that are in this process's memory."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sum(f"coopshm:{namespace}:" in line for line in lines)


@pytest.fixture
def watch(namespace: str) -> Iterator[Watch]:
    watch = Watch(namespace)
    yield watch
    watch.close()


def numbers(look: Look) -> Numbers:
    assert look.numbers is not None, look.error
    return look.numbers


def hold(conn: Any, settings: dict[str, Any], key: object) -> None:
    """Compute until told to end."""
    coopshm.configure(settings)
    coopshm.cached("c", key, lambda: conn.send("computing") or conn.recv())


def wait_for(_conn: Any, settings: dict[str, Any], key: object) -> Any:
    coopshm.configure(settings)
    return coopshm.cached("c", key, lambda: "mine")


def test_caches_that_come_and_go(watch: Watch, settings: Callable[..., dict[str, Any]], namespace: str) -> None:
    config = settings()
    config["caches"]["d"] = {"memory_limit": "1 MiB"}
    coopshm.configure(config)
    assert watch.looks() == []
    coopshm.cached("d", 1, lambda: 1)
    coopshm.cached("c", 1, lambda: 1)
    assert [look.place for look in watch.looks()] == [Place(namespace, "c"), Place(namespace, "d")]
    coopshm.open("d").destroy()
    (look,) = watch.looks()
    assert numbers(look).stats.entries == 1


def test_a_destroyed_segment_gives_its_memory_back(
    cache: Callable[..., coopshm.Cache], watch: Watch, namespace: str
) -> None:
    mine = cache()
    mine.cached("key", lambda: bytes(1000))
    (before,) = watch.looks()
    mapped = mappings(namespace)
    for _ in range(3):
        mine.destroy()
        assert watch.looks() == []
        mine.cached("key", lambda: bytes(1000))
        (after,) = watch.looks()
        assert numbers(after).stats.created_at > numbers(before).stats.created_at
        assert numbers(after).stats.computations == 1
    # What the application itself maps of former segments is its own affair; the watch has one.
    watch.close()
    assert mappings(namespace) == mapped - 1 + 3


def test_what_is_no_segment_is_told(watch: Watch, cache: Callable[..., coopshm.Cache], namespace: str) -> None:
    cache().cached("key", lambda: 1)
    Path(SHM + segment_name(namespace, "broken")).write_bytes(b"\1" * 8192)
    broken, good = watch.looks()
    assert broken.numbers is None
    assert "another version of coopshm" in str(broken.error) or "contradicts itself" in str(broken.error)
    assert numbers(good).stats.entries == 1


def test_a_cache_asked_for_by_name_is_missed(namespace: str) -> None:
    (look,) = Watch(namespace, ["nowhere"]).looks()
    assert look.numbers is None
    assert "has no cache 'nowhere'" in str(look.error)


def test_computations_with_their_waiters(watch: Watch, settings: Callable[..., dict[str, Any]], namespace: str) -> None:
    key = ("product", "<b>", 1)
    owner = Child(hold, settings(), key)
    assert owner.receive() == "computing"
    waiter = Child(wait_for, settings(), key)

    def look() -> Look:
        return watch.looks(lambda place: True)[0]

    until(lambda: numbers(look()).stats.waiters)
    seen = look()
    assert seen.details is not None
    (flight,) = seen.details.flights
    assert (flight.key, flight.pid, flight.waiters, flight.attended) == (
        keys.preview(keys.encode_key(key)),
        owner.pid,
        1,
        True,
    )
    assert 0 < flight.age_seconds <= numbers(seen).oldest_flight_seconds + 60
    assert {row.pid for row in seen.details.rows} == {owner.pid, waiter.pid}
    owner.kill()
    assert waiter.result() == "mine"
    after = look()
    assert after.details is not None
    assert (numbers(after).stats.takeovers, after.details.flights) == (1, [])
    assert numbers(after).stats.compute.count == 1
    assert numbers(after).stats.wait.count == 1
    assert [slow.key for slow in after.details.slowest] == [flight.key]


def test_a_look_changes_nothing(watch: Watch, cache: Callable[..., coopshm.Cache]) -> None:
    mine = cache()
    mine.cached("key", lambda: 1)
    before = mine.stats()
    for _ in range(3):
        watch.looks(lambda place: True)
    assert mine.stats() == before


# ---- history


def test_rates_and_resets(watch: Watch, cache: Callable[..., coopshm.Cache], namespace: str) -> None:
    mine, history, place = cache(version="spring"), History(), Place(namespace, "c")
    mine.cached(0, lambda: 0)
    history.add(watch.looks(), clock=100.0)
    assert history.series(place)["at"] == []
    assert history.recent(place, 10) is None
    for key in range(1, 7):
        mine.cached(key, lambda: 0)
    history.add(watch.looks(), clock=102.0)
    mine.reset("summer")
    history.add(watch.looks(), clock=103.0)
    series = history.series(place)
    assert series["computations"] == [3.0, 0.0]
    assert series["entries"] == [7.0, 0.0]
    assert {len(values) for values in series.values()} == {2}
    (reset,) = history.resets(place)
    assert (reset.former, reset.version, reset.resets, reset.pid) == ("spring", "summer", 1, os.getpid())
    mine.reset("autumn")
    mine.reset("winter")
    history.add(watch.looks(), clock=104.0)
    last = history.resets(place)[0]
    assert (last.former, last.version, last.resets) == ("autumn", "winter", 2)
    assert abs(last.at - time.time()) < 600


def test_a_new_segment_has_a_history_of_its_own(
    watch: Watch, cache: Callable[..., coopshm.Cache], namespace: str
) -> None:
    mine, history, place = cache(), History(), Place(namespace, "c")
    for clock in (1.0, 2.0):
        mine.cached(clock, lambda: 0)
        history.add(watch.looks(), clock)
    mine.destroy()
    mine.cached(1, lambda: 0)
    history.add(watch.looks(), 3.0)
    assert history.series(place)["at"] == []
    history.add(watch.looks(), 4.0)
    assert history.series(place)["computations"] == [0.0]
    mine.destroy()
    history.add(watch.looks(), 5.0)
    assert history.series(place)["at"] == []


def test_history_is_bounded(watch: Watch, cache: Callable[..., coopshm.Cache], namespace: str) -> None:
    cache().cached(1, lambda: 0)
    looks, history = watch.looks(), History()
    for clock in range(2 * SAMPLES):
        history.add(looks, float(clock))
    assert len(history.series(Place(namespace, "c"))["at"]) == SAMPLES


def test_the_sampler_looks_until_it_is_left(watch: Watch, cache: Callable[..., coopshm.Cache], namespace: str) -> None:
    cache().cached(1, lambda: 0)
    history = History()
    with Sampler(watch, history, 0.001):
        until(lambda: len(history.series(Place(namespace, "c"))["at"]) > 3)
