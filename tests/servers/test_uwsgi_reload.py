"""What uWSGI drops at a graceful reload, and how not to have it so: of uWSGI, not of coopshm; docs/servers.md says it.

A worker counts as busy from where it begins to read, which is a few instructions after `accept`. If HUP comes in
between, it takes itself to be idle and exits with the connection, which is reset. A library that is loaded before libc
keeps workers in that place until the test lets them go, so that what happens about once in a thousand reloads of a busy
machine happens in each.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.procs import until
from tests.servers import checks
from tests.servers.client import Crowd
from tests.servers.site import Site
from tests.servers.uwsgi import Uwsgi

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int accept4(int listener, struct sockaddr *address, socklen_t *size, int flags)
{
    int (*real)(int, struct sockaddr *, socklen_t *, int) = dlsym(RTLD_NEXT, "accept4");
    int fd = real(listener, address, size, flags);
    int held = fd < 0 ? -1 : open(getenv("ACCEPT_HELD"), O_WRONLY | O_APPEND); /* not there: nobody is held */
    if (held >= 0) {
        write(held, ".", 1);
        close(held);
        while (access(getenv("ACCEPT_HELD"), F_OK) == 0)
            usleep(1000);
    }
    return fd;
}
"""


class Holding(Uwsgi):
    """While its file exists, workers stay where they have accepted a connection, one byte in it for each."""

    def environment(self) -> dict[str, str]:
        source, library = self.site.directory / "shim.c", self.site.directory / "shim.so"
        source.write_text(SHIM)
        command = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-w", str(source), "-o", str(library), "-ldl"]
        subprocess.run(command, check=True)
        return {**super().environment(), "LD_PRELOAD": str(library), "ACCEPT_HELD": str(self.held)}

    @property
    def held(self) -> Path:
        return self.site.directory / "held"


@pytest.mark.parametrize(
    ("options", "dropped"),
    [([], 1), (["--threads", "2"], 0), (["--gevent", "100", "--gevent-monkey-patch"], 0)],
    ids=["one request at a time", "threads", "gevent"],
)
def test_a_worker_that_is_told_to_end_when_it_has_just_accepted_drops_one_connection_unless_it_may_have_several(
    site: Site, options: list[str], dropped: int
) -> None:
    server = Holding(site, options)
    assert server.reload_drops == dropped
    with server:
        old, crowd = server.met, Crowd(server.port)
        assert server.get("/value/kept/key").good
        server.held.touch()
        crowd.ask("/value/kept/key")
        until(lambda: server.held.stat().st_size == 1)
        server.reload()
        # The master writes it after it has told all of them, and a signal comes before a look at the file returns.
        until(lambda: server.log().count(" buried after ") == server.workers - 1 + dropped, server.tail)
        server.held.unlink()
        replies = crowd.replies()
        assert [reply.status for reply in checks.failed(replies)] == [0] * dropped
        assert checks.lost(server, replies, 0) == checks.failed(replies)
        assert checks.lost(server, replies, server.reload_drops) == []
        until(lambda: server.processes().isdisjoint(old), server.tail)
        server.wait_for_workers()
        assert server.get("/value/kept/key").good
        assert site.computations("key", cache="kept") == {"key": 1}
