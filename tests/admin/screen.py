"""coopshm-admin on a terminal: a pseudo-terminal whose output is read until something appears on it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path
from types import TracebackType

from tests.admin.command import COMMAND
from tests.procs import WATCHDOG

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>()][0-9A-B]?")


def _own_terminal() -> None:
    """In the child: make its standard input its terminal, so that ctrl-C reaches it, and have it heed that."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored, and inherited so, where a shell runs all this in background


class Screen:
    """A context manager: the command, and a terminal of 30 lines of 120 characters."""

    def __init__(self, directory: Path, *args: str, term: str = "xterm-256color", lang: str = "C.UTF-8") -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
        self.modes = termios.tcgetattr(theirs)
        self._theirs = theirs
        self.process = subprocess.Popen(
            [COMMAND, *args],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=directory,
            start_new_session=True,
            preexec_fn=_own_terminal,
            env={**os.environ, "TERM": term, "LC_ALL": lang, "PYTHONIOENCODING": "ascii" if lang == "C" else "utf-8"},
        )
        self.raw = ""

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    @property
    def text(self) -> str:
        """All that was written, without what moves the cursor and changes colours."""
        return _ESCAPES.sub("", self.raw).replace("\r\n", "\n")

    def wait_for(self, text: str, times: int = 1) -> None:
        """Read until the text has appeared so many times."""
        until = time.monotonic() + WATCHDOG
        while self.text.count(text) < times:
            assert time.monotonic() < until, f"never showed {text!r}: {self.text[-3000:]}"
            if select.select([self._ours], [], [], 0.05)[0]:
                self.raw += os.read(self._ours, 65536).decode(errors="replace")
            elif self.process.poll() is not None and not select.select([self._ours], [], [], 0)[0]:
                assert self.text.count(text) >= times, f"ended without {text!r}: {self.text[-3000:]}"

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Wait for the command's end, and read the rest; the terminal is in the modes that it was found in."""
        until = time.monotonic() + WATCHDOG
        while self.process.poll() is None or select.select([self._ours], [], [], 0)[0]:
            assert time.monotonic() < until, f"does not end: {self.text[-3000:]}"
            if select.select([self._ours], [], [], 0.05)[0]:
                self.raw += os.read(self._ours, 65536).decode(errors="replace")
        assert termios.tcgetattr(self._theirs) == self.modes
        return int(self.process.returncode)
