"""P7: a computation that waits for itself, however indirectly, is told at once."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import coopshm
from tests.conftest import clean
from tests.procs import CONTEXT, WATCHDOG, Child, run, threads


def test_a_computation_that_asks_for_itself(cache) -> None:
    c = cache()

    def fn() -> Any:
        return c.cached("k", fn)

    with pytest.raises(coopshm.CycleError, match="'k'") as info:
        c.cached("k", fn)
    assert len(info.value.chain) == 1
    assert c.cached("k", lambda: "fine") == "fine"
    assert clean(c)


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


def _acyclic(index: int, settings: Any, rounds: int) -> int:
    coopshm.configure(settings)
    total = 0
    for n in range(rounds):

        def fn(n: int = n) -> int:
            left = coopshm.cached("c", ("leaf", n, 0), lambda: 1)
            right = coopshm.cached("c", ("leaf", n, 1), lambda: coopshm.cached("c", ("leaf", n, 0), lambda: 1) + 1)
            return int(left + right)

        total += coopshm.cached("c", ("top", n, index % 2), fn)
    return total


def test_computations_that_share_parts_raise_no_false_alarm(settings, cache) -> None:
    c = cache(memory_limit="16 MiB", max_items=20_000)
    assert run(8, _acyclic, settings(memory_limit="16 MiB", max_items=20_000), 2000) == [6000] * 8
    assert clean(c)


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
        while c.stats().waiters < 1:
            pass
        child.kill()
        return c.cached("b", lambda: "taken over") + " by a"

    assert c.cached("a", a) == "taken over by a"
    assert clean(c)
