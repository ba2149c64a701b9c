"""asyncio: one computation, no blocked event loop, and a cancellation that harms nobody. Under uvloop, too."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

import coopshm
from coopshm import aio
from tests.conftest import clean
from tests.loops import go, loop, until
from tests.procs import Child, Tally, run

__all__ = ["loop"]  # the fixture: every test runs on each kind of event loop


def together(c: coopshm.Cache, fn: Callable[[int], Awaitable[Any]], tasks: int = 50) -> tuple[list[Any], int]:
    """What tasks get that ask for "k" at the same time, exceptions as well, and how often `fn` was called: with 1 at
    first, then 2, and so on."""
    calls = itertools.count(1)

    async def main() -> list[Any]:
        asked = (c.acached("k", lambda: fn(next(calls))) for _ in range(tasks))
        return await asyncio.gather(*asked, return_exceptions=True)

    return go(main), next(calls) - 1


async def _fail() -> Any:
    pytest.fail("stored values are not computed")


# ---- one computation


def test_values_are_shared_with_threads_and_come_back_the_same(cache) -> None:
    c = cache(memory_limit="64 MiB")
    values: list[Any] = [1, "text", b"bytes", None, {"a": [1]}, (1, None), np.arange(10_000), b"x" * 5_000_000]

    async def main() -> None:
        for n, value in enumerate(values):

            async def fn(value: Any = value) -> Any:
                return value

            first, second = await c.acached(n, fn), await coopshm.acached("c", n, _fail)
            third = c.cached(n, lambda: pytest.fail("stored"))
            assert np.array_equal(first, value)
            assert np.array_equal(second, value)
            assert np.array_equal(third, value)

    go(main)
    assert clean(c)


def _waiting_threads() -> int:
    return sum(thread.name.startswith("coopshm-wait") for thread in threading.enumerate())


def _hold(conn: Any, settings: Any, keys: int, loop: str = "asyncio") -> int:
    """Own keys until told to publish."""
    coopshm.configure(settings)

    async def main() -> int:
        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        begun = 0

        async def fn(n: int) -> int:
            nonlocal begun
            begun += 1
            if begun == keys:
                conn.send("owns")
                threading.Thread(target=lambda: (conn.recv(), loop.call_soon_threadsafe(told.set))).start()
            await told.wait()
            return n

        return sum(await asyncio.gather(*(coopshm.acached("c", n, lambda n=n: fn(n)) for n in range(keys))))

    return int(go(main, loop))


def test_a_thousand_tasks_that_wait_for_another_process_cost_one_thread(settings, cache) -> None:
    c = cache()
    owner = Child(_hold, settings(), 1)
    assert owner.receive() == "owns"

    async def main() -> None:
        tasks = [asyncio.create_task(c.acached(0, _fail)) for _ in range(1000)]
        await until(lambda: c.stats().waiters > 0 and _waiting_threads() > 0)
        await asyncio.sleep(0)
        assert c.stats().waiters == 1
        assert _waiting_threads() == 1
        owner.send("publish")
        assert await asyncio.gather(*tasks) == [0] * 1000

    go(main)
    assert owner.result() == 0
    assert c.stats().computations == 1
    assert clean(c)


def test_many_keys_of_another_process_cost_a_bounded_number_of_threads(settings, cache) -> None:
    c = cache()
    owner = Child(_hold, settings(), 300)
    assert owner.receive() == "owns"

    async def main() -> None:
        tasks = [asyncio.create_task(c.acached(n, _fail)) for n in range(300)]
        await until(lambda: c.stats().waiters == 300)
        assert _waiting_threads() <= aio._WAITERS
        owner.send("publish")
        assert await asyncio.gather(*tasks) == list(range(300))

    go(main)
    assert owner.result() == sum(range(300))
    assert clean(c)


def _stampede(index: int, settings: Any, tally: Tally, loop: str) -> list[int]:
    coopshm.configure(settings)

    async def main() -> list[int]:
        async def fn(n: int) -> int:
            tally.add(str(n))
            await asyncio.sleep(0.01)
            return n

        def blocking(n: int) -> int:
            tally.add(str(n))
            return n

        tasks = [coopshm.acached("c", n % 20, lambda n=n: fn(n % 20)) for n in range(400)]
        loop = asyncio.get_running_loop()
        in_threads = [
            loop.run_in_executor(None, coopshm.cached, "c", n, lambda n=n: blocking(n)) for n in range(20)
        ]  # fmt: skip
        await asyncio.gather(*in_threads)
        return await asyncio.gather(*tasks)

    return list(go(main, loop))


def test_processes_tasks_and_threads_compute_each_key_once(settings, cache, tally, loop) -> None:
    c = cache()
    assert run(4, _stampede, settings(), tally, loop) == [[n % 20 for n in range(400)]] * 4
    assert sorted(tally.items(), key=int) == [str(n) for n in range(20)]
    assert clean(c)


# ---- outcomes


def test_a_failure_reaches_all_who_wait_and_is_not_stored(cache) -> None:
    c = cache()

    async def fn(call: int) -> Any:
        await asyncio.sleep(0.01)
        raise LookupError("no such product", call)

    found, calls = together(c, fn)
    assert [type(exc) for exc in found] == [LookupError] * 50
    assert {exc.args for exc in found} == {("no such product", 1)}
    assert len({id(exc) for exc in found}) == 50, "each has an exception, with a traceback, of its own"
    assert calls == 1
    (again,), calls = together(c, fn, 1)
    assert (type(again), calls) == (LookupError, 1)
    assert clean(c)


@pytest.mark.parametrize("limit", ["4 MiB", "64 KiB"])
def test_what_is_not_stored_reaches_all_who_wait(cache, limit) -> None:
    c = cache(memory_limit=limit)

    async def fn(call: int) -> Any:
        await asyncio.sleep(0.01)
        return coopshm.NoCache([1, 2]) if limit == "4 MiB" else [b"x" * 100_000]

    found, calls = together(c, fn)
    assert all(value == found[0] for value in found)
    assert len({id(value) for value in found}) == 50, "what one changes does not show in another's"
    assert calls == 1
    assert clean(c)


def test_a_function_that_is_no_coroutine_function_is_told(cache) -> None:
    c = cache()
    with pytest.raises(TypeError, match="coroutine function"):
        go(lambda: c.acached("k", lambda: "value"))  # type: ignore[arg-type,return-value]
    with pytest.raises(coopshm.InvalidKeyError):
        go(lambda: c.acached(["k"], _fail))
    assert clean(c)


# ---- cancellation


def test_a_cancelled_waiter_harms_nobody(settings, cache) -> None:
    c = cache()
    owner = Child(_hold, settings(), 1)
    assert owner.receive() == "owns"

    async def main() -> None:
        tasks = [asyncio.create_task(c.acached(0, _fail)) for _ in range(10)]
        await until(lambda: c.stats().waiters == 1)
        for task in tasks[1:]:
            task.cancel()
        await asyncio.sleep(0)
        owner.send("publish")
        assert await tasks[0] == 0
        assert all(
            isinstance(found, asyncio.CancelledError)
            for found in await asyncio.gather(*tasks[1:], return_exceptions=True)
        )

    go(main)
    assert owner.result() == 0
    assert clean(c)


def test_when_the_first_waiter_is_cancelled_the_others_go_on(settings, cache) -> None:
    c = cache()
    owner = Child(_hold, settings(), 1)
    assert owner.receive() == "owns"

    async def main() -> None:
        tasks = [asyncio.create_task(c.acached(0, _fail)) for _ in range(10)]
        await until(lambda: c.stats().waiters == 1)
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        await until(lambda: c.stats().waiters == 1)
        owner.send("publish")
        assert await asyncio.gather(*tasks[1:]) == [0] * 9

    go(main)
    assert owner.result() == 0
    assert clean(c)


def _wait_in_thread(conn: Any, settings: Any) -> Any:
    coopshm.configure(settings)
    return coopshm.cached("c", "k", lambda: "computed by the thread")


@pytest.mark.parametrize("by", ["task", "process"])
def test_a_cancelled_owner_hands_over(settings, cache, by) -> None:
    c = cache()

    async def main() -> None:
        begun = asyncio.Event()

        async def fn() -> Any:
            begun.set()
            await asyncio.Event().wait()

        async def instead() -> str:
            return "computed by another task"

        owner = asyncio.create_task(c.acached("k", fn))
        await begun.wait()
        if by == "task":
            waiter = asyncio.create_task(c.acached("k", instead))
            await asyncio.sleep(0)
        else:
            child = Child(_wait_in_thread, settings())
            await until(lambda: c.stats().waiters == 1)
        owner.cancel()
        with pytest.raises(asyncio.CancelledError):
            await owner
        if by == "task":
            assert await waiter == "computed by another task"
        else:
            assert await asyncio.to_thread(child.result) == "computed by the thread"

    go(main)
    assert clean(c)


def test_timeouts_of_asyncio_work(cache) -> None:
    c = cache()

    async def main() -> None:
        async def slow() -> None:
            await asyncio.Event().wait()

        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(c.acached("k", slow), 0.01)
        assert c.stats().flights == 0

        async def fast() -> str:
            return "v"

        assert await c.acached("k", fast) == "v"

    go(main)
    assert clean(c)


# ---- resets and cycles


def test_a_reset_during_a_computation_has_it_done_again(cache) -> None:
    c = cache()

    async def fn(call: int) -> int:
        if call == 1:
            await asyncio.to_thread(c.reset)
        return call

    assert together(c, fn) == ([2] * 50, 2)
    assert clean(c)


def test_a_reset_between_the_loops_end_and_the_tasks_turn_is_noticed(cache, monkeypatch) -> None:
    c = cache()
    original, resets = aio._drive, []

    async def reset_behind(loop: Any, fn: Any) -> Any:
        value = await original(loop, fn)
        if not resets:
            resets.append(c.reset())
        return value

    monkeypatch.setattr(aio, "_drive", reset_behind)

    async def fn() -> int:
        return len(resets)

    assert go(lambda: c.acached("k", fn)) == 1


def test_a_cycle_of_tasks_is_told(cache) -> None:
    c = cache()

    async def main() -> None:
        owned = [asyncio.Event(), asyncio.Event()]

        async def fn(n: int) -> Any:
            owned[n].set()
            await owned[1 - n].wait()
            return await c.acached(1 - n, _fail)

        found = await asyncio.gather(*(c.acached(n, lambda n=n: fn(n)) for n in range(2)), return_exceptions=True)
        assert [type(exc) for exc in found] == [coopshm.CycleError] * 2

        async def itself() -> Any:
            return await c.acached("self", itself)

        with pytest.raises(coopshm.CycleError):
            await c.acached("self", itself)

    go(main)
    assert clean(c)
