"""Where computations stop until the test lets them go. Each comes by a connection, says who it is, and reads."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
from types import TracebackType
from typing import Any

#: Seconds after which what has not come is taken to hang: half of what pytest gives a test, which must stop its server.
WATCHDOG = 60.0


class Held:
    """A computation that waits at the gate, or has been killed there."""

    def __init__(self, connection: socket.socket, value: dict[str, Any]) -> None:
        self._connection = connection
        self.key: str = value["key"]
        self.version: Any = value["version"]
        self.pid: int = value["by"]

    def release(self) -> None:
        self._connection.close()


class Gate:
    """A context manager; what still waits at its end is let go."""

    def __enter__(self) -> Gate:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._arrived: queue.Queue[Held] = queue.Queue()
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for connection in self._connections:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # shut down
                return
            self._connections.append(connection)
            connection.settimeout(WATCHDOG)
            with contextlib.suppress(OSError), connection.makefile("rb") as lines:
                if line := lines.readline():
                    self._arrived.put(Held(connection, json.loads(line)))

    def next(self) -> Held:
        """The next computation that comes; waits for it."""
        return self._arrived.get(timeout=WATCHDOG)

    def is_empty(self) -> bool:
        """Whether all that came have been taken by `next`."""
        return self._arrived.empty()
