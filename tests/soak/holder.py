"""A process that is stopped while it holds the write lock: holder.c, built and driven."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.procs import WATCHDOG

_ROOT = Path(__file__).parents[2]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WATCHDOG
    while not condition():
        assert time.monotonic() < deadline, "it does not come to that"


def build(folder: str | Path) -> str:
    """Build the program, linked with csrc/; returns its path."""
    program = f"{folder}/holder"
    sources = [str(path) for path in sorted((_ROOT / "csrc").glob("*.c"))]
    here = str(Path(__file__).with_name("holder.c"))
    command = [os.environ.get("CC", "cc"), "-std=gnu11", "-O2", f"-I{_ROOT}/csrc", here, *sources]
    subprocess.run([*command, "-lrt", "-pthread", "-o", program], check=True)
    return program


class Holder:
    """Stopped inside a critical section of the segment `name`, as an app that has joined or else as an observer.

    Args:
        program: see `build`.
    """

    def __init__(self, program: str, name: str, role: str = "app") -> None:
        self.process = subprocess.Popen([program, name, role])
        until(lambda: self._state() in "TtZ")
        assert self.process.poll() is None, "the holder could not take the lock"

    def _state(self) -> str:
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def end(self, how: str) -> None:
        """Have it "continued", and so let go; or "killed", as it is. Returns at once."""
        self.process.send_signal({"continued": signal.SIGCONT, "killed": signal.SIGKILL}[how])

    def wait(self) -> int:
        return self.process.wait(WATCHDOG)
