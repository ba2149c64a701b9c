"""P7: a computation that waits for itself, however indirectly, is told at once."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import coopshm
from tests.conftest import clean
from tests.procs import CONTEXT, WATCHDOG, Child, run, threads, until
from tests.soak import nested


def test_a_computation_that_asks_for_itself(cache) -> None:
    c = cache()

    def fn() -> Any:
        return c.cached("k", fn)

    with pytest.raises(coopshm.CycleError, match="'k'") as info:
        c.cached("k", fn)
    assert len(info.value.chain) == 1
    assert c.cached("k", lambda: "fine") == "fine"
    assert clean(c)


class _Interrupt(BaseException):
    """What a signal handler raises."""


class _InterruptedFrames:
    """The thread's computations; a signal comes right behind one instruction that changes them."""

    def __init__(self, frames: Any, at: int) -> None:
        self.frames, self.at = frames, at

    def get(self) -> Any:
        return self.frames.get()

    def set(self, value: Any) -> None:
        self.frames.set(value)
        self.at -= 1
        if self.at == 0:
            raise _Interrupt


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("owns", [True, False])
def test_a_computation_that_a_signal_handler_ended_is_no_cycle_later(cache, monkeypatch, at, owns) -> None:
    c = cache()
    frames = coopshm.once.frames
    c.cached("outer", lambda: _interrupted(c, monkeypatch, frames, at, owns))
    assert frames.get() == ()
    assert c.cached("k", lambda: "fine") == "fine"
    assert clean(c)


def _interrupted(c: coopshm.Cache, monkeypatch: pytest.MonkeyPatch, frames: Any, at: int, owns: bool) -> str:
    outer = frames.get()
    with monkeypatch.context() as patch:
        patch.setattr(coopshm.cache, "frames", _InterruptedFrames(frames, at))
        if not owns:
            patch.setattr(type(c._attachment.segment), "claim", lambda *_: coopshm._segment.lib.CSM_NO_FLIGHT)
        with pytest.raises(_Interrupt):
            c.cached("k", lambda: "never returned")
    assert frames.get() == outer != ()
    return "outer"


def test_a_cycle_through_two_caches_in_one_call_stack(settings, namespace) -> None:
    coopshm.configure({"namespace": namespace, "caches": {"a": {}, "b": {}}})

    def a() -> Any:
        return coopshm.cached("b", 2, b)

    def b() -> Any:
        return coopshm.cached("a", 1, a)

    with pytest.raises(coopshm.CycleError):
        coopshm.cached("a", 1, a)


def test_nesting_without_a_cycle(cache) -> None:
    c = cache()

    def depth(n: int) -> int:
        return 0 if n == 0 else c.cached(("depth", n - 1), lambda: depth(n - 1)) + 1

    assert c.cached(("depth", 50), lambda: depth(50)) == 50
    assert c.stats().entries == 51
    assert clean(c)


def _link(index: int, settings: Any, n: int, barrier: Any) -> str:
    coopshm.configure(settings)

    def fn() -> Any:
        barrier.wait(WATCHDOG)  # everybody owns its key
        return coopshm.cached("c", ("link", (index + 1) % n), lambda: pytest.fail("each is owned by its process"))

    try:
        return coopshm.cached("c", ("link", index), fn)
    except coopshm.CycleError as exc:
        return str(exc)


@pytest.mark.parametrize("n", [2, 3, 8])
def test_a_cycle_over_processes_names_the_chain(settings, cache, n) -> None:
    c = cache()
    answers = run(n, _link, settings(), n, CONTEXT.Barrier(n))
    assert all("waits for itself" in answer for answer in answers), "one finds it; to the others it is fn's failure"
    for link in range(n):
        assert all(repr(("link", link)) in answer for answer in answers)
    assert clean(c)


def test_a_cycle_over_threads(cache) -> None:
    c = cache()
    barrier = threading.Barrier(3)

    def body(index: int) -> Any:
        def fn() -> Any:
            barrier.wait(WATCHDOG)
            return c.cached(("t", (index + 1) % 3), lambda: None)

        return c.cached(("t", index), fn)

    assert [type(answer) for answer in threads(3, body)] == [coopshm.CycleError] * 3
    assert clean(c)


def _link_across(index: int, settings: Any, n: int, caches: int, rounds: int, barrier: Any) -> list[str]:
    coopshm.configure(settings)
    answers = []
    for r in range(rounds):

        def fn(r: int = r) -> Any:
            barrier.wait(WATCHDOG)  # everybody owns its key
            follower = (index + 1) % n
            return coopshm.cached(f"c{follower % caches}", (r, follower), lambda: pytest.fail("it has an owner"))

        try:
            answers.append(coopshm.cached(f"c{index % caches}", (r, index), fn))
        except coopshm.CycleError as exc:
            answers.append(str(exc))
        barrier.wait(WATCHDOG)
    return answers


@pytest.mark.parametrize(("n", "caches", "rounds"), [(2, 2, 300), (3, 3, 30), (4, 4, 30), (8, 2, 30), (8, 8, 30)])
def test_a_cycle_over_processes_and_caches(namespace, n, caches, rounds) -> None:
    """Of four caches or more, each process uses but two: the last one has to look into those of the others."""
    settings = {"namespace": namespace, "caches": {f"c{i}": {"memory_limit": "1 MiB"} for i in range(caches)}}
    answers = run(n, _link_across, settings, n, caches, rounds, CONTEXT.Barrier(n))
    for r in range(rounds):
        told = [each[r] for each in answers]
        assert all("waits for itself" in answer for answer in told)
        assert all(repr((r, link)) in told[0] for link in range(n))
        assert all(f"{namespace}:c{i}" in told[0] for i in range(caches))
    coopshm.configure(settings)
    assert all(clean(coopshm.open(f"c{i}")) for i in range(caches))


def test_a_cycle_over_threads_and_nested_caches(namespace) -> None:
    """Each thread computes a of one cache, which computes b of another on its own stack, which asks for the next a."""
    coopshm.configure({"namespace": namespace, "caches": {"a": {}, "b": {}}})
    barrier = threading.Barrier(3)

    def body(index: int) -> Any:
        def b() -> Any:
            barrier.wait(WATCHDOG)
            return coopshm.cached("a", (index + 1) % 3, lambda: None)

        return coopshm.cached("a", index, lambda: coopshm.cached("b", index, b))

    assert [type(answer) for answer in threads(3, body)] == [coopshm.CycleError] * 3
    assert clean(coopshm.open("a"))
    assert clean(coopshm.open("b"))


def test_computations_that_share_parts_raise_no_false_alarm(namespace) -> None:
    assert nested.ask(namespace, processes=8, computations=20_000) >= 20_000


def _die_waiting(conn: Any, settings: Any) -> None:
    coopshm.configure(settings)

    def fn() -> Any:
        conn.send("owns b")
        return coopshm.cached("c", "a", lambda: None)

    coopshm.cached("c", "b", fn)


def test_an_edge_left_by_a_killed_process_is_no_cycle(settings, cache) -> None:
    c = cache()

    def a() -> Any:
        child = Child(_die_waiting, settings())
        assert child.receive() == "owns b"
        until(lambda: c.stats().waiters >= 1)
        child.kill()
        return c.cached("b", lambda: "taken over") + " by a"

    assert c.cached("a", a) == "taken over by a"
    assert clean(c)
