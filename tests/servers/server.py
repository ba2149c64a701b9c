"""One server: started in a session of its own, asked, signalled, stopped for certain; and what it leaves behind.

A subclass says how it is started and what it can do; see gunicorn.py. The listening socket is made here and handed
over where the server can take it, so that no port is guessed and no request refused while workers are replaced.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from tests.procs import WATCHDOG
from tests.servers.client import Reply, ask
from tests.servers.site import LIFETIMES, Site, until


def members(session: int) -> set[int]:
    """The live processes of a session."""
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[3]) == session and fields[0] not in "ZX":
                found.add(int(entry))
    return found


class Server:
    """A context manager: started when entered, stopped and looked after when left.

    What follows is what the checks need to know of a kind of server.
    """

    #: Worker processes.
    workers = 3
    #: How many requests one worker works on at the same time.
    concurrency = 1
    #: Whether `reload` has the workers run the newest code.
    reload_loads_code = True
    #: Whether the cache lives on while workers are reloaded, with `lifetime = "app"`.
    reload_keeps_cache = True

    def __init__(self, site: Site, *arguments: str) -> None:
        """`arguments` are added to the command."""
        self.site = site
        self.arguments = arguments
        self.port = 0

    # ---- what a subclass says

    def command(self, listener: socket.socket) -> list[str]:
        """The command that serves on `listener`, which the process inherits."""
        raise NotImplementedError

    def recycling(self) -> list[str]:
        """The options that have each worker replaced after some ten requests."""
        raise NotImplementedError

    def reload(self) -> None:
        """Begin to replace all workers, gracefully."""
        self.signal(signal.SIGHUP)

    # ---- its life

    def __enter__(self) -> Server:
        with socket.create_server(("127.0.0.1", 0), backlog=512) as listener, self._log().open("ab") as log:
            self.port = listener.getsockname()[1]
            self._process = subprocess.Popen(
                [*self.command(listener), *self.arguments],
                cwd=self.site.directory,
                env=self.site.environment(),
                pass_fds=[listener.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait_until_it_serves()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._end()
            return
        try:
            self.stop()
        finally:
            self._end()

    @property
    def pid(self) -> int:
        """The process that was started: the master."""
        return self._process.pid

    def stop(self) -> None:
        """Stop as a user does, and find nothing left behind."""
        if self._process.returncode is not None:
            return
        self.signal(signal.SIGTERM)
        status = self._process.wait(WATCHDOG)
        assert status in (0, -signal.SIGTERM), f"the server ended with status {status}"
        until(lambda: not members(self.pid), lambda: f"left behind: {members(self.pid)}")
        self.check_memory()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def processes(self) -> set[int]:
        """Everything that the server consists of."""
        return members(self.pid)

    def get(self, path: str) -> Reply:
        return ask(self.port, path)

    def post(self, path: str) -> Reply:
        return ask(self.port, path, "POST")

    def check_memory(self) -> None:
        """In /dev/shm are the caches and nothing else; nobody has them, and nobody holds anything in them."""
        site = self.site
        assert site.objects() <= set(LIFETIMES)
        for name in site.objects():
            stats = site.observe(name)
            assert (stats.processes, stats.flights, stats.waiters, stats.pinned_chunks) == (0, 0, 0, 0)
            assert site.damage(name) == []

    # ---- how

    def _log(self) -> Path:
        return self.site.directory / "server.log"

    def _wait_until_it_serves(self) -> None:
        reply = self.get("/pid")
        assert reply.good, reply

    def _end(self) -> None:
        """Nothing of it goes on. What it wrote is shown with a failing test."""
        for pid in members(self.pid):  # before the first is reaped, since its id names the session
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._process.wait()
        until(lambda: not members(self.pid))
        sys.stderr.write(self._log().read_text(errors="replace"))
