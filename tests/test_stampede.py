"""P1: within a generation, while nobody is killed, `fn` runs once per key, however many ask."""

from __future__ import annotations

from typing import Any

import coopshm
from tests.conftest import clean
from tests.procs import CONTEXT, WATCHDOG, Child, Tally, run, threads, until


def _ask(_: int, settings: Any, tally: Tally, key: Any, n_threads: int) -> list[Any]:
    coopshm.configure(settings)

    def fn() -> dict[str, Any]:
        tally.add(repr(key))
        return {"key": key, "payload": b"x" * 1000}

    return threads(n_threads, lambda _: coopshm.cached("c", key, fn))


def test_a_cold_key_asked_for_by_64_processes_of_4_threads_is_computed_once(settings, cache, tally) -> None:
    c = cache()
    answers = [answer for process in run(64, _ask, settings(), tally, "k", 4) for answer in process]
    assert answers == [{"key": "k", "payload": b"x" * 1000}] * 256
    assert len(tally) == 1
    run(8, _ask, settings(), tally, "k", 4)
    assert len(tally) == 1, "warm: never again"
    assert c.stats().computations == 1
    assert clean(c)


def _slow(conn: Any, settings: Any, tally: Tally) -> Any:
    coopshm.configure(settings)

    def fn() -> str:
        tally.add()
        conn.send("computing")
        assert conn.poll(WATCHDOG)
        return conn.recv()

    return coopshm.cached("c", "k", fn)


def test_a_thousand_callers_wait_for_one_computation(settings, cache, tally) -> None:
    c = cache()
    owner = Child(_slow, settings(), tally)
    assert owner.receive() == "computing"
    waiting = [Child(_crowd, settings(), tally, 125) for _ in range(8)]
    until(lambda: c.stats().waiters >= 1000)
    owner.send("value")
    assert owner.result() == "value"
    for child in waiting:
        assert child.result() == ["value"] * 125
    assert len(tally) == 1
    assert clean(c)


def _crowd(_: Any, settings: Any, tally: Tally, n: int) -> list[Any]:
    coopshm.configure(settings)

    def fn() -> str:
        tally.add()
        return "computed by a waiter"

    return threads(n, lambda _: coopshm.cached("c", "k", fn))


def _many_keys(index: int, settings: Any, tally: Tally) -> bool:
    coopshm.configure(settings)
    for n in range(1000):
        key = ("key", (n + index * 125) % 1000)

        def fn(key: Any = key) -> Any:
            tally.add(str(key[1]))
            return [key, "v" * key[1]]

        assert coopshm.cached("c", key, fn) == [key, "v" * key[1]]
    return True


def test_a_thousand_keys_from_8_processes_are_computed_once_each(settings, cache, tally) -> None:
    c = cache()
    run(8, _many_keys, settings(), tally)
    assert sorted(tally.items(), key=int) == [str(n) for n in range(1000)]
    assert c.stats().entries == 1000
    assert clean(c)


def _rounds(_: int, settings: Any, tally: Tally, barrier: Any, rounds: int) -> bool:
    coopshm.configure(settings)
    for n in range(rounds):

        def fn(n: int = n) -> int:
            tally.add(str(n))
            return n

        barrier.wait(WATCHDOG)
        assert coopshm.cached("c", n, fn) == n
    return True


def test_a_stampede_of_64_processes_1000_times_in_a_row(settings, cache, tally) -> None:
    c = cache()
    run(64, _rounds, settings(), tally, CONTEXT.Barrier(64), 1000)
    assert sorted(tally.items(), key=int) == [str(n) for n in range(1000)]
    assert clean(c)


def test_threads_of_one_process_compute_once(cache, tally) -> None:
    c = cache()

    def fn() -> str:
        tally.add()
        return "v"

    assert threads(64, lambda _: c.cached("k", fn)) == ["v"] * 64
    assert len(tally) == 1
    assert clean(c)
