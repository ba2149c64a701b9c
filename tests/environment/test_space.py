"""/dev/shm runs out: no signal, but "full", said once; every call is answered; and space that comes back is used."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coopshm
from tests.conftest import clean
from tests.namespaces import mount_namespaces, pid_namespaces, with_small_shm
from tests.procs import ended_well, forked, until

pytestmark = [mount_namespaces, pid_namespaces]

PAGE, BALLAST, LOG = 4096, Path("/dev/shm/ballast"), Path("/dev/shm/log")
CACHE = {"memory_limit": "64 MiB", "max_items": 2000, "hot_objects": False}


def _attach(**cache: Any) -> coopshm.Cache:
    """All processes log to one file; it has its pages before space runs out."""
    LOG.write_bytes(b"\0" * 16 * PAGE)
    log = os.open(LOG, os.O_WRONLY)
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: os.write(log, record.getMessage().encode() + b"\n") and None  # type: ignore[method-assign]
    logging.getLogger("coopshm").addHandler(handler)
    if cache:  # else all defaults
        coopshm.configure({"caches": {"c": cache}})
    return coopshm.open("c")


def _warnings() -> list[str]:
    return LOG.read_bytes().replace(b"\0", b"").decode().splitlines()


def _fill(leave: int = 0) -> None:
    """Take all of /dev/shm but `leave` pages."""
    with BALLAST.open("ab", buffering=0) as file:
        found = os.statvfs("/dev/shm")
        os.posix_fallocate(file.fileno(), file.tell(), (found.f_bavail - leave) * PAGE)
    assert os.statvfs("/dev/shm").f_bavail == leave


def _mid_publish(kind: str, leave: int) -> None:
    c = _attach(**CACHE)
    value = os.urandom(1_000_000)
    c.cached("before", lambda: value[:1000])
    (hold, go), (here, there) = os.pipe(), os.pipe()

    def fn() -> Any:
        os.read(hold, 1)
        if kind == "failure":
            raise LookupError("x" * 100_000)
        return coopshm.NoCache(value) if kind == "not stored" else value

    def ask() -> None:
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
        if kind == "failure":
            with pytest.raises(LookupError, match="x" * 100_000):
                c.cached("k", fn)
        else:
            assert c.cached("k", fn) == value
        os.write(there, b".")

    crew = [forked(ask) for _ in range(5)]
    until(lambda: c.stats().waiters >= 4)
    _fill(leave)
    os.write(go, b"." * 5)  # the owner; and each waiter, if it has to compute for itself
    ended_well(*crew)
    assert os.read(here, 100) == b"....."
    assert c.cached("before", lambda: b"lost") == value[:1000]
    stats = c.stats()
    if kind == "value":
        assert stats.bypasses["no_space"] >= 1
        assert [line for line in _warnings() if "/dev/shm is full" in line] == _warnings()
        assert len(_warnings()) == 1
    else:
        assert _warnings() == []
    assert c.get("k") is None
    assert clean(c)
    # At once, in the same generation:
    BALLAST.unlink()
    assert c.cached("k2", lambda: value) == c.get("k2") == value
    _fill()
    assert c.cached("k3", lambda: value) == value
    assert len(_warnings()) == (kind == "value") or kind != "value"
    c.reset()
    assert c.cached("k4", lambda: value[:100_000]) == c.get("k4"), "on pages that the cache has already"
    assert c.cached("k5", lambda: value * 2) == value * 2
    assert len([line for line in _warnings() if "/dev/shm is full" in line]) == 2, "once in each generation"
    assert clean(c)


@pytest.mark.parametrize("leave", [0, 1, 70, 150], ids=lambda pages: f"{pages} pages left")
@pytest.mark.parametrize("kind", ["value", "not stored", "failure"])
def test_space_runs_out_between_claim_and_publish_while_others_wait(kind, leave) -> None:
    with_small_shm("16m", _mid_publish, kind, leave)


def _children_without_a_row() -> None:
    c = _attach(**CACHE)
    c.cached("before", lambda: [1])
    array = np.arange(100_000)
    c.cached("array", lambda: array)
    c.cached("bytes", lambda: b"x" * 100_000)
    c.cached("large", lambda: b"y" * 5_000_000)
    _fill()

    def child() -> None:
        assert c.cached("before", lambda: [2]) == [1]
        assert c.cached(("child's", os.getpid()), lambda: 3) == 3
        # Who has no row has no pins either: a copy will do, or, for what is very large, another computation.
        assert (c.cached("array", lambda: None) == array).all()
        assert c.view("bytes") == c.view("bytes", lambda: b"") == c.cached("bytes", lambda: b"") == b"x" * 100_000
        assert c.view("large") is c.get("large") is None
        assert c.view("large", lambda: b"z" * 5_000_000) == c.cached("large", lambda: b"z" * 5_000_000)
        assert c.view("new", lambda: b"4") == b"4"
        assert c.stats().bypasses["no_space"] > 0

    ended_well(*[forked(child) for _ in range(4)])

    def newcomer() -> None:
        coopshm.configure({"caches": {"c": CACHE}})
        with pytest.raises(coopshm.NoSpaceError, match="enlarge it"):
            coopshm.open("c")

    ended_well(forked(newcomer))
    BALLAST.unlink()
    ended_well(*[forked(lambda: _store(c)) for _ in range(4)])
    assert clean(c)


def _store(c: coopshm.Cache) -> None:
    assert c.cached(("stored", os.getpid()), lambda: 5) == c.get(("stored", os.getpid())) == 5


def test_processes_for_whose_row_there_is_no_space_are_answered() -> None:
    with_small_shm("16m", _children_without_a_row)


def _coming_and_going() -> None:
    c = _attach(**CACHE)
    stop = Path("/dev/shm/stop")
    stop.touch()

    def work() -> None:
        n = 0
        while stop.exists():
            n += 1
            key = (n % 400, n % 7)
            value = bytes([n % 7]) * (1 + key[0] * 250)
            assert c.cached(key, lambda value=value: value) == value
            view = c.view(key, lambda value=value: value)
            assert view == value

    crew = [forked(work) for _ in range(4)]
    for n in range(15):
        while c.stats().computations < 50 * n:  # they get on in the meantime
            pass
        try:
            _fill(leave=n * 5)
        except OSError:
            pass  # the workers were faster
        refused = c.stats().bypasses["no_space"]
        while c.stats().bypasses["no_space"] == refused and c.stats().entries < 390:
            c.cached(("filler", n), lambda: os.urandom(600_000))
            if n % 3 == 0:
                c.reset()
        BALLAST.unlink(missing_ok=True)
        c.reset()
    stop.unlink()
    ended_well(*crew)
    assert clean(c)


def test_space_that_comes_and_goes_under_busy_workers() -> None:
    with_small_shm("16m", _coming_and_going)


# ---- what Docker gives: 64 MiB


def _container(limit: str) -> None:
    c = _attach() if limit == "default" else _attach(memory_limit=limit)
    value, counts = os.urandom(8192), []
    for generation in range(3):
        for n in range(9000):
            assert c.cached(n, lambda n=n: value[n % 100 :]) == value[n % 100 :]
        stats = c.stats()
        counts.append(stats.entries)
        assert stats.bypasses["no_space"] > 0
        assert len(_warnings()) == generation + 1, "once in each generation"
        assert all(c.get(n) == value[n % 100 :] for n in range(counts[0]))
        assert clean(c)
        c.reset()
    assert counts[0] == counts[1] == counts[2], "space is not lost over a reset"
    print(counts[0] * 8192 >> 20)


def test_a_default_cache_in_a_default_container() -> None:
    assert int(with_small_shm("64m", _container, "default")) >= 55, "MiB of values"


def test_a_memory_limit_larger_than_dev_shm() -> None:
    assert int(with_small_shm("64m", _container, "256 MiB")) >= 45, "the index is larger, too"


def _too_large() -> None:
    coopshm.configure({"caches": {"c": {"memory_limit": "4 GiB"}}})
    with pytest.raises(coopshm.NoSpaceError, match=r"enlarge it.*or lower memory_limit or max_items"):
        coopshm.open("c")
    assert os.listdir("/dev/shm") == []
    coopshm.configure({"caches": {"c": {"memory_limit": "4 GiB", "max_items": 10_000}}})
    assert coopshm.cached("c", "k", lambda: 1) == coopshm.open("c").get("k") == 1


def test_a_memory_limit_whose_index_does_not_fit_is_an_error_that_names_the_remedy() -> None:
    with_small_shm("64m", _too_large)
