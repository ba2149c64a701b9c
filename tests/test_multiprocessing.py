"""multiprocessing: its pools, with each way to start a process. All of them share one cache, and none leaves anything.

Each test runs in a process of its own, since pools have threads, and forking beside those is what Python warns of.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

import coopshm
from tests.conftest import clean
from tests.procs import WATCHDOG, Child, Tally, until

METHODS = ["fork", "forkserver", "spawn"]
each_method = pytest.mark.parametrize("method", METHODS)
WORKERS = 3


class Shared:
    """What the processes of a test have in common. Sent to those that are not forked."""

    def __init__(self, context: Any, settings: Any, directory: Path) -> None:
        self.settings = settings
        self.tally = Tally(directory / "computations")
        self.source = directory / "source"
        self.source.write_text("1")
        self.started, self.go = context.Event(), context.Event()

    def keywords(self, context: Any) -> dict[str, Any]:
        """How a pool's processes come to it: forked ones have what their parent has, the cache included."""
        if context.get_start_method() == "fork":
            return {}
        return {"initializer": begin, "initargs": (self,)}


shared: Shared


def begin(given: Shared) -> None:
    global shared
    shared = given
    coopshm.configure(given.settings)


def compute(key: str) -> tuple[str, str]:
    """The first computation of a key that begins with "held" waits until it may go on."""
    value = (key, shared.source.read_text())
    first = key not in shared.tally.items()
    shared.tally.add(key)
    if key.startswith("held") and first:
        shared.started.set()
        assert shared.go.wait(WATCHDOG)
    return value


def ask(key: str) -> tuple[int, tuple[str, str]]:
    return os.getpid(), coopshm.cached("c", key, lambda: compute(key))


def asks_then_ends(given: Shared, key: str) -> None:
    begin(given)
    ask(key)


def set_up(settings: Any, directory: str, method: str) -> tuple[Any, coopshm.Cache]:
    context = multiprocessing.get_context(method)
    begin(Shared(context, settings, Path(directory)))
    return context, coopshm.open("c")


def alone_in_a_session(target: Any, *args: Any) -> None:
    """Run `target(*args)`. If it fails, nothing of what it has started goes on."""
    child = Child(_session, target, args)
    try:
        child.result()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        raise


def _session(_: Any, target: Any, args: tuple[Any, ...]) -> None:
    os.setsid()
    target(*args)


def waiters(cache: coopshm.Cache, n: int) -> None:
    until(lambda: cache.stats().waiters >= n)


def alone(cache: coopshm.Cache) -> None:
    """The pool's processes are gone, and have left nothing."""
    assert cache.stats().processes == 1
    assert clean(cache)


# ---- pools


def _stampede(settings: Any, directory: str, method: str, warm: bool) -> None:
    context, cache = set_up(settings, directory, method)
    if warm:  # this process has a row, and a hot object that forked ones inherit
        assert ask("warm")[1] == ("warm", "1")
    keys = ["warm", "a", "b", "c"]
    with context.Pool(WORKERS, **shared.keywords(context)) as pool:
        held = pool.map_async(ask, ["held"] * WORKERS, chunksize=1)
        waiters(cache, WORKERS - 1)
        shared.go.set()
        answers = held.get(WATCHDOG) + pool.map(ask, keys * 20, chunksize=1)
        assert {value for _, value in answers} == {(key, "1") for key in ["held", *keys]}
        assert len({pid for pid, _ in answers}) == WORKERS
        pool.close()
        pool.join()
    assert sorted(shared.tally.items()) == sorted(["held", *keys]), "each once"
    assert cache.get("a") == ("a", "1")
    alone(cache)


@pytest.mark.parametrize(("method", "warm"), [("fork", True), *((method, False) for method in METHODS)])
def test_a_pool_computes_once(settings, namespace, tmp_path, method, warm) -> None:
    alone_in_a_session(_stampede, settings(), str(tmp_path), method, warm)


def _recycled(settings: Any, directory: str, method: str) -> None:
    context, cache = set_up(settings, directory, method)
    with context.Pool(2, maxtasksperchild=2, **shared.keywords(context)) as pool:
        answers = pool.map(ask, ["a", "b", "c"] * 4, chunksize=1)
        pool.close()
        pool.join()
    assert len({pid for pid, _ in answers}) >= 6
    assert sorted(shared.tally.items()) == ["a", "b", "c"]
    alone(cache)


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_pool_that_replaces_its_processes_computes_once(settings, namespace, tmp_path, method) -> None:
    # Forked or not, this process has the cache all the time; without one that has it the next would find it cold.
    alone_in_a_session(_recycled, settings(), str(tmp_path), method)


def _reset(settings: Any, directory: str, method: str) -> None:
    context, cache = set_up(settings, directory, method)
    with context.Pool(WORKERS, **shared.keywords(context)) as pool:
        held = pool.map_async(ask, ["held"] * WORKERS, chunksize=1)
        waiters(cache, WORKERS - 1)
        shared.source.write_text("2")
        assert cache.reset() == 2
        shared.go.set()
        assert {value for _, value in held.get(WATCHDOG)} == {("held", "2")}, "nobody gets what was begun before"
        pool.close()
        pool.join()
    assert shared.tally.items() == ["held", "held"]
    alone(cache)


@each_method
def test_a_reset_by_the_parent_reaches_what_its_pool_computes(settings, namespace, tmp_path, method) -> None:
    alone_in_a_session(_reset, settings(), str(tmp_path), method)


# ---- kills


def _killed(settings: Any, directory: str, method: str) -> None:
    context, cache = set_up(settings, directory, method)
    owner, heir = (context.Process(target=asks_then_ends, args=(shared, "held")) for _ in range(2))
    owner.start()
    assert shared.started.wait(WATCHDOG)
    heir.start()
    waiters(cache, 1)
    os.kill(owner.pid, signal.SIGKILL)
    for process, code in ((owner, -signal.SIGKILL), (heir, 0)):
        process.join(WATCHDOG)
        assert process.exitcode == code
    assert cache.get("held") == ("held", "1")
    assert shared.tally.items() == ["held", "held"]
    assert cache.stats().takeovers == 1
    alone(cache)


@each_method
def test_a_process_killed_while_it_computes_is_replaced_by_one_that_waits(
    settings, namespace, tmp_path, method
) -> None:
    alone_in_a_session(_killed, settings(), str(tmp_path), method)


def _executor(settings: Any, directory: str, method: str) -> None:
    context, cache = set_up(settings, directory, method)
    with ProcessPoolExecutor(WORKERS, context, **shared.keywords(context)) as executor:
        assert {value for _, value in executor.map(ask, ["a"] * 20)} == {("a", "1")}
        held = executor.submit(ask, "held")
        assert shared.started.wait(WATCHDOG)
        os.kill(cache._attachment.segment.flights()[0].pid, signal.SIGKILL)
        with pytest.raises(BrokenProcessPool):
            held.result(WATCHDOG)
    with ProcessPoolExecutor(WORKERS, context, **shared.keywords(context)) as executor:
        assert executor.submit(ask, "held").result(WATCHDOG)[1] == ("held", "1")
        assert executor.submit(ask, "a").result(WATCHDOG)[1] == ("a", "1")
    assert shared.tally.items() == ["a", "held", "held"]
    alone(cache)


@each_method
def test_an_executor_whose_process_is_killed_leaves_the_cache_to_the_next(
    settings, namespace, tmp_path, method
) -> None:
    alone_in_a_session(_executor, settings(), str(tmp_path), method)


# ---- scripts

SCRIPT = """
import json, multiprocessing, sys
import coopshm

coopshm.configure(json.loads(sys.argv[1]))  # a spawned process runs this, too

@coopshm.memoize("c")
def twice(x):
    print("computes", flush=True)
    return 2 * x

if __name__ == "__main__":
    assert twice(1) == 2
    with multiprocessing.get_context(sys.argv[2]).Pool(2) as pool:
        assert pool.map(twice, [1] * 10) == [2] * 10
"""


@each_method
def test_the_functions_of_a_script_are_the_same_in_its_pool(settings, tmp_path, method) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), json.dumps(settings()), method]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WATCHDOG)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "computes\n")
