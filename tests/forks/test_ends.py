"""How processes that have made others, or were made, begin anew and end: exec, daemons, exit, crowds."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import coopshm
from tests import raw
from tests.conftest import clean
from tests.forks.ways import FORKS, double_fork, os_fork
from tests.procs import CONTEXT, WATCHDOG, Child, until

LARGE = b"stable" * 5000
both = pytest.mark.parametrize("way", ["os_fork", "fork_from_c"])


def _attach(settings: Any) -> coopshm.Cache:
    coopshm.configure(settings)
    return coopshm.open("c")


# ---- what the parent's other threads hold


def _in_a_hook(_: Any, settings: Any, way: str) -> None:
    """A thread runs a hook, with what makes all others wait for it, when the process is forked."""
    cache = _attach(settings)
    here, go = threading.Event(), threading.Event()
    ran = []

    def hook(_version: object) -> None:
        ran.append(os.getpid())
        if threading.current_thread() is thread:
            here.set()
            assert go.wait(WATCHDOG)

    thread = threading.Thread(target=cache.reset)
    cache.on_reset(hook)
    thread.start()
    assert here.wait(WATCHDOG)
    mine, theirs = CONTEXT.Pipe()
    wait = FORKS[way](_goes_on, theirs, cache, ran)
    assert mine.recv() == "the child's"
    assert wait() == 0
    go.set()
    thread.join(WATCHDOG)
    assert cache.cached("k", lambda: "mine") == "the child's"
    assert clean(cache)


def _goes_on(conn: Any, cache: coopshm.Cache, ran: list[int]) -> None:
    ran.clear()
    conn.send(cache.cached("k", lambda: "the child's"))
    assert ran == [os.getpid()], "it has not seen the reset yet either: its hook comes first"


@both
def test_a_child_does_not_wait_for_a_hook_that_a_thread_of_its_parent_runs(settings, namespace, way) -> None:
    Child(_in_a_hook, settings(), way).result()


def _asks_for_what_the_parent_computes(_: Any, settings: Any, way: str) -> None:
    cache = _attach(settings)
    mine, theirs = CONTEXT.Pipe()
    waits = []

    def fn() -> str:
        waits.append(FORKS[way](_asks, theirs, cache))
        until(lambda: cache.stats().waiters >= 1)
        return "the parent's"

    assert cache.cached("k", fn) == "the parent's"
    assert mine.recv() == "the parent's", "a child is not in the middle of its parent's computation"
    assert waits[0]() == 0
    assert cache.stats().computations == 1
    assert clean(cache)


def _asks(conn: Any, cache: coopshm.Cache) -> None:
    conn.send(cache.cached("k", lambda: "the child's"))


@both
def test_a_child_may_wait_for_what_its_parent_was_computing(settings, namespace, way) -> None:
    Child(_asks_for_what_the_parent_computes, settings(), way).result()


def _views_of_threads(_: Any, settings: Any) -> None:
    """The limit that docs/architecture.md names. Python never ends the locals of threads that a child does not have."""
    cache = _attach(settings)
    cache.cached("k", lambda: LARGE)
    here, go = threading.Event(), threading.Event()

    def body() -> None:
        view = cache.view("k")
        here.set()
        assert go.wait(WATCHDOG)
        assert view == LARGE

    thread = threading.Thread(target=body)
    thread.start()
    assert here.wait(WATCHDOG)
    mine, theirs = CONTEXT.Pipe()
    wait = os_fork(_counts_pins, theirs, cache)
    assert mine.recv() > 0
    go.set()
    thread.join(WATCHDOG)
    assert raw.pins(cache) == 0
    chunks = cache.stats().pinned_chunks
    assert 0 < chunks <= 3, "the child's: at most what its parent had pinned"
    for n in range(3):
        cache.reset(("after", n))
        for i in range(300):
            cache.cached(i, lambda: b"other!" * 5000)
        assert cache.stats().pinned_chunks == chunks, "and no more of them each time"
    mine.send("end")
    assert wait() == 0
    assert clean(cache)


def _counts_pins(conn: Any, cache: coopshm.Cache) -> None:
    conn.send(raw.pins(cache))
    conn.recv()


def test_a_view_that_another_thread_held_binds_its_memory_until_the_child_ends(settings, namespace) -> None:
    Child(_views_of_threads, settings()).result()


# ---- many


def _crowd(_: Any, settings: Any, way: str) -> None:
    cache = _attach(settings)
    cache.cached("k", lambda: LARGE)
    views = [cache.view("k"), cache.view("k")]
    files = len(os.listdir("/proc/self/fd"))
    mine, theirs = CONTEXT.Pipe()
    gate, end = os.pipe()
    waits = [FORKS[way](_one_of_many, theirs, cache, views, (gate, end)) for _ in range(64)]
    assert cache.stats().processes == 65, "those that are made with views have a row from the beginning"
    assert {mine.recv() for _ in range(64)} == {("shared", True)}
    os.close(end)
    assert [wait() for wait in waits] == [0] * 64
    os.close(gate)
    mine.close()
    theirs.close()
    assert cache.stats().processes == 1
    assert cache.stats().computations == 2, "64 children computed one value once"
    assert len(os.listdir("/proc/self/fd")) == files
    for view in views:
        assert view is not None
        view.release()
    assert raw.pins(cache) == 0
    assert clean(cache)


def _one_of_many(conn: Any, cache: coopshm.Cache, views: list[memoryview], gate: tuple[int, int]) -> None:
    os.close(gate[1])
    value = cache.cached("new", lambda: "shared")
    conn.send((value, all(bytes(view) == LARGE for view in views)))
    os.read(gate[0], 1)  # until the last of those that have its other end lets go of it


@pytest.mark.parametrize("way", FORKS)
def test_sixty_four_children_at_once(settings, namespace, way) -> None:
    Child(_crowd, settings(memory_limit="1 MiB"), way).result()


def _bomb(conn: Any, cache: coopshm.Cache, depth: int) -> None:
    """Six generations, two children each: 64 processes in the last."""
    assert cache.cached(("level", depth), lambda: depth) == depth
    if depth:
        waits = [os_fork(_bomb, conn, cache, depth - 1) for _ in range(2)]
        assert [wait() for wait in waits] == [0, 0]
    conn.send(cache.cached("all", lambda: [1]))


def _bombed(_: Any, settings: Any) -> None:
    cache = _attach(settings)
    mine, theirs = CONTEXT.Pipe()
    wait = os_fork(_bomb, theirs, cache, 6)
    assert [mine.recv() for _ in range(127)] == [[1]] * 127
    assert wait() == 0
    assert cache.stats().computations == 8
    assert cache.stats().processes == 1
    assert clean(cache)


def test_six_generations_of_children(settings, namespace) -> None:
    Child(_bombed, settings()).result()


# ---- exec, daemons, exit


def _execs(conn: Any, settings: Any, out: str) -> None:
    os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT), 1)
    os.dup2(conn.fileno(), 0)  # it lives until the test ends it
    cache = _attach(settings)
    cache.cached("k", lambda: LARGE)
    view = cache.view("k")
    started, in_flight = threading.Event(), threading.Event()
    thread = threading.Thread(
        target=lambda: cache.cached("held", lambda: (started.set(), in_flight.wait())), daemon=True
    )
    thread.start()
    assert started.wait(WATCHDOG)
    assert view == LARGE
    program = "import os; os.system('ls -l /proc/self/fd'); print('end', flush=True); input()"
    os.execv(sys.executable, [sys.executable, "-c", program])


def test_exec_ends_a_process_as_far_as_the_cache_is_concerned(settings, cache, tmp_path) -> None:
    c = cache()
    out = tmp_path / "out"
    child = Child(_execs, settings(), str(out))
    while not out.exists() or not out.read_text().endswith("end\n"):
        pass
    assert "coopshm" not in out.read_text()
    assert c.cached("held", lambda: "taken over") == "taken over"
    stats = c.stats()
    assert (stats.processes, stats.takeovers, stats.pinned_chunks) == (1, 1, 0)
    child.kill()
    assert clean(c)


def _daemon(_: Any, settings: Any, folder: str) -> None:
    cache = _attach(settings)
    cache.cached("before", lambda: [1])
    mine, theirs = CONTEXT.Pipe()
    wait = double_fork(_closes_everything, theirs, cache, folder)
    assert mine.recv() == ([1], ["the daemon's"], 2)
    assert cache.get("k") == ["the daemon's"]
    mine.send("end")
    assert wait() == 0
    assert cache.stats().processes == 1
    assert clean(cache)


def _closes_everything(conn: Any, cache: coopshm.Cache, folder: str) -> None:
    keep = conn.fileno()
    os.closerange(3, keep)
    os.closerange(keep + 1, 1024)
    files = [Path(folder, str(n)).open("w") for n in range(20)]  # noqa: SIM115  they get the numbers of what was closed
    found = cache.cached("before", lambda: "lost"), cache.cached("k", lambda: ["the daemon's"]), cache.stats().processes
    large = os.urandom(200_000)
    assert cache.cached("large", lambda: large) == cache.get("large") == large
    assert cache.cached("no", lambda: coopshm.NoCache(large)) == large
    for file in files:
        file.write("log")
        file.close()  # fails, if somebody else has closed it
        assert Path(file.name).read_text() == "log"
    conn.send(found)
    conn.recv()


def test_a_daemon_that_closes_all_descriptors_rejoins_and_no_file_is_touched(settings, namespace, tmp_path) -> None:
    Child(_daemon, settings(), str(tmp_path)).result()


PROGRAM = """
import coopshm, threading, sys
coopshm.configure({settings!r})
cache = coopshm.open("c")
cache.cached("k", lambda: b"x" * 20_000)
kept = [cache.view("k"), cache.view("k")[5:]]
class Keeper:
    view = cache.view("k")
sys.keeper = Keeper
{more}
assert cache.stats().pinned_chunks > 0
print("end")
"""


@pytest.mark.parametrize(
    "more",
    [
        "",
        "import atexit; atexit.register(lambda: cache.cached('at exit', lambda: bytes(kept[0])))",
        "threading.Thread(target=threading.Event().wait, daemon=True).start()",
        "threading.Thread(target=cache.cached, args=('held', threading.Event().wait), daemon=True).start()\n"
        "while cache.stats().flights < 1: pass",
        "import os, _thread; pid = os.fork(); (pid and os.waitpid(pid, 0)) or print('child')",
        "sys.exit(print('end'))",
    ],
    ids=["views", "use at exit", "daemon thread", "in flight", "forked", "SystemExit"],
)
def test_an_interpreter_ends_in_silence_with_views_alive(settings, cache, more) -> None:
    c = cache()
    program = PROGRAM.format(settings=settings(), more=more)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("end\n")
    stats = c.stats()
    assert (stats.processes, stats.pinned_chunks) == (1, 0)
    assert c.cached("held", lambda: "taken over") == "taken over"
    assert clean(c)


def _vforked(_: Any, settings: Any, path: str) -> None:
    """vfork, called from C: the child shares all memory until it calls exec, and no fork handler runs."""
    cache = _attach(settings)
    cache.cached("k", lambda: LARGE)
    view = cache.view("k")
    before = cache.stats().processes, raw.pins(cache)
    library = ctypes.CDLL(path)
    for _i in range(20):
        assert library.run_true() == 0
        assert (cache.stats().processes, raw.pins(cache)) == before
    assert view == LARGE
    assert view is not None
    view.release()
    assert raw.pins(cache) == 0
    assert clean(cache)


VFORK = """
#include <sys/wait.h>
#include <unistd.h>
int run_true(void) {
    int status;
    pid_t pid = vfork();
    if (pid == 0) { execl("/bin/true", "true", (char *)0); _exit(9); }
    return waitpid(pid, &status, 0) == pid ? status : -1;
}
"""


def test_vfork_from_c_changes_nothing(settings, namespace, tmp_path) -> None:
    (tmp_path / "vfork.c").write_text(VFORK)
    library = str(tmp_path / "vfork.so")
    command = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-w", str(tmp_path / "vfork.c"), "-o", library]
    subprocess.run(command, check=True)
    Child(_vforked, settings(), library).result()
