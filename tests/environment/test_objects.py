"""The object goes away, or something else takes its name, while processes use it: they notice, say so, and go on."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import coopshm
from tests import raw
from tests.conftest import SHM, clean
from tests.procs import Child, threads, until

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="expected: only root can give a file to another user")

#: A process that only misses looks for its object this often; see LOOK_MASK in csrc/flight.c.
MISSES_BETWEEN_LOOKS = 16
#: One that only hits, this often: LOOK_EVERY in csrc/cache.c, CSM_HOT_LOOK in csrc/api.h.
HITS_BETWEEN_LOOKS = 4096 + 1


def _path(settings: Any) -> Path:
    return SHM / f"coopshm:{settings()['namespace']}:c"


# ---- the name is taken by something that cannot be used


def _symlink(path: Path) -> None:
    path.symlink_to("/nowhere")


def _directory(path: Path) -> None:
    path.mkdir()


def _fifo(path: Path) -> None:
    os.mkfifo(path, 0o600)


def _open_to_all(path: Path) -> None:
    path.touch()
    path.chmod(0o666)


def _of_another_user(path: Path) -> None:
    path.touch(0o600)
    os.chown(path, 12345, 12345)


def _remove(path: Path) -> None:
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink()


SQUATTERS: dict[str, tuple[Callable[[Path], None], type[Exception], str]] = {
    "a symbolic link": (_symlink, coopshm.SegmentError, "symbolic link"),
    "a directory": (_directory, coopshm.SegmentError, "no regular file"),
    "a fifo": (_fifo, coopshm.OwnershipError, "remove it"),
    "a wrong mode": (_open_to_all, coopshm.OwnershipError, "0666.*remove it"),
}
if os.geteuid() == 0:
    SQUATTERS["another user's"] = (_of_another_user, coopshm.OwnershipError, "uid 12345.*namespace")
squatters = pytest.mark.parametrize(("squat", "error", "says"), SQUATTERS.values(), ids=SQUATTERS)


@squatters
def test_a_squatter_is_refused_left_alone_and_named(settings, namespace, squat, error, says) -> None:
    path = _path(settings)
    squat(path)
    before = path.lstat()
    coopshm.configure(settings())
    for _ in range(2):
        with pytest.raises(error, match=says):
            coopshm.cached("c", "k", lambda: 1)
    assert path.lstat()[:-3] == before[:-3], "all but the times"
    _remove(path)
    assert coopshm.cached("c", "k", lambda: 1) == 1


@squatters
def test_processes_go_on_uncached_beside_a_squatter_and_rejoin_after_it(
    settings, cache, caplog, squat, error, says
) -> None:
    c = cache(hot_objects=False)
    path = _path(settings)
    c.cached("before", lambda: 1)
    path.unlink()
    squat(path)
    for n in range(3 * MISSES_BETWEEN_LOOKS):
        assert c.cached(("beside", n), lambda n=n: n) == n
    assert c.stats().bypasses["segment"] > 0
    with pytest.raises(error, match=says):
        c.reset()  # cannot do without
    assert all(answer == "alike" for answer in threads(8, lambda n: c.cached(("many", n), lambda: "alike")))
    told = [record.message for record in caplog.records]
    assert len(told) == 1, "said once, not for each call"
    assert "without the cache" in told[0]
    _remove(path)
    n = 0
    while not path.exists():  # not tried at each call
        n += 1
        assert c.cached(("after", n), lambda n=n: n) == n
    assert stat.S_ISREG(path.lstat().st_mode)
    assert c.cached("stored", lambda: 2) == c.get("stored") == 2
    assert [record.message for record in caplog.records][1:] == [
        f"cache 'c' (/dev/shm/{path.name}): the segment is gone (destroyed, or its object was removed); rejoined"
    ]
    assert clean(c)


# ---- the name is taken away


def _hits(conn: Any, settings: Any, hot: bool) -> None:
    """Asks for a key that it has, so many times as it is told; how many of its answers were from before."""
    coopshm.configure(settings)
    c = coopshm.open("c")
    c.cached("k", lambda: ["old"])
    while (calls := conn.recv()) is not None:
        answers = [c.cached("k", lambda: ["new"])[0] for _ in range(calls)]
        conn.send((answers.count("old"), answers[-1], os.stat(raw_path(settings)).st_ino, _inode(c)))
    conn.send(clean(c))


def raw_path(settings: Any) -> Path:
    return SHM / f"coopshm:{settings['namespace']}:c"


def _inode(cache: coopshm.Cache) -> int:
    from coopshm._segment import lib

    return os.fstat(lib.csm_descriptor(cache._attachment.segment.handle)).st_ino


@pytest.mark.parametrize("hot", [False, True], ids=["places", "hot objects"])
def test_processes_that_only_hit_find_the_object_gone_and_meet_in_one_new_one(settings, namespace, hot) -> None:
    options = settings(hot_objects="share" if hot else False)
    crew = [Child(_hits, options, hot) for _ in range(6)]
    for child in crew:
        child.send(1)
        assert child.receive()[:2] == (1, "old")
    path = _path(settings)
    first = path.stat().st_ino
    path.unlink()
    crew[0].send(HITS_BETWEEN_LOOKS + 1)
    old, last, named, mine = crew[0].receive()
    assert old <= HITS_BETWEEN_LOOKS
    assert (last, named) == ("new", mine)
    assert named != first
    for child in crew[1:]:  # the first one to notice told all others, who need only be asked once more
        child.send(1)
        assert child.receive() == (0, "new", named, named)
    for child in crew:
        child.send(None)
        assert child.receive() is True


def _computes(conn: Any, settings: Any) -> Any:
    coopshm.configure(settings)
    c = coopshm.open("c")
    told: list[str] = []

    def fn() -> str:
        if not told:  # else it is computed anew, in the new object
            conn.send("computing")
            told.append(str(conn.recv()))
        return told[0]

    return c.cached("k", fn)


def test_a_computation_under_way_when_the_object_goes_is_answered_to_all_who_wait(settings, cache) -> None:
    c = cache()
    owner = Child(_computes, settings())
    assert owner.receive() == "computing"
    waiters = [Child(_waits, settings()) for _ in range(4)]
    until(lambda: c.stats().waiters >= 4)
    _path(settings).unlink()
    owner.send("value")
    # Each from the old object, or, if somebody noticed meanwhile, from the new one: there is no newer version.
    answers = {child.result() for child in [owner, *waiters]}
    assert answers <= {"value", "a waiter's"}
    for n in range(MISSES_BETWEEN_LOOKS):
        assert c.cached(n, lambda n=n: n) == n
    assert _path(settings).exists()
    assert c.get("k") in (None, "value", "a waiter's")
    assert clean(c)


def test_waiters_of_an_object_that_somebody_finds_gone_do_not_stay_in_it(settings, cache) -> None:
    """Whoever notices marks it for all; the waiters compute in the new one, once, and the owner's value is dropped."""
    c = cache()
    owner = Child(_computes, settings())
    assert owner.receive() == "computing"
    waiters = [Child(_waits, settings()) for _ in range(4)]
    until(lambda: c.stats().waiters >= 4)
    _path(settings).unlink()
    for n in range(MISSES_BETWEEN_LOOKS):
        c.cached(n, lambda n=n: n)
    answers = {waiter.result() for waiter in waiters}
    assert answers == {"a waiter's"}
    owner.send("too old")
    assert owner.result() == "a waiter's"
    assert c.get("k") == "a waiter's"
    assert clean(c)


def _waits(_: Any, settings: Any) -> Any:
    coopshm.configure(settings)
    return coopshm.open("c").cached("k", lambda: "a waiter's")


def test_a_reset_after_the_object_went_reaches_those_who_have_not_noticed(settings, namespace) -> None:
    crew = [Child(_hits, settings(hot_objects=False), False) for _ in range(3)]
    for child in crew:
        child.send(1)
        assert child.receive()[1] == "old"
    _path(settings).unlink()
    resetter = Child(_resets, settings(hot_objects=False))
    assert resetter.receive() == "attached to a new one"
    # The new object knows nothing of the old one's processes. So this is the limit: they go on in the old one until one
    # of them looks. Then all come, and what they get is what the new one holds.
    crew[0].send(HITS_BETWEEN_LOOKS + 1)
    assert crew[0].receive()[1] == "new"
    for child in crew[1:]:
        child.send(1)
        assert child.receive()[:2] == (0, "new")
    resetter.send("reset")
    assert resetter.result() == 2
    for child in crew:
        child.send(1)
        assert child.receive()[:2] == (0, "new")
        child.send(None)
        assert child.receive() is True


def _resets(conn: Any, settings: Any) -> object:
    coopshm.configure(settings)
    c = coopshm.open("c")
    assert c.get("k") is None
    conn.send("attached to a new one")
    conn.recv()
    return c.reset()


@root_only
def test_a_process_without_privileges_that_cannot_rejoin_goes_on_uncached(settings, cache) -> None:
    """A worker that has dropped privileges cannot open what root creates anew; `user` is the remedy, and is named."""
    c = cache(hot_objects=False)
    worker = Child(_unprivileged, settings(hot_objects=False))
    assert worker.receive() == "stored"
    _path(settings).unlink()
    for n in range(MISSES_BETWEEN_LOOKS):  # root's process is the first to find out, and makes the new one
        c.cached(n, lambda n=n: n)
    assert c.get("worker's") is None
    worker.send("go on")
    computed, said = worker.result()
    assert computed == ["a"] * (2 * MISSES_BETWEEN_LOOKS)
    assert "set `user`" in said
    assert clean(c)


def _unprivileged(conn: Any, settings: Any) -> Any:
    import logging

    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("coopshm").addHandler(handler)
    coopshm.configure(settings)
    c = coopshm.open("c")
    os.setgid(65534)
    os.setuid(65534)
    c.cached("worker's", lambda: 1)
    assert raw.row(c) != raw.NO_ROW
    conn.send("stored")
    conn.recv()
    computed = [c.cached(("w", n), lambda: "a") for n in range(2 * MISSES_BETWEEN_LOOKS)]
    assert c.stats().bypasses["segment"] > 0
    return computed, " ".join(said)
