"""Real processes for tests: started together, talked to over pipes, killed and reaped.

They are forked by multiprocessing's fork server, a process without threads that has imported what most test modules
import, so that a hundred of them start in well under a second. Targets are module-level functions. Nothing here waits
for time to pass; `WATCHDOG` bounds what hangs, and `until` leaves the processors to those whom it waits for.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
# A process imports its target's module: with pytest already there that takes 5 ms, and 90 without.
CONTEXT.set_forkserver_preload(["coopshm", "numpy", "pytest", "tests.procs", "tests.conftest"])

#: Seconds after which a process that does not answer is taken to hang.
WATCHDOG = 90.0

_children: list[Child] = []


def until(condition: Callable[[], object], what: Callable[[], object] = lambda: "") -> None:
    """Return once the condition holds. `what()` is said if it never does."""
    deadline = time.monotonic() + WATCHDOG
    pause = 0.001
    while not condition():
        assert time.monotonic() < deadline, f"never became true; {what()}"
        time.sleep(pause)
        pause = min(1.3 * pause, 0.05)  # what takes long is not looked for so often: others need the processors


class Tally:
    """A counter that processes share: one appended byte a count, so a kill cannot lose or double one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def add(self, what: str = ".") -> None:
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, f"{what}\n".encode())
        finally:
            os.close(fd)

    def items(self) -> list[str]:
        return self.path.read_text().split("\n")[:-1]

    def __len__(self) -> int:
        return len(self.items())


def forked(body: Callable[[], None]) -> int:
    """Run `body` in a plain fork of this process, which exits with 0, or says why not and exits with 1. Its PID."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            body()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return pid


def ended_well(*pids: int) -> None:
    """Wait for forked processes to end, each with exit code 0."""
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * len(pids)


class RemoteError(Exception):
    """A child's function raised; has the text of its traceback."""


def _serve(conn: Connection, target: Callable[..., Any], args: Sequence[Any]) -> None:
    try:
        conn.send((True, target(conn, *args)))
    except BaseException:
        conn.send((False, traceback.format_exc()))
    conn.close()


class Child:
    """A process that runs `target(conn, *args)`; `conn` is its end of a pipe."""

    def __init__(self, target: Callable[..., Any], *args: Any) -> None:
        self.conn, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=_serve, args=(theirs, target, args))
        self.process.start()
        theirs.close()
        _children.append(self)

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def send(self, message: Any) -> None:
        self.conn.send(message)

    def receive(self) -> Any:
        """The next message that the target sent over its `conn`."""
        assert self.conn.poll(WATCHDOG), f"process {self.pid} hangs"
        return self.conn.recv()

    def result(self) -> Any:
        """What the target returned."""
        good, value = self.receive()
        self.process.join(WATCHDOG)
        if not good:
            raise RemoteError(value)
        return value

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.process.join(WATCHDOG)

    def state(self) -> str:
        """The kernel's letter for the process's state; Z when it is gone."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return "Z"

    def wait_dead(self) -> None:
        """Return once the process itself is dead, whatever it forked: `join` would wait for that, too."""
        # The first thread may be a zombie while others still end; files are closed by the last one.
        until(lambda: self.state() in "ZX" and self._threads() <= 1)

    def _threads(self) -> int:
        try:
            return len(os.listdir(f"/proc/{self.pid}/task"))
        except (FileNotFoundError, ProcessLookupError):
            return 0

    def stop(self) -> None:
        """Send SIGSTOP and return once the process is stopped."""
        os.kill(self.pid, signal.SIGSTOP)
        until(lambda: self.state() in "Tt")

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


def reap_all() -> None:
    """Kill what still runs, and reap everything."""
    while _children:
        child = _children.pop()
        if child.process.is_alive():
            with contextlib.suppress(ProcessLookupError):  # it has just ended, and its own parent has reaped it
                os.kill(child.pid, signal.SIGKILL)
        child.process.join()
        child.process.close()
        child.conn.close()


def _together(conn: Connection, barrier: Any, index: int, target: Callable[..., Any], args: Sequence[Any]) -> Any:
    barrier.wait(WATCHDOG)
    return target(index, *args)


def run(n: int, target: Callable[..., Any], *args: Any) -> list[Any]:
    """Run `target(index, *args)` in `n` processes that begin at the same moment; return what they returned."""
    barrier = CONTEXT.Barrier(n)
    children = [Child(_together, barrier, index, target, args) for index in range(n)]
    return [child.result() for child in children]


def threads(n: int, target: Callable[[int], Any]) -> list[Any]:
    """Run `target(index)` in `n` threads that begin at the same moment; return what they returned, exceptions too."""
    barrier = threading.Barrier(n)
    results: list[Any] = [None] * n

    def body(index: int) -> None:
        barrier.wait(WATCHDOG)
        try:
            results[index] = target(index)
        except Exception as exc:
            results[index] = exc

    started = [threading.Thread(target=body, args=(index,), daemon=True) for index in range(n)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join(WATCHDOG)
        assert not thread.is_alive(), "a thread hangs"
    return results
