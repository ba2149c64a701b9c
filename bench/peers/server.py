"""Servers on unix sockets: started in the run's own folder, ended with the run."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["serving"]

_WATCHDOG = 20.0


@contextmanager
def serving(command: Sequence[str], address: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command`; it is listening on the socket `address` when this enters, and gone when it leaves."""
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
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
