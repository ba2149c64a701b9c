"""What a monitoring system reads: names, labels, values, and what becomes of counters when processes die."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from prometheus_client.openmetrics import exposition

import coopshm
from coopshm import metrics
from coopshm.status.look import Watch
from tests.admin.command import Admin
from tests.procs import Child, ended_well, forked
from tests.status.scrape import Scrape, prometheus, promtool


def scrape(namespace: str) -> Scrape:
    return Scrape(metrics.openmetrics_text(Watch(namespace).looks()).decode())


def work(_conn: Any, settings: dict[str, Any], keys: int) -> None:
    coopshm.configure(settings)
    for key in range(keys):
        coopshm.cached("c", key, lambda: bytes(100))
        coopshm.cached("c", key, lambda: bytes(100))
    _conn.send("done")
    _conn.recv()


def test_every_number_of_the_statistics_is_there(cache: Callable[..., coopshm.Cache], namespace: str) -> None:
    mine = cache(version="2026-11", hot_objects=False)
    mine.cached("a", lambda: bytes(5000))
    mine.cached("a", lambda: bytes(5000))
    mine.cached("large", lambda: bytes(5 << 20))
    with pytest.raises(ZeroDivisionError):
        mine.cached("b", lambda: 1 // 0)
    mine.reset("2026-12")
    mine.cached("c", lambda: coopshm.NoCache(1))
    stats, seen = mine.stats(), scrape(namespace)
    labels = {"namespace": namespace, "cache": "c"}
    for name, value in {
        "coopshm_up": 1,
        "coopshm_misses_total": stats.misses,
        "coopshm_computations_total": 4,
        "coopshm_failures_total": 1,
        "coopshm_uncached_results_total": 1,
        "coopshm_resets_total": 1,
        "coopshm_stored_entries_total": 1,
        "coopshm_entries": stats.entries,
        "coopshm_limit_bytes": 4 << 20,
        "coopshm_reserved_bytes": stats.reserved_bytes,
        "coopshm_processes": 1,
        "coopshm_generation": stats.generation,
        "coopshm_flights": 0,
        "coopshm_computation_seconds_count": 4,
        "coopshm_wait_seconds_count": 0,
    }.items():
        assert seen.value(name, **labels) == value, name
    assert seen.value("coopshm_hits_total", kind="shared", **labels) == 1
    assert seen.value("coopshm_hits_total", kind="hot", **labels) == 0
    assert {dict(key)["cause"]: value for key, value in seen.all("coopshm_bypasses_total").items()} == stats.bypasses
    assert seen.value("coopshm_bypasses_total", cause="too_large", **labels) == 1
    assert seen.value("coopshm_cache_info", version='"2026-12"', **labels) == 1
    assert seen.value("coopshm_build_info", version=metrics.release("coopshm")) == 1


def test_no_number_of_the_statistics_is_forgotten(cache: Callable[..., coopshm.Cache], namespace: str) -> None:
    cache(version="1").cached("a", lambda: 1)
    (look,) = Watch(namespace).looks()
    assert look.numbers is not None
    stats = look.numbers.stats
    marks = {name: 10**6 + at for at, name in enumerate(stats._fields) if type(getattr(stats, name)) is int}
    marked = replace(look, numbers=replace(look.numbers, stats=stats._replace(**marks)))
    shown = set(Scrape(metrics.openmetrics_text([marked]).decode()).samples.values())
    # How many parts there are, and how many are pinned, is better said in bytes.
    assert {name for name, mark in marks.items() if mark not in shown} == {"chunks", "pinned_chunks"}


def test_names_and_units_follow_the_conventions(cache: Callable[..., coopshm.Cache], namespace: str) -> None:
    cache().cached("a", lambda: 1)
    for name, family in scrape(namespace).families.items():
        assert name.startswith("coopshm_")
        assert family.documentation.endswith(".")
        assert not name.endswith("_total")
        for unit in ("seconds", "bytes"):
            assert name.endswith(f"_{unit}") == (family.unit == unit)
        if family.type in ("counter", "histogram"):
            created = [sample for sample in family.samples if sample.name.endswith("_created")]
            assert created
        if name != "coopshm_build":
            assert all({"namespace", "cache"} <= sample.labels.keys() for sample in family.samples)


def test_histograms_are_cumulative(cache: Callable[..., coopshm.Cache], namespace: str) -> None:
    mine = cache()
    for key in range(20):
        mine.cached(key, lambda: 1)
    seen = scrape(namespace)
    buckets = sorted(
        (float(dict(key)["le"]), value) for key, value in seen.all("coopshm_computation_seconds_bucket").items()
    )
    assert buckets[-1] == (math.inf, 20)
    assert [value for _, value in buckets] == sorted(value for _, value in buckets)
    assert 0 < seen.value("coopshm_computation_seconds_sum") < 60
    assert 0 < seen.value("coopshm_computation_max_seconds") <= seen.value("coopshm_computation_seconds_sum")


def test_counters_outlive_the_processes_that_counted(settings: Callable[..., dict[str, Any]], namespace: str) -> None:
    config = settings(lifetime="host", hot_objects=False)
    before = 0.0
    for turn in range(1, 4):
        child = Child(work, config, 10 * turn)
        assert child.receive() == "done"
        child.kill()
        child.wait_dead()
        seen = scrape(namespace)
        hits = seen.value("coopshm_hits_total", kind="shared")
        assert hits > before
        assert seen.value("coopshm_computations_total") == 10 * turn
        assert seen.value("coopshm_processes") == 0
        before = hits


def test_a_new_segment_begins_anew_and_says_so(cache: Callable[..., coopshm.Cache], namespace: str) -> None:
    mine = cache()
    mine.cached("a", lambda: 1)
    mine.cached("b", lambda: 1)
    first = scrape(namespace)
    mine.reset()
    assert scrape(namespace).value("coopshm_misses_created") == first.value("coopshm_misses_created")
    mine.destroy()
    mine.cached("a", lambda: 1)
    second = scrape(namespace)
    assert (first.value("coopshm_misses_total"), second.value("coopshm_misses_total")) == (2, 1)
    assert second.value("coopshm_misses_created") > first.value("coopshm_misses_created")
    assert second.value("coopshm_wait_seconds_created") == second.value("coopshm_misses_created")


def test_a_version_may_be_any_text(cache: Callable[..., coopshm.Cache], namespace: str) -> None:
    version = 'a"b\\c\nd\t\u20ac\x7f'
    mine = cache()
    mine.reset(version)
    (labels,) = scrape(namespace).all("coopshm_cache_info")
    assert json.loads(dict(labels)["version"]) == version
    mine.reset("x" * 900)
    (labels,) = scrape(namespace).all("coopshm_cache_info")
    assert len(dict(labels)["version"]) <= 128


def test_a_cache_that_cannot_be_read_is_down(cache: Callable[..., coopshm.Cache], namespace: str) -> None:
    cache().cached("a", lambda: 1)
    Path(f"/dev/shm/coopshm:{namespace}:broken").write_bytes(b"\1" * 8192)
    seen = scrape(namespace)
    assert seen.value("coopshm_up", cache="broken") == 0
    assert seen.value("coopshm_up", cache="c") == 1
    assert not seen.all("coopshm_entries", cache="broken")


def test_promtool_finds_nothing_to_complain_about(cache: Callable[..., coopshm.Cache], namespace: str) -> None:
    cache().cached("a", lambda: 1)
    promtool("check", "metrics", text=metrics.prometheus_text(Watch(namespace).looks()).decode())


# ---- in an application


def test_an_application_adds_them_to_its_own(cache: Callable[..., coopshm.Cache], namespace: str) -> None:
    registry = prometheus_client.CollectorRegistry()
    prometheus_client.Counter("shop_orders", "Orders.", registry=registry).inc()
    mine = cache()
    registry.register(metrics.Collector())  # of the namespace that the process is configured with
    text = exposition.generate_latest(registry).decode()  # type: ignore[no-untyped-call]
    assert Scrape(text).value("shop_orders_total") == 1
    assert Scrape(text).value("coopshm_up", namespace=namespace) == 1
    mine.cached("a", lambda: 1)
    assert registry.get_sample_value("coopshm_entries", {"namespace": namespace, "cache": "c"}) == 1


def test_a_forked_worker_answers_for_all(settings: Callable[..., dict[str, Any]], namespace: str) -> None:
    """The collector is made before the fork; whichever worker is asked, it knows what all have counted."""
    config = settings(hot_objects=False)
    coopshm.configure(config)
    coopshm.open("c")
    collector = metrics.Collector()
    list(collector.collect())
    child = Child(work, config, 5)
    assert child.receive() == "done"

    def count() -> float:
        return next(
            sample.value
            for family in collector.collect()
            for sample in family.samples
            if sample.name == "coopshm_computations_total"
        )

    assert count() == 5

    def same() -> None:
        assert count() == 5

    ended_well(forked(same))


def test_without_the_package_it_says_what_to_install(namespace: str) -> None:
    code = "import sys; sys.modules['prometheus_client'] = None; import coopshm.metrics"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'coopshm[metrics]'" in done.stderr


def test_importing_coopshm_does_not_import_prometheus() -> None:
    code = "import coopshm, sys; sys.exit('prometheus_client' in sys.modules or 'coopshm.status' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_neither_page_nor_metrics_need_the_command_line() -> None:
    """So that other processes than coopshm-admin can serve them."""
    code = "import coopshm.metrics, coopshm.status.page, coopshm.status.server, sys; sys.exit('click' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- the command


@pytest.fixture
def admin(namespace: str, tmp_path: Path) -> Admin:
    return Admin(namespace, tmp_path)


def test_the_command_prints_both_formats(admin: Admin, cache: Callable[..., coopshm.Cache]) -> None:
    cache().cached("a", lambda: 1)
    text = admin.text("metrics")
    assert text.endswith("# EOF\n")
    assert Scrape(text).value("coopshm_entries", cache="c") == 1
    old = Scrape(admin.text("metrics c --format prometheus"), prometheus)
    assert old.value("coopshm_entries", cache="c") == 1


def test_the_command_chooses_caches(admin: Admin, settings: Callable[..., dict[str, Any]], namespace: str) -> None:
    config = settings()
    config["caches"]["d"] = {"memory_limit": "1 MiB"}
    coopshm.configure(config)
    coopshm.open("c")
    coopshm.open("d")
    assert {dict(key)["cache"] for key in Scrape(admin.text("metrics")).all("coopshm_up")} == {"c", "d"}
    assert {dict(key)["cache"] for key in Scrape(admin.text("metrics d")).all("coopshm_up")} == {"d"}
    everywhere = Scrape(admin("metrics --all").stdout)
    assert len(everywhere.all("coopshm_up", namespace=namespace)) == 2
    assert "no cache 'e'" in admin("metrics e").stderr
    assert admin("metrics e").returncode == 3
    assert admin("metrics --all c").returncode == 2


def test_the_command_without_any_cache(admin: Admin) -> None:
    assert set(Scrape(admin.text("metrics")).samples) == {
        ("coopshm_build_info", frozenset({("version", metrics.release("coopshm"))}))
    }
