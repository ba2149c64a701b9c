"""The ways in which a process makes another one.

Each takes `target(conn, *args)` to run in the new process and returns what the new process can be waited for with.
`FORKS` go on with a copy of everything; `FRESH` begin with a new interpreter, and share only what they are given.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

PR_SET_CHILD_SUBREAPER = 36

#: Returns the exit code, when the process has ended.
Waiter = Callable[[], int]
Target = Callable[..., None]


def _run(target: Target, conn: Connection, args: tuple[Any, ...]) -> None:
    """In a forked child: no way leads back into the parent's frames."""
    code = 70
    try:
        target(conn, *args)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _waiter(pid: int) -> Waiter:
    return lambda: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def os_fork(target: Target, conn: Connection, *args: Any) -> Waiter:
    pid = os.fork()
    if pid == 0:
        _run(target, conn, args)
    return _waiter(pid)


def fork_from_c(target: Target, conn: Connection, *args: Any) -> Waiter:
    """Without Python's fork hooks, as uWSGI forks."""
    pid = ctypes.PyDLL(None).fork()
    if pid == 0:
        _run(target, conn, args)
    return _waiter(pid)


def double_fork(target: Target, conn: Connection, *args: Any) -> Waiter:
    """A grandchild; the process between ends at once, as when a daemon is made. This process adopts it."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    read, write = os.pipe()
    between = os.fork()
    if between == 0:
        os.setsid()
        grandchild = os.fork()
        if grandchild == 0:
            os.close(read)
            os.close(write)
            _run(target, conn, args)
        os.write(write, str(grandchild).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        grandchild = int(pipe.read())
    os.waitpid(between, 0)
    return _waiter(grandchild)


def _multiprocessing(method: str) -> Callable[..., Waiter]:
    def start(target: Target, conn: Connection, *args: Any) -> Waiter:
        process = multiprocessing.get_context(method).Process(target=target, args=(conn, *args))
        process.start()

        def wait() -> int:
            process.join()
            code = process.exitcode
            process.close()
            assert code is not None
            return code

        return wait

    start.__name__ = f"multiprocessing_{method}"
    return start


def _command(target: Target, conn: Connection, args: tuple[Any, ...]) -> list[str]:
    program = (
        f"from {target.__module__} import {target.__name__} as target\n"
        f"from multiprocessing.connection import Connection\n"
        f"target(Connection({conn.fileno()}), *{args!r})\n"
    )
    return [sys.executable, "-c", program]


def popen(target: Target, conn: Connection, *args: Any) -> Waiter:
    """subprocess, which uses vfork where it can."""
    return subprocess.Popen(_command(target, conn, args), pass_fds=[conn.fileno()]).wait


def popen_with_preexec(target: Target, conn: Connection, *args: Any) -> Waiter:
    """subprocess, made to fork: Python code runs in the child before it calls exec."""
    fd = conn.fileno()
    return subprocess.Popen(_command(target, conn, args), pass_fds=[fd], preexec_fn=os.getpid).wait


def posix_spawn(target: Target, conn: Connection, *args: Any) -> Waiter:
    os.set_inheritable(conn.fileno(), True)
    return _waiter(os.posix_spawn(sys.executable, _command(target, conn, args), os.environ))


def _named(*ways: Callable[..., Waiter]) -> dict[str, Callable[..., Waiter]]:
    return {way.__name__: way for way in ways}


FORKS = _named(os_fork, fork_from_c, double_fork, _multiprocessing("fork"))
FRESH = _named(_multiprocessing("forkserver"), _multiprocessing("spawn"), popen, popen_with_preexec, posix_spawn)
WAYS = FORKS | FRESH
