"""The Redis server of a cluster that is connected by one: on a host of its own, without anything on disk."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

from tests.net.network import Host, Switch, child_of
from tests.procs import WATCHDOG, until

NUMBER = 200
PORT = 6379


class Engine:
    """A redis-server that can be killed, stopped, flushed and started again, empty."""

    def __init__(self, switch: Switch, directory: Path) -> None:
        self.host = Host(switch, NUMBER)
        self.url = f"redis://{self.host.address}:{PORT}/0"
        self._log = directory / "engine.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self.host.command(
                    ["redis-server", "--port", str(PORT), "--save", "", "--appendonly", "no", "--protected-mode", "no"]
                ),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self._pid = child_of(self._process)
        until(self._answers, lambda: self._log.read_text(errors="replace"))

    def _say(self, line: bytes) -> bytes:
        with self.host.network():
            connection = socket.socket()
        with connection:
            connection.settimeout(WATCHDOG)
            connection.connect(("127.0.0.1", PORT))
            connection.sendall(line + b"\r\n")
            return connection.recv(1000)

    def _answers(self) -> bool:
        try:
            return self._say(b"PING") == b"+PONG\r\n"
        except OSError:
            return False

    def flush(self) -> None:
        assert self._say(b"FLUSHALL") == b"+OK\r\n"

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._pid, number)
        if number == signal.SIGCONT:
            self._process.send_signal(number)  # nsenter stops itself when its child stops

    def kill(self) -> None:
        assert self._process is not None
        self.signal(signal.SIGKILL)
        self._process.wait(WATCHDOG)

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
        self.host.end()
        if self._process is not None:
            self._process.wait(WATCHDOG)
