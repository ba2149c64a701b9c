"""gevent: under monkey-patching the hub is never blocked, and greenlets of one process share a computation.

The patched programs run in processes of their own; each prints what the test compares.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import coopshm
from tests.conftest import clean
from tests.procs import WATCHDOG, Child, Tally, threads, until

_BEGIN = """
from gevent import monkey
monkey.patch_all()
import gevent, json, sys
import coopshm
settings = json.loads(sys.argv[1])
coopshm.configure(settings)
c = coopshm.open("c")

def fail():
    raise AssertionError("stored values are not computed")

turns = 0
def tick():
    global turns
    while True:
        gevent.sleep(0.001)
        turns += 1
ticker = gevent.spawn(tick)

def until(condition):
    while not condition():
        gevent.sleep(0.001)
"""


def start(program: str, settings: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _BEGIN + textwrap.dedent(program), json.dumps(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> Any:
    try:
        out, _ = process.communicate(timeout=WATCHDOG)
    finally:
        process.kill()
    assert process.returncode == 0
    return json.loads(out.strip().splitlines()[-1])


def _own(conn: Any, settings: Any, keys: int) -> None:
    import threading

    import coopshm

    coopshm.configure(settings)
    told = threading.Event()

    def own(n: int, owned: threading.Semaphore) -> None:
        def fn() -> int:
            owned.release()
            told.wait(WATCHDOG)
            return n

        coopshm.cached("c", n, fn)

    owned = threading.Semaphore(0)
    crew = [threading.Thread(target=own, args=(n, owned)) for n in range(keys)]
    for thread in crew:
        thread.start()
    for _ in crew:
        owned.acquire(timeout=WATCHDOG)
    conn.send("owns")
    conn.recv()
    told.set()
    for thread in crew:
        thread.join()


@pytest.mark.parametrize(("greenlets", "keys"), [(500, 1), (200, 50)])
def test_the_hub_turns_while_greenlets_wait_for_another_process(settings, cache, greenlets, keys) -> None:
    c = cache()
    owner = Child(_own, settings(), keys)
    assert owner.receive() == "owns"
    process = start(
        f"""
        crew = [gevent.spawn(c.cached, n % {keys}, fail) for n in range({greenlets})]
        until(lambda: c.stats().waiters == {keys})
        before = turns
        until(lambda: turns > before + 20)
        print("waits", flush=True)
        gevent.joinall(crew)
        print(json.dumps([greenlet.get() for greenlet in crew]))
        """,
        settings(),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waits\n"
    owner.send("publish")
    assert finish(process) == [n % keys for n in range(greenlets)]
    owner.result()
    assert clean(c)


def test_greenlets_share_a_computation_and_what_it_ends_with(settings, cache) -> None:
    c = cache()
    found = finish(
        start(
            """
            calls, asked = [], []
            def slow(kind):
                calls.append(kind)
                until(lambda: len(asked) == 100)  # the hub may look at its timers before it has started all of them
                if kind == "failure":
                    raise LookupError("no such product")
                return coopshm.NoCache([1]) if kind == "nocache" else {"value": 1}

            def ask(kind):
                asked.append(kind)  # and goes on until it waits
                try:
                    return c.cached(kind, lambda: slow(kind))
                except LookupError as exc:
                    return str(exc)

            for kind in ("value", "nocache", "failure"):
                asked.clear()
                crew = [gevent.spawn(ask, kind) for _ in range(100)]
                gevent.joinall(crew)
                assert len({id(greenlet.value) for greenlet in crew}) == 100, "a copy each"
                assert all(greenlet.value == crew[0].value for greenlet in crew)
            print(json.dumps(calls))
            """,
            settings(),
        )
    )
    assert found == ["value", "nocache", "failure"]
    assert clean(c)


def test_a_killed_greenlet_hands_over(settings, cache) -> None:
    c = cache()
    found = finish(
        start(
            """
            def never():
                gevent.sleep(1000)

            owner = gevent.spawn(c.cached, "k", never)
            until(lambda: c.stats().flights == 1)
            waiter = gevent.spawn(c.cached, "k", lambda: "computed by another")
            gevent.sleep(0)
            owner.kill()
            print(json.dumps(waiter.get()))
            """,
            settings(),
        )
    )
    assert found == "computed by another"
    assert clean(c)


def test_cycles_and_nesting_among_greenlets(settings, cache) -> None:
    c = cache()
    found = finish(
        start(
            """
            from gevent.event import Event
            owned = [Event(), Event()]

            def fn(n):
                owned[n].set()
                owned[1 - n].wait()
                return c.cached(1 - n, fail)

            def ask(n):
                try:
                    return c.cached(n, lambda: fn(n))
                except coopshm.CycleError:
                    return "cycle"

            crew = [gevent.spawn(ask, n) for n in range(2)]
            gevent.joinall(crew)
            nested = c.cached("outer", lambda: c.cached("inner", lambda: "in") + "side")
            print(json.dumps([greenlet.value for greenlet in crew] + [nested]))
            """,
            settings(),
        )
    )
    assert found == ["cycle", "cycle", "inside"]
    assert clean(c)


@pytest.mark.parametrize("first", ["raise", "compute", "endless"])
def test_each_greenlet_has_its_own_time(settings, cache, first) -> None:
    """Whichever of them takes the steps for all: who leaves disturbs nobody."""
    c = cache()
    owner = Child(_own, settings(), 1)
    assert owner.receive() == "owns"
    process = start(
        f"""
        def ask(fn, **options):
            try:
                return c.cached(0, fn, **options)
            except coopshm.WaitTimeout:
                return "timeout"

        options = {{"raise": dict(timeout=0.05), "compute": dict(timeout=0.05, on_timeout="compute"), "endless": {{}}}}
        order = [{first!r}] + [kind for kind in options if kind != {first!r}]
        crews = {{
            kind: [gevent.spawn(ask, lambda n=n: f"mine {{n}}", **options[kind]) for n in range(50)] for kind in order
        }}
        for kind in ("raise", "compute"):
            gevent.joinall(crews[kind])
        until(lambda: c.stats().waiters == 1)
        assert not any(greenlet.ready() for greenlet in crews["endless"])
        print("waits", flush=True)
        gevent.joinall(crews["endless"])
        print(json.dumps({{kind: [greenlet.value for greenlet in crew] for kind, crew in crews.items()}}))
        """,
        settings(),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waits\n"
    owner.send("publish")
    assert finish(process) == {
        "raise": ["timeout"] * 50,
        "compute": [f"mine {n}" for n in range(50)],
        "endless": [0] * 50,
    }
    owner.result()
    stats = c.stats()
    assert (stats.timeouts, stats.bypasses["timeout"], stats.computations) == (100, 50, 1)
    assert clean(c)


def test_a_greenlet_that_is_killed_as_it_comes_to_lead_passes_on(settings, cache) -> None:
    c = cache()
    found = finish(
        start(
            """
            from gevent.event import Event
            never = Event()
            owner = gevent.spawn(c.cached, "k", never.wait)
            until(lambda: c.stats().flights == 1)
            crew = [gevent.spawn(c.cached, "k", lambda n=n: n) for n in range(3)]
            gevent.sleep(0)
            owner.kill(block=False)
            crew[0].kill(block=False)
            crew[1].kill(block=False)
            gevent.joinall(crew)
            print(json.dumps([crew[2].value, c.stats().computations]))
            """,
            settings(),
        )
    )
    assert found == [2, 2]
    assert clean(c)


@pytest.mark.parametrize("again", ["waiter.kill(block=False)", "waiter.kill(gevent.Timeout(), block=False)"])
def test_a_greenlet_that_is_killed_twice_takes_no_call_out_of_its_threads_hands(settings, cache, again) -> None:
    c = cache()
    owner = Child(_own, settings(), 1)
    assert owner.receive() == "owns"
    process = start(
        f"""
        from coopshm._segment import Segment
        allocate = monkey.get_original("_thread", "allocate_lock")
        entered, go_on = allocate(), allocate()
        entered.acquire()
        go_on.acquire()
        log = []

        def in_thread(self, call, seconds, wait=Segment.wait):
            log.append("the thread waits")
            entered.release()
            with go_on:
                return wait(self, call, seconds), log.append("the thread is through")

        def release(self, call, release=Segment.release):
            log.append("released")
            release(self, call)

        Segment.wait, Segment.release = in_thread, release
        waiter = gevent.spawn(c.cached, 0, fail)
        until(lambda: entered.acquire(False))
        waiter.kill(block=False)
        gevent.sleep(0)
        gevent.sleep(0)
        {again}
        gevent.sleep(0)
        gevent.sleep(0)
        assert not waiter.ready()
        go_on.release()
        waiter.join()
        print(json.dumps(log + [type(waiter.value or waiter.exception).__name__]))
        """,
        settings(),
    )
    *log, last = finish(process)
    assert log == ["the thread waits", "the thread is through", "released"]
    assert last in ("GreenletExit", "Timeout")
    owner.send("publish")
    owner.result()
    assert clean(c)


def test_a_greenlet_that_gives_up_by_gevents_timeout_disturbs_nobody(settings, cache) -> None:
    c = cache()
    found = finish(
        start(
            """
            from gevent.event import Event
            told = Event()

            def ask(fn):
                with gevent.Timeout(0.01, False):
                    return c.cached("k", fn)
                return "its time was up"

            crew = [gevent.spawn(ask, told.wait), gevent.spawn(c.cached, "k", lambda: told.wait() and "the heir's")]
            crew += [gevent.spawn(ask, fail) for _ in range(3)]
            gevent.joinall([crew[0], *crew[2:]])
            assert (c.stats().flights, c.stats().waiters) == (1, 0)
            told.set()
            print(json.dumps([greenlet.get() for greenlet in crew]))
            """,
            settings(),
        )
    )
    assert found == ["its time was up", "the heir's", *["its time was up"] * 3]
    assert c.stats().computations == 2
    assert clean(c)


def test_a_greenlet_that_outlives_the_computation_that_started_it_is_no_part_of_it(settings, cache) -> None:
    c = cache()
    found = finish(
        start(
            """
            import contextvars
            from gevent.event import Event
            told = Event()

            def later():
                told.wait()
                c.reset()
                return c.cached("k", lambda: "computed later")

            def fn():
                fn.greenlets = [gevent.spawn(later), gevent.spawn(contextvars.copy_context().run, later)]
                return "computed"

            values = [c.cached("k", fn)]
            told.set()
            print(json.dumps(values + [greenlet.get() for greenlet in fn.greenlets]))
            """,
            settings(),
        )
    )
    assert found == ["computed", "computed later", "computed later"]
    assert clean(c)


def test_what_was_opened_before_gevent_patched_keeps_greenlets_apart(settings, cache) -> None:
    """As in gunicorn's gevent worker, when its master has the cache or its post_fork hook opens it."""
    c = cache()
    program = """
        events = []
        def hook(version):
            events.append("hook begins")
            gevent.sleep(0.02)
            events.append("hook has run")
        c.on_reset(hook)
        c.cached("before", lambda: 1)
        c.reset()
        events.clear()
        monkey.patch_all()
        coopshm.reset("c")

        def ask(key):
            c.cached(key, lambda: events.append("computes"))

        events.clear()
        other.reset()
        gevent.joinall([gevent.spawn(ask, key) for key in range(3)])
        print(json.dumps(events))
        """
    opened_first = _BEGIN.replace("monkey.patch_all()\n", "").replace("ticker = gevent.spawn(tick)", "")
    opened_first += """
other = coopshm.Cache(settings["namespace"], c._attachment.config)  # as another process
"""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", opened_first + textwrap.dedent(program), json.dumps(settings())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert finish(process) == ["hook begins", "hook has run", "computes", "computes", "computes"]
    assert clean(c)


def _threads(conn: Any, settings: Any, path: str) -> Any:
    coopshm.configure(settings)
    c = coopshm.open("c")
    conn.send("ready")
    conn.recv()
    return threads(8, lambda _: c.cached("k", lambda: _compute(c, path, "threads")))


def _tasks(conn: Any, settings: Any, path: str) -> Any:
    coopshm.configure(settings)
    c = coopshm.open("c")

    async def compute() -> str:
        return await asyncio.to_thread(_compute, c, path, "tasks")

    async def ask() -> list[str]:
        return await asyncio.gather(*(c.acached("k", compute) for _ in range(50)))

    conn.send("ready")
    conn.recv()
    return asyncio.run(ask())


def _compute(c: coopshm.Cache, path: str, kind: str) -> str:
    """Say who computes, and go on when all others wait: eight threads (but the one that computes), and one thread each
    for all tasks and for all greenlets, unless they compute."""
    Tally(Path(path)).add(kind)
    until(lambda: c.stats().waiters >= 9)
    return "computed by " + kind


def test_greenlets_tasks_and_threads_of_three_processes_share_one_computation(settings, cache, tally) -> None:
    c = cache()
    path = str(tally.path)
    greenlets = start(
        f"""
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from tests.procs import Tally
        from pathlib import Path

        def compute():
            Tally(Path({path!r})).add("greenlets")
            until(lambda: c.stats().waiters >= 9)
            return "computed by greenlets"

        print("ready", flush=True)
        sys.stdin.readline()
        crew = [gevent.spawn(c.cached, "k", compute) for _ in range(50)]
        gevent.joinall(crew)
        print(json.dumps([greenlet.value for greenlet in crew]))
        """,
        settings(),
    )
    others = [Child(_threads, settings(), path), Child(_tasks, settings(), path)]
    assert greenlets.stdout is not None
    assert greenlets.stdin is not None
    assert greenlets.stdout.readline() == "ready\n"
    assert [child.receive() for child in others] == ["ready", "ready"]
    for child in others:
        child.send("go")
    greenlets.stdin.write("go\n")
    greenlets.stdin.flush()
    answers = [*others[0].result(), *others[1].result(), *finish(greenlets)]
    (kind,) = tally.items()
    assert answers == [f"computed by {kind}"] * (8 + 50 + 50)
    assert c.stats().computations == 1
    assert clean(c)
