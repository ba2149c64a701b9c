"""Fixtures: a namespace of its own for each test, caches in it, and nothing left behind."""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import coopshm
from tests.procs import Tally, reap_all

# Parts of tests that assert, and are no test modules by name. Here, since tests of several folders import them.
pytest.register_assert_rewrite("tests.servers.checks", "tests.servers.server", "tests.cluster.contract")

SHM = Path("/dev/shm")
_numbers = itertools.count()


@pytest.fixture
def namespace(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A namespace that no other test uses; its segments are gone afterwards, and so are the test's processes."""
    name = f"test-{os.getpid()}-{next(_numbers)}-{uuid.uuid4().hex[:8]}"
    monkeypatch.delenv("COOPSHM_CONFIG", raising=False)
    monkeypatch.delenv("COOPSHM_NAMESPACE", raising=False)
    yield name
    reap_all()
    for path in SHM.glob(f"coopshm:{name}*:*"):  # and those of namespaces that the test has named after it
        path.unlink()
    coopshm.configure({})


@pytest.fixture
def settings(namespace: str) -> Callable[..., dict[str, Any]]:
    """Makes a configuration of one cache `c` in the test's namespace."""

    def make(**cache: Any) -> dict[str, Any]:
        return {"namespace": namespace, "caches": {"c": {"memory_limit": "4 MiB", **cache}}}

    return make


@pytest.fixture
def cache(settings: Callable[..., dict[str, Any]]) -> Callable[..., coopshm.Cache]:
    """Opens cache `c` in this process, with the given settings."""

    def make(**options: Any) -> coopshm.Cache:
        coopshm.configure(settings(**options))
        return coopshm.open("c")

    return make


@pytest.fixture
def tally(tmp_path: Path) -> Tally:
    """Counts across processes."""
    return Tally(tmp_path / "tally")


def clean(cache: coopshm.Cache) -> bool:
    """No flight, no waiter and no pin is left, and every structure is sound."""
    stats = cache.stats()
    assert cache.verify() == []
    assert (stats.flights, stats.waiters, stats.pinned_chunks) == (0, 0, 0)
    return True
