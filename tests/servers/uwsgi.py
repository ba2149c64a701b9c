"""uWSGI, from examples/uwsgi.ini. Its modes are options, added to the command."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.procs import until
from tests.servers.server import Server
from tests.servers.site import EXAMPLES, Site

PROGRAM = Path(sys.executable).with_name("uwsgi")  # one that was built for another Python could not import anything

#: What the master writes when it begins, and when it has come to its loop.
_BEGINS, _HEARS = "*** Starting uWSGI", "the master hears"


class Uwsgi(Server):
    """As the file has it: the application is loaded, and the cache opened, before the workers are forked."""

    #: The option that names a file whose touch begins the reload; None for a signal to the master.
    touched: str | None = None
    #: Also of a reload by a signal: the master goes on as another program, so that for a moment nobody has the cache.
    reload_keeps_cache = False

    def __init__(self, site: Site, arguments: Sequence[str] = ()) -> None:
        super().__init__(site, [*arguments, "--hook-master-start", f"print:{_HEARS}"])
        if not {"--threads", "--gevent"}.intersection(arguments):
            self.reload_drops = 1  # see test_uwsgi_reload.py
        shop = site.directory / "shop"  # what the file calls the application
        shop.mkdir(exist_ok=True)
        (shop / "wsgi.py").write_text("from tests.servers.app.wsgi import application\n")
        (shop / "caches.py").write_text('import coopshm\ncoopshm.open("pages")\n')
        self.trigger = site.directory / "trigger"
        self.trigger.touch()

    def command(self, listener: socket.socket) -> list[str]:
        command = [str(PROGRAM), "--ini", str(EXAMPLES / "uwsgi.ini"), "--home", sys.prefix]
        if self.touched is not None:
            command += [self.touched, str(self.trigger)]
        return [*command, "--http-socket", f"fd://{listener.fileno()}"]

    def recycling(self) -> list[str]:
        return [
            *("--max-requests", "10", "--max-requests-delta", "5", "--min-worker-lifetime", "0"),
            # Else the master sleeps while they are missing. And a worker that is told to stop before it has signal
            # handlers of its own does not hear it: the master kills it after so many seconds.
            *("--forkbomb-delay", "0", "--worker-reload-mercy", "5"),
        ]

    def wait_for_workers(self) -> None:
        super().wait_for_workers()
        self.wait_for_master()

    def wait_for_master(self) -> None:
        """Workers serve before the master has handlers: until then a signal is lost on it, and so is a touch."""
        until(lambda: _HEARS in self.log().rpartition(_BEGINS)[2], self.tail)

    def impatience(self) -> list[str]:
        return ["--harakiri", "2"]

    def wait_for_impatience(self, pid: int) -> None:
        until(lambda: f"(pid: {pid}, try: 1," in self.log(), self.tail)

    def reload(self) -> None:
        if self.touched is None:
            super().reload()
        else:  # a whole second later, since uWSGI looks at no less
            later = self.trigger.stat().st_mtime + 2
            os.utime(self.trigger, (later, later))


class Unopened(Uwsgi):
    """The cache is opened by the workers."""

    recycling_keeps_cache = False

    def __init__(self, site: Site, arguments: Sequence[str] = ()) -> None:
        super().__init__(site, arguments)
        (site.directory / "shop" / "caches.py").write_text("")


class Touched(Uwsgi):
    """All workers at once, and the master."""

    touched = "--touch-reload"


class Chained(Uwsgi):
    """One worker after the other; the master goes on."""

    touched = "--touch-chain-reload"
    reload_keeps_cache = True


class Cheaper(Uwsgi):
    """A single worker, and more of them while it is busy."""

    def wait_for_workers(self) -> None:
        until(lambda: self.get("/pid").good, self.tail)
        self.wait_for_master()
