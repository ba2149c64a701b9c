"""`lifetime` and the configured version: what a cache starts with."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import coopshm
from coopshm import _codes, _open, config
from tests.procs import CONTEXT, WATCHDOG, Child, run


def _store(_: Any, settings: Any, value: Any) -> Any:
    coopshm.configure(settings)
    return coopshm.cached("c", "k", lambda: value), coopshm.version("c")


def _session(settings: Any, value: Any) -> Any:
    """A deployment that comes and goes: one process that uses the cache."""
    return Child(_store, settings, value).result()


def _hold(conn: Any, settings: Any) -> None:
    coopshm.configure(settings)
    coopshm.open("c")
    conn.send("open")
    conn.recv()


def test_an_app_cache_starts_cold_when_no_live_process_has_it(settings, namespace) -> None:
    options = settings(lifetime="app")
    assert _session(options, "first") == ("first", 1)
    assert _session(options, "second") == ("second", 1)
    holder = Child(_hold, options)
    assert holder.receive() == "open"
    assert _session(options, "third") == ("second", 1) or _session(options, "fourth") == ("third", 1)
    assert _session(options, "fifth") != ("fifth", 1)
    holder.kill()
    assert _session(options, "last") == ("last", 1)


def test_a_host_cache_survives_restarts(settings, namespace) -> None:
    options = settings(lifetime="host")
    assert _session(options, "first") == ("first", 1)
    assert _session(options, "second") == ("first", 1)


def test_an_observer_counts_as_nobody(settings, namespace) -> None:
    options = settings(lifetime="app")
    assert _session(options, "first") == ("first", 1)
    observer = _open.open_segment(namespace, config.load(options).cache("c"), b"", role=_codes.OBSERVER, create=False)
    assert observer.describe().processes == 0
    assert observer.describe().rows_used == 1  # the first session's: it has none itself
    assert len(observer.entries()) == 1
    assert _session(options, "second") == ("second", 1)
    observer.leave()


def test_a_configured_version_is_where_a_cache_begins(settings, namespace) -> None:
    assert _session(settings(lifetime="host", version="2026-11"), "v") == ("v", "2026-11")


def test_a_host_cache_is_reset_when_the_configured_version_differs(settings, namespace) -> None:
    assert _session(settings(lifetime="host", version=1), "of 1") == ("of 1", 1)
    assert _session(settings(lifetime="host", version=1), "again") == ("of 1", 1)
    assert _session(settings(lifetime="host", version=2), "of 2") == ("of 2", 2)
    assert _session(settings(lifetime="host", version=2), "again") == ("of 2", 2)


def test_a_worker_that_restarts_with_the_old_configuration_does_not_undo_a_reset(settings, cache) -> None:
    c = cache(version=1)
    c.reset("2026-12")
    c.cached("k", lambda: "new")
    assert _session(settings(version=1), "restarted") == ("new", "2026-12")


def _first_attachers(index: int, settings: Any, together: Any) -> Any:
    coopshm.configure(settings)
    answer = coopshm.cached("c", "k", lambda: index), coopshm.stats("c").generation
    together.wait(WATCHDOG)  # nobody leaves before the last has come: who comes to an empty house starts cold
    return answer


def test_concurrent_first_processes_start_cold_together(settings, namespace) -> None:
    options = settings(lifetime="app")
    _session(options, "stale")
    answers = run(16, _first_attachers, options, CONTEXT.Barrier(16))
    assert len(set(answers)) == 1
    assert answers[0][0] != "stale"


def test_other_limits_take_effect_once_nobody_is_attached(settings, namespace, caplog) -> None:
    holder = Child(_hold, settings(memory_limit="1 MiB"))
    assert holder.receive() == "open"
    with caplog.at_level(logging.WARNING, "coopshm"):
        coopshm.configure(settings(memory_limit="2 MiB"))
        assert coopshm.stats("c").memory_limit == 1024 * 1024, "a rolling restart goes on with what is there"
    assert "take effect" in caplog.text
    holder.kill()
    coopshm.open("c").destroy()
    assert coopshm.cached("c", "k", lambda: 1) == 1
    assert coopshm.stats("c").memory_limit == 2 * 1024 * 1024


def test_other_limits_replace_an_unused_segment(settings, namespace) -> None:
    _session(settings(memory_limit="1 MiB", lifetime="host"), "old")
    coopshm.configure(settings(memory_limit="2 MiB", lifetime="host"))
    assert coopshm.cached("c", "k", lambda: "new") == "new"
    assert coopshm.stats("c").memory_limit == 2 * 1024 * 1024


def test_a_destroyed_cache_is_rejoined_by_all(settings, cache) -> None:
    c = cache()
    other = Child(_rejoin, settings())
    assert other.receive() == "first"
    c.destroy()
    assert c.cached("k", lambda: "second") == "second"
    other.send("go")
    assert other.result() == "second"
    assert c.stats().processes == 2 or c.stats().processes == 1


def _rejoin(conn: Any, settings: Any) -> Any:
    coopshm.configure(settings)
    conn.send(coopshm.cached("c", "k", lambda: "first"))
    conn.recv()
    return coopshm.cached("c", "k", lambda: "computed by the other")


def test_views_survive_their_destroyed_segment(cache) -> None:
    c = cache()
    view = c.view("k", lambda: b"still here" * 1000)
    c.destroy()
    for n in range(200):
        c.cached(n, lambda: b"x" * 10_000)
    assert bytes(view) == b"still here" * 1000  # type: ignore[arg-type]


def test_hits_notice_that_the_object_lost_its_name(settings, cache, caplog) -> None:
    from tests.conftest import SHM

    c = cache()
    for _ in range(10):
        c.cached("k", lambda: "old")
    (SHM / f"coopshm:{settings()['namespace']}:c").unlink()
    with caplog.at_level(logging.WARNING, "coopshm"):
        answers = [c.cached("k", lambda: "new") for _ in range(5000)]
    assert answers[0] == "old"
    assert answers[-1] == "new"
    assert "rejoined" in caplog.text


@pytest.mark.parametrize("seconds", [0])
def test_stats_of_a_fresh_cache_are_zero(cache, seconds) -> None:
    stats = cache().stats()
    assert (stats.hits, stats.misses, stats.entries, stats.bytes_used, stats.resets, stats.processes) == (
        0,
        0,
        0,
        0,
        0,
        1,
    )
    assert set(stats.bypasses.values()) == {seconds}
