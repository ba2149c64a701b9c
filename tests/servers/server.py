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
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tests.procs import until
from tests.servers.client import Crowd, Reply, ask
from tests.servers.site import LIFETIMES, Site

#: Lines of a server's log that a failing test shows.
_SHOWN = 40


def members(session: int) -> set[int]:
    """The live processes of a session.

    One whose first thread has ended lives as long as its others do, with all that it holds.
    """
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            state, threads = fields[0], int(fields[17])
            if int(fields[3]) == session and (state not in "ZX" or threads > 1):
                found.add(int(entry))
    return found


def variables(file: Path) -> dict[str, str]:
    """The environment variables in a file, as systemd reads it (EnvironmentFile=)."""
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


class Server:
    """A context manager: started when entered, stopped and looked after when left.

    What follows is what the checks need to know of a kind of server.
    """

    #: Worker processes.
    workers = 3
    #: Whether `reload` has the workers run the newest code.
    reload_loads_code = True
    #: Whether some process has the cache at each moment while workers are replaced after some requests (else it may be
    #: cold at times, unless `lifetime = "host"`), and while they are reloaded.
    recycling_keeps_cache = True
    reload_keeps_cache = True
    #: How many connections that it has accepted but not read from a worker may drop when it ends: one that comes to its
    #: end by itself, after some requests, and one that is told to end, in a reload or an upgrade.
    recycling_drops: float = 0
    reload_drops: float = 0

    def __init__(self, site: Site, arguments: Sequence[str] = ()) -> None:
        """`arguments` are added to the command."""
        self.site = site
        self.arguments = [*arguments]
        self.port = 0
        #: The workers that had served when they were last waited for: all of them.
        self.met: set[int] = set()
        self._crashed = False

    # ---- what a subclass says

    def command(self, listener: socket.socket) -> list[str]:
        """The command that serves on `listener`, which the process inherits."""
        raise NotImplementedError

    def bind(self) -> socket.socket:
        """The socket to serve on; open until the server is stopped."""
        return socket.create_server(("127.0.0.1", 0), backlog=512)

    def find_port(self) -> None:
        """Set `port`, if the server did not take the socket; it has just been started."""

    def environment(self) -> dict[str, str]:
        """The server's and its workers'."""
        return self.site.environment()

    def recycling(self) -> list[str]:
        """The options that have each worker replaced after some ten requests."""
        raise NotImplementedError

    def reload(self) -> None:
        """Begin to replace all workers, gracefully."""
        self.signal(signal.SIGHUP)

    def terminate(self) -> None:
        """Tell it to stop."""
        self.signal(signal.SIGTERM)

    def upgradable(self) -> list[str]:
        """The options that `upgrade` needs."""
        raise NotImplementedError

    def upgrade(self) -> None:
        """Have a new master started, with new workers, and the old one stopped."""
        raise NotImplementedError

    def impatience(self) -> list[str]:
        """The options that have the server kill a worker which has not got on for two seconds."""
        raise NotImplementedError

    def wait_for_impatience(self, pid: int) -> None:
        """Return once the server has begun to get rid of this worker."""
        raise NotImplementedError

    # ---- its life

    def __enter__(self) -> Server:
        with self.bind() as listener, self._log().open("ab") as log:
            self.port = listener.getsockname()[1]
            self._process = subprocess.Popen(
                [*self.command(listener), *self.arguments],
                cwd=self.site.directory,
                env=self.environment(),
                pass_fds=[listener.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.session = self.master = self._process.pid
        try:
            self.find_port()
            self.wait_for_workers()
        except BaseException:
            self._end()
            self._show("it did not begin to serve")
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._end()
            *_, last = traceback.extract_tb(trace)
            self._show(f"{kind.__name__} at {last.filename}:{last.lineno}: {error}")
            return
        try:
            if not self._crashed:
                self.stop()
        finally:
            self._end()

    def wait_for_workers(self) -> None:
        """Return once each worker has served a request. (One that boots may lose a signal: gunicorn's do.)"""
        seen: set[int] = set()
        until(lambda: self._meet(seen) >= self.workers, self.tail)
        self.met = seen

    def crash(self) -> None:
        """All processes are killed at once; what they leave is as if they had been stopped."""
        self._crashed = True
        self._end()
        self.check_memory()

    def stop(self) -> None:
        """Stop as a user does, and find nothing left behind."""
        self.terminate()
        until(lambda: self.master not in self.processes(), self.tail)
        until(lambda: not self.processes(), lambda: f"left behind: {self.processes()}")
        status = self._process.wait()
        self._show(f"the server ended with status {status}")
        assert status in (0, -signal.SIGTERM), f"the server ended with status {status}"
        self.check_memory()

    def signal(self, number: signal.Signals) -> None:
        """To the master."""
        os.kill(self.master, number)

    def processes(self) -> set[int]:
        """Everything that the server consists of."""
        return members(self.session)

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

    def log(self) -> str:
        """What it has written so far."""
        return self._log().read_text(errors="replace")

    def tail(self) -> str:
        """The end of it, for people. Without the requests: the application keeps records of them."""
        lines = [line for line in self.log().splitlines() if "HTTP/1.1" not in line]
        return "\n".join([f"the server wrote {len(lines)} lines beside requests; the last ones are", *lines[-_SHOWN:]])

    # ---- how

    def _log(self) -> Path:
        return self.site.directory / "server.log"

    def _meet(self, seen: set[int]) -> int:
        crowd = Crowd(self.port)
        crowd.ask("/pid", 2 * self.workers)
        seen |= {reply.body["served"] for reply in crowd.replies() if reply.good}
        return len(seen)

    def _end(self) -> None:
        """Nothing of it goes on."""
        if self._process.returncode is not None:
            return
        until(self._is_dead)
        self._process.wait()  # not before: as long as it is a zombie, nobody else can get the session's number

    def _show(self, outcome: str) -> None:
        """With a failing test. What matters comes last: of a long output the end is what is seen first, or kept."""
        sys.stderr.write(f"{self.tail()}\n\n{outcome}\n")

    def _is_dead(self) -> bool:
        """Kill whatever lives, what has been forked since the last look as well. Returns whether there was nothing."""
        living = self.processes()
        for pid in living:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return not living
