"""Processes that are started, asked and ended.

A worker is forked by multiprocessing's fork server, a process without threads. It calls `target()` once, a
module-level function or a partial of one, and gets a function, which it then calls with each message that
it is sent; what that returns is the answer. Its end of the pipe closes when this process ends, however it
ends, and a worker that reads the end of its pipe ends too.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Generic, TypeVar

__all__ = ["CLOCK", "Asked", "Worker", "serve", "sleep_until", "workers"]

_CONTEXT = multiprocessing.get_context("forkserver")
#: Imported once, not in each of 64 workers; what is not installed is passed over.
_CONTEXT.set_forkserver_preload(
    ["coopshm", "bench.peers", "warp_cache", "lmdb", "diskcache", "redis", "pylibmc", "dogpile.cache", "UltraDict"]
)

#: Seconds after which a process that does not answer is taken to hang.
_WATCHDOG = 120.0

#: Nanoseconds. On Linux this is CLOCK_MONOTONIC, which all processes read alike.
CLOCK = time.perf_counter_ns

M = TypeVar("M")  # what a worker is sent
A = TypeVar("A")  # what it answers


def _serve_child(conn: Connection[tuple[bool, object], M], target: Callable[[], Callable[[M], A]]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    serve(conn, target)


def serve(conn: Connection[tuple[bool, object], M], target: Callable[[], Callable[[M], A]]) -> None:
    """Answer with what `target()` returns until the other end of `conn` is closed."""
    try:
        answer = target()
        conn.send((True, None))
        while True:
            try:
                message = conn.recv()
            except EOFError:
                return
            conn.send((True, answer(message)))
    except BrokenPipeError:
        pass  # nobody is left to answer to
    except BaseException:  # noqa: BLE001 whatever it is, the parent is to know
        conn.send((False, traceback.format_exc()))


class Asked(Generic[M, A]):
    """A process that answers, wherever it comes from."""

    def __init__(self, conn: Connection[M, tuple[bool, object]]) -> None:
        self._conn = conn

    def send(self, message: M) -> None:
        self._conn.send(message)

    def receive(self) -> A:
        """Return the next answer."""
        return self._receive()  # type: ignore[return-value]

    def wait_ready(self) -> None:
        """Return when the worker has begun to read messages. Once, before the first answer is received."""
        self._receive()

    def _receive(self) -> object:
        if not self._conn.poll(_WATCHDOG):
            raise RuntimeError("a process does not answer")
        good, value = self._conn.recv()
        if not good:
            raise RuntimeError(f"in a child process:\n{value}")
        return value

    def hang_up(self) -> None:
        """Have the worker end once it has answered."""
        self._conn.close()


class Worker(Asked[M, A]):
    """One that is forked here."""

    def __init__(self, target: Callable[[], Callable[[M], A]]) -> None:
        conn, theirs = _CONTEXT.Pipe()
        super().__init__(conn)
        self._process = _CONTEXT.Process(target=_serve_child, args=(theirs, target), daemon=True)
        self._process.start()
        theirs.close()

    def kill(self) -> int:
        """Send SIGKILL; return the time right before."""
        assert self._process.pid is not None
        now = CLOCK()
        os.kill(self._process.pid, signal.SIGKILL)
        return now

    def close(self) -> None:
        """Return when the worker has ended, by itself or, if it takes too long, by force."""
        self.hang_up()
        self._process.join(2.0)
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._process.close()


@contextmanager
def workers(n: int, target: Callable[[], Callable[[M], A]]) -> Iterator[list[Worker[M, A]]]:
    """Start `n` workers; they are ready when this returns, and gone at the end."""
    started: list[Worker[M, A]] = []
    try:
        started.extend(Worker(target) for _ in range(n))
        for worker in started:
            worker.wait_ready()
        yield started
    finally:
        for worker in started:
            worker.hang_up()
        for worker in started:
            worker.close()


def sleep_until(moment: int) -> None:
    """Return at `moment`, in nanoseconds of CLOCK, or a little later."""
    left = moment - CLOCK()
    if left > 0:
        time.sleep(left / 1e9)
