"""Processes in namespaces of their own: another /dev/shm, other PIDs. Needs root, or whatever else `unshare` asks for.

A target is a module-level function. It runs in a new interpreter; whatever it prints or raises is the test's to see.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from tests.procs import WATCHDOG

NS_LAST_PID = Path("/proc/sys/kernel/ns_last_pid")

#: What `Inside` has of its own.
UNSHARE = ["-p", "-f", "--kill-child"]


def _possible(*flags: str) -> bool:
    return subprocess.run(["unshare", *flags, "true"], capture_output=True, check=False).returncode == 0


mount_namespaces = pytest.mark.skipif(
    not _possible("-m"), reason="expected: mount namespaces are not allowed here (they need root)"
)
pid_namespaces = pytest.mark.skipif(
    not _possible("-p", "-f"), reason="expected: PID namespaces are not allowed here (they need root)"
)


def command(target: Callable[..., Any], args: tuple[Any, ...], conn: Connection | None = None) -> str:
    """The shell command that runs `target`."""
    given = "" if conn is None else f"__import__('multiprocessing.connection').connection.Connection({conn.fileno()}),"
    program = f"from {target.__module__} import {target.__name__} as target\ntarget({given} *{args!r})"
    return f"{sys.executable} -c {shlex.quote(program)}"


def with_small_shm(size: str, target: Callable[..., Any], *args: Any, env: dict[str, str] | None = None) -> str:
    """Run `target` where /dev/shm is a tmpfs of `size`; return what it printed. No process of it is left afterwards."""
    inside = f"mount -t tmpfs -o size={size},mode=1777 tmpfs /dev/shm && exec {command(target, args)}"
    # In a PID namespace, too: when its first process ends, so do all that it has forked.
    done = subprocess.run(
        ["unshare", "-m", "-p", "-f", "--mount-proc", "--kill-child", "sh", "-c", inside],
        capture_output=True,
        text=True,
        check=False,
        timeout=WATCHDOG,
        env={**os.environ, **(env or {})},
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


class Inside:
    """`target(conn, *args)` in a PID namespace of its own, not as its first process: it can be killed in there."""

    def __init__(self, target: Callable[..., Any], *args: Any) -> None:
        self.conn, theirs = Pipe()
        self.process = subprocess.Popen(
            ["unshare", *UNSHARE, "sh", "-c", command(target, args, theirs) + "; exit $?"],
            pass_fds=[theirs.fileno()],
        )
        theirs.close()

    def send(self, message: Any) -> None:
        self.conn.send(message)

    def receive(self) -> Any:
        assert self.conn.poll(WATCHDOG), "the process in the namespace hangs"
        return self.conn.recv()

    def wait(self) -> int:
        """The shell's exit code: 128 and the signal's number when the target was killed."""
        return self.process.wait(WATCHDOG)

    def kill(self) -> None:
        """Kill the namespace: its first process, and with it everything inside."""
        self.process.kill()
        self.process.wait()
        while self.conn.poll(WATCHDOG):  # until the last of them has closed its end
            try:
                self.conn.recv()
            except EOFError:
                break


def next_pid(pid: int) -> None:
    """Have the next process of this PID namespace get `pid`, if it is free."""
    NS_LAST_PID.write_text(str(pid - 1))
