"""asyncio: the event loop is never blocked, and computations are shared with threads of other processes."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

import coopshm
from coopshm import _segment
from tests import procs
from tests.conftest import clean
from tests.loops import go, loop, until
from tests.procs import WATCHDOG, Child

__all__ = ["loop"]  # the fixture: every test runs on each kind of event loop


async def _fail() -> Any:
    pytest.fail("it is computed elsewhere")


# ---- with other processes


def _own(conn: Any, settings: Any, how: str, kind: str) -> Any:
    """Compute "k" when told to go on."""
    coopshm.configure(settings)

    def fn() -> str:
        conn.send("computing")
        conn.recv()
        return "the owner's"

    async def main() -> Any:
        return await coopshm.acached("c", "k", lambda: asyncio.to_thread(fn))

    return coopshm.cached("c", "k", fn) if how == "thread" else go(main, kind)


def _wait(_: Any, settings: Any, how: str, kind: str) -> Any:
    coopshm.configure(settings)
    return coopshm.cached("c", "k", _refuse) if how == "thread" else go(lambda: coopshm.acached("c", "k", _fail), kind)


def _refuse() -> Any:
    pytest.fail("it is computed elsewhere")


@pytest.mark.parametrize("waiter", ["thread", "task"])
@pytest.mark.parametrize("owner", ["thread", "task"])
def test_threads_and_tasks_of_different_processes_wait_for_each_other(settings, cache, loop, owner, waiter) -> None:
    c = cache()
    owns = Child(_own, settings(), owner, loop)
    assert owns.receive() == "computing"
    waits = [Child(_wait, settings(), waiter, loop) for _ in range(3)]
    procs.until(lambda: c.stats().waiters >= 3)
    owns.send("go on")
    assert [child.result() for child in (owns, *waits)] == ["the owner's"] * 4
    assert c.stats().computations == 1
    assert clean(c)


@pytest.mark.parametrize("heir", ["thread", "task"])
def test_a_killed_task_is_taken_over_by_a_task_or_thread_of_another_process(settings, cache, loop, heir) -> None:
    c = cache()
    owns = Child(_own, settings(), "task", loop)
    assert owns.receive() == "computing"
    takes_over = Child(_own, settings(), heir, loop)
    procs.until(lambda: c.stats().waiters >= 1)
    owns.kill()
    assert takes_over.receive() == "computing"
    takes_over.send("go on")
    assert takes_over.result() == "the owner's"
    assert c.stats().takeovers == 1
    assert clean(c)


# ---- the event loop


def _talk(conn: Any, settings: Any, port: int, keys: int, turns: int) -> None:
    """Own keys. Each computation ends when the other side's event loop has answered so many times."""
    coopshm.configure(settings)

    def fn(n: int) -> int:
        with socket.create_connection(("127.0.0.1", port)) as peer:
            owned.release()
            go_on.wait(WATCHDOG)
            for _ in range(turns):
                peer.sendall(b"?")
                assert peer.recv(1) == b"!"
        return n

    owned, go_on = threading.Semaphore(0), threading.Event()
    crew = [threading.Thread(target=coopshm.cached, args=("c", n, lambda n=n: fn(n))) for n in range(keys)]
    for thread in crew:
        thread.start()
    for _ in crew:
        owned.acquire(timeout=WATCHDOG)
    conn.send("owns")
    conn.recv()
    go_on.set()
    for thread in crew:
        thread.join()


@pytest.mark.parametrize(("tasks", "keys"), [(1000, 1), (1000, 50)])
def test_while_a_thousand_tasks_wait_their_event_loop_answers_those_whom_they_wait_for(
    settings, cache, tasks, keys
) -> None:
    """No computation can end unless the event loop turns hundreds of times while all the tasks wait for it."""
    c = cache()
    answers = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answers
        while await reader.read(1):
            answers += 1
            writer.write(b"!")
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        owner = Child(_talk, settings(), server.sockets[0].getsockname()[1], keys, 500 // keys)
        assert await asyncio.to_thread(owner.receive) == "owns"
        crew = [asyncio.create_task(c.acached(n % keys, _fail)) for n in range(tasks)]
        await until(lambda: c.stats().waiters == keys)
        owner.send("go on")
        assert await asyncio.gather(*crew) == [n % keys for n in range(tasks)]
        await asyncio.to_thread(owner.result)
        server.close()
        await server.wait_closed()

    go(main)
    assert answers == 500
    assert clean(c)


_CORE = ("claim", "publish", "wait", "release", "outcome", "find", "view", "search_again")


def test_nothing_that_may_take_a_lock_or_copy_runs_in_the_event_loops_thread(settings, cache, monkeypatch) -> None:
    """Whatever becomes of a call. (A hit does, since there is nothing to wait for: it copies the value.)"""
    c = cache(memory_limit="64 KiB")
    used: dict[str, set[int]] = {name: set() for name in _CORE}

    def note(name: str, original: Any) -> Any:
        def noted(self: Any, *args: Any) -> Any:
            used[name].add(threading.get_ident())
            return original(self, *args)

        return noted

    for name in _CORE:
        monkeypatch.setattr(_segment.Segment, name, note(name, getattr(_segment.Segment, name)))
    ends = ("value", "failure", "killed", "stopped")
    owners = [Child(_own_key, settings(memory_limit="64 KiB"), end) for end in ends]
    assert [owner.receive() for owner in owners] == ["computing"] * 4

    async def main() -> None:
        async def ask(key: Any, value: Any, **options: Any) -> Any:
            async def fn() -> Any:
                if isinstance(value, Exception):
                    raise value
                return value

            return await c.acached(key, fn, **options)

        mine = [ask(n, value) for n, value in enumerate([1, b"x" * 100_000, coopshm.NoCache([1]), ValueError(), _fail])]
        theirs = [ask(end, 2) for end in ("value", "failure", "killed")]
        theirs += [ask("stopped", 2, timeout=0.01, on_timeout=then) for then in ("raise", "compute")]
        cancelled = asyncio.create_task(ask("stopped", 2))
        asked = asyncio.gather(*mine, *theirs, return_exceptions=True)
        await until(lambda: c.stats().waiters == 4)
        cancelled.cancel()
        for owner in owners[:2]:
            owner.send("go on")
        owners[2].kill()
        found = await asked
        assert [type(value) for value in found[-5:]] == [str, LookupError, int, coopshm.WaitTimeout, int]
        with pytest.raises(asyncio.CancelledError):
            await cancelled

    go(main)
    for name in _CORE:
        assert threading.main_thread().ident not in used[name], name
    assert used["claim"]
    assert used["publish"]
    assert used["wait"]
    assert used["outcome"]
    assert used["release"]
    owners[3].kill()


def _own_key(conn: Any, settings: Any, end: str) -> Any:
    coopshm.configure(settings)

    def fn() -> str:
        conn.send("computing")
        conn.recv()
        if end == "failure":
            raise LookupError
        return end

    try:
        return coopshm.cached("c", end, fn)
    except LookupError:
        return "failed"


def test_the_event_loop_turns_while_a_hook_runs_that_calls_wait_for(cache) -> None:
    c = cache()
    hooked, go_on = threading.Event(), threading.Event()

    def hook(_: object) -> None:
        hooked.set()
        assert go_on.wait(WATCHDOG)

    c.on_reset(hook)
    resetter = threading.Thread(target=coopshm.Cache.reset, args=(c,))

    async def main() -> None:
        resetter.start()
        await until(hooked.is_set)

        async def fn() -> str:
            return "v"

        task = asyncio.create_task(c.acached("k", fn))
        for _ in range(100):
            await asyncio.sleep(0.001)  # it turns
        assert not task.done(), "a call waits for the hook"
        go_on.set()
        assert await task == "v"

    go(main)
    resetter.join()
    assert clean(c)


def test_several_event_loops_in_threads(cache) -> None:
    c = cache()
    calls: list[int] = []
    results: list[Any] = []

    async def fn() -> str:
        calls.append(1)
        await asyncio.sleep(0.02)
        return "v"

    async def main() -> None:
        results.extend(await asyncio.gather(*(c.acached("k", fn) for _ in range(20))))

    threads = [threading.Thread(target=go, args=(main,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WATCHDOG)
    assert results == ["v"] * 100
    assert len(calls) == 1
    assert clean(c)
