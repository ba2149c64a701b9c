"""Servers on unix sockets: started in the run's own folder, ended with the run.

A run that is killed cannot end them, so the kernel does: it sends them SIGKILL when who started them is gone.
"""

from __future__ import annotations

import ctypes
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["end_with_parent", "serving"]

_WATCHDOG = 20.0
_PR_SET_PDEATHSIG = 1
#: Looked up here, for `end_with_parent` is called between fork and exec.
_PRCTL = ctypes.CDLL(None).prctl


def end_with_parent() -> None:
    """Have this process killed when the thread that forked it has ended."""
    _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def serving(command: Sequence[str], address: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command`; it is listening on the socket `address` when this enters, and gone when it leaves."""
    with (
        log.open("wb") as output,
        # The bench has no threads when it starts servers.
        subprocess.Popen(command, stdout=output, stderr=output, preexec_fn=end_with_parent) as process,
    ):
        try:
            _wait_for(process, address, log)
            yield process
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5.0)
    except subprocess.TimeoutExpired:
        process.kill()


def _wait_for(process: subprocess.Popen[bytes], address: Path, log: Path) -> None:
    give_up = time.monotonic() + _WATCHDOG
    while process.poll() is None and time.monotonic() < give_up:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(address))
                return
            except OSError:
                time.sleep(0.01)
    said = log.read_text(errors="replace").strip().splitlines()
    raise RuntimeError(f"{Path(str(process.args)).name} does not listen: {said[-1] if said else 'no word from it'}")
