"""A Redis or Valkey server for the demonstration, on a node of its own."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from demo.ground import Ground
from demo.nodes import NodeError, until

NUMBER = 200  # of its node
PORT = 6379
_UNPACKED = Path(__file__).parents[1] / "build" / "tools" / "usr" / "bin"


def program(kind: str) -> str:
    """The path of redis-server or valkey-server; where `make tools` unpacks it as well."""
    name = f"{kind}-server"
    found = shutil.which(name) or shutil.which(name, path=str(_UNPACKED))
    if found is None:
        raise NodeError(f"{name} is not installed (make tools)")
    return found


class Engine:
    """Runs from `start` to `stop`; keeps nothing on a disk."""

    def __init__(self, ground: Ground, kind: str) -> None:
        self._ground = ground
        self._program = program(kind)
        self._process: subprocess.Popen[bytes] | None = None
        self._address = ground.address(NUMBER)
        self.url = f"redis://{self._address}:{PORT}/0"

    def version(self) -> str:
        """As it says itself."""
        said = subprocess.run([self._program, "--version"], capture_output=True, text=True, check=True).stdout
        return " ".join(said.split()[:3:2]).replace(" v=", " ")

    def start(self) -> None:
        options = ["--bind", self._address, "--port", str(PORT), "--save", "", "--protected-mode", "no"]
        self._process = subprocess.Popen(
            [*self._ground.boot(NUMBER), self._program, *options],
            cwd=os.environ["DEMO_DIR"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        until(self._answers, "the engine answers")

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self._address, PORT), 1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(100).startswith(b"+PONG")
        return False

    def stop(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._ground.end(NUMBER)
