"""What is uWSGI's own, beside the table: see test_modes.py."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from tests.procs import until
from tests.servers import checks
from tests.servers.client import Crowd
from tests.servers.site import Site
from tests.servers.uwsgi import PROGRAM, Cheaper, Uwsgi

#: Before the application of the table.
ANSWERS = """
import json
import coopshm
from tests.servers.app.wsgi import application as others

def application(environ, start_response):
    if environ["PATH_INFO"] not in answers:
        return others(environ, start_response)
    body = json.dumps(answers[environ["PATH_INFO"]]()).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
"""


def application(site: Site, code: str) -> None:
    """Have the server answer to more: `code` defines `answers`, functions by path."""
    (site.directory / "shop" / "wsgi.py").write_text(ANSWERS + code)


# ---- forks

HOOKS = """
import os
from coopshm.forks import forks

hooks = []
os.register_at_fork(after_in_child=lambda: hooks.append(os.getpid()))
answers = {"/forks": lambda: {"hooks": len(hooks), "forks": forks()}}
"""


@pytest.mark.parametrize(("options", "hooks"), [([], 0), (["--py-call-uwsgi-fork-hooks"], 1)])
def test_it_forks_without_pythons_hooks_unless_told_to_and_coopshm_notices_either_way(
    site: Site, options: list[str], hooks: int
) -> None:
    server = Uwsgi(site, options)
    application(site, HOOKS)
    with server:
        for _ in range(3):
            assert server.get("/forks").body == {"hooks": hooks, "forks": 1}
        assert server.get("/value/pages/key").good
        server.wait_for_workers()
        crowd = Crowd(server.port)
        crowd.ask("/value/pages/held")
        held = site.gate.next()
        checks.recruit(server, crowd, "held")
        assert site.observe().processes == 1 + len(site.asking("held") | site.asking("key"))
        held.release()
        assert checks.failed(crowd.replies()) == []


# ---- threads of the application

BACKGROUND = """
import threading
from tests.servers.app.wsgi import compute

def begin():
    ask = lambda: coopshm.cached("pages", "held", lambda: compute("pages", "held"))
    threading.Thread(target=ask, daemon=True).start()
    return {}

answers = {"/begin": begin}
"""


def test_what_a_thread_computes_goes_on_while_its_worker_has_no_request(site: Site) -> None:
    server, crowd = Uwsgi(site), None
    application(site, BACKGROUND)
    with server:
        crowd = Crowd(server.port)
        assert server.get("/begin").good
        held = site.gate.next()
        crowd.ask("/value/pages/held", checks.CLIENTS)
        until(lambda: len(site.records("asks", key="held")) >= 1)
        held.release()
        replies = crowd.replies()
        assert checks.failed(replies) == []
        assert {reply.body["by"] for reply in replies} == {held.pid}


# ---- ends

DOOMED = """
import os
import uwsgi
from tests.servers.app import source

begin = source.begin

def doomed(cache, key):
    value = begin(cache, key)
    if len([line for line in (source.DIRECTORY / "records").open() if '"computes"' in line]) == 1:
        uwsgi.set_user_harakiri(1)
    return value

source.begin = doomed
answers = {}
"""


def test_who_waits_for_a_worker_that_harakiri_kills_takes_over(site: Site) -> None:
    server = Uwsgi(site)
    application(site, DOOMED)
    with server:
        crowd = Crowd(server.port)
        crowd.ask("/value/pages/held")
        victim = site.gate.next()
        checks.recruit(server, crowd, "held")
        heir = site.gate.next()
        heir.release()
        replies = crowd.replies()
        died = {one["request"] for one in site.records("asks", pid=victim.pid)}
        assert {reply.request for reply in checks.failed(replies)} == died
        assert {reply.body["by"] for reply in replies if reply.good} == {heir.pid}
        assert site.computations("held") == {"held": 2}
        assert "HARAKIRI" in server.log()
        server.wait_for_workers()


class Interrupted(Uwsgi):
    def check_memory(self) -> None:
        """The flight is cleaned by who next asks, since nobody is left who waits for it."""
        stats = self.site.observe("kept")
        assert (stats.processes, stats.flights, stats.waiters, stats.pinned_chunks) == (0, 1, 0, 0)
        assert self.site.damage("kept") == []


@pytest.mark.parametrize("options", [[], ["--threads", "32"], ["--gevent", "100", "--gevent-monkey-patch"]])
def test_stopped_while_it_computes_and_waits_it_leaves_what_the_next_start_cleans(
    site: Site, options: list[str]
) -> None:
    """Workers end where the signal finds them: by exit(), within the handler."""
    with Interrupted(site, options) as server:
        crowd = Crowd(server.port)
        crowd.ask("/value/kept/held")
        site.gate.next()
        checks.recruit(server, crowd, "held", server.workers, "kept")
    assert len(checks.failed(crowd.replies())) == len(crowd)
    with Uwsgi(site, options) as server:
        crowd = Crowd(server.port)
        crowd.ask("/value/kept/held")
        while (held := site.gate.next()).pid not in server.processes():
            pass  # it waited, and took over for the moment by which the owner died before it
        held.release()
        assert checks.failed(crowd.replies()) == []


def test_workers_that_cheaper_ends_leave_the_values_and_nothing_else(site: Site) -> None:
    with Cheaper(site, ["--cheaper", "1", "--cheaper-overload", "1"]) as server:
        crowd = Crowd(server.port)
        crowd.ask("/value/pages/held")
        held = site.gate.next()
        checks.recruit(server, crowd, "held", workers=server.workers)
        held.release()
        assert checks.failed(crowd.replies()) == []
        until(lambda: len(server.processes()) == 2, server.tail)
        assert server.get("/value/pages/held").body["by"] == held.pid
        stats = site.observe()
        assert (stats.processes, stats.flights, stats.waiters, stats.computations) == (2, 0, 0, 1)


def test_a_reload_with_another_version_in_the_configuration_resets_the_cache(site: Site) -> None:
    """The master starts itself anew, and reads it again."""
    with Uwsgi(site) as server:
        assert server.get("/value/kept/key").good
        old = server.processes() - {server.master}
        site.configure(version=2)
        server.reload()
        until(lambda: server.processes().isdisjoint(old))
        server.wait_for_workers()
        assert server.get("/value/kept/key").good
        assert site.observe("kept").version == 2
        assert site.computations("key", cache="kept") == {"key": 2}


# ---- processes beside the workers

MULE = """
import coopshm, uwsgi
while True:
    uwsgi.mule_get_msg()
    coopshm.reset("pages")
"""
SENDER = """
import uwsgi
answers = {"/send": lambda: {"sent": uwsgi.mule_msg(b"reset")}}
"""


def test_a_mule_resets_what_the_workers_serve(site: Site) -> None:
    mule = site.directory / "mule.py"
    mule.write_text(MULE)
    server = Uwsgi(site, ["--mule=" + str(mule)])
    application(site, SENDER)
    with server:
        assert server.get("/value/pages/key").body["version"] == 1
        assert server.get("/send").body == {"sent": True}
        until(lambda: site.observe().version == 2)
        assert {server.get("/value/pages/key").body["version"] for _ in range(6)} == {2}
        assert site.computations("key") == {"key": 2}


# ---- interpreters


class TwoSites(Uwsgi):
    """Without the file, whose single-interpreter would have to be taken back."""

    workers = 1

    def command(self, listener: socket.socket) -> list[str]:
        for name in ("one", "two"):
            Path(self.site.directory, "shop", f"{name}.py").write_text(
                "import coopshm\nfrom tests.servers.app.wsgi import application\n"
            )
        return [
            *(str(PROGRAM), "--home", sys.prefix, "--master", "--die-on-term", "--manage-script-name"),
            *("--http-socket", f"fd://{listener.fileno()}"),
            *("--mount", "/one=shop.one:application", "--mount", "/two=shop.two:application"),
        ]


@pytest.mark.parametrize("options", [[], ["--single-interpreter"]])
def test_a_second_site_needs_single_interpreter_and_is_told_so(site: Site, options: list[str]) -> None:
    with TwoSites(site, options) as server:
        assert server.get("/one/value/pages/key").good
        said = server.log()
        assert ("this is a sub-interpreter: set single-interpreter = true" in said) == (not options)
        assert ("unable to load app 1 (mountpoint='/two')" in said) == (not options)
        if options:
            assert server.get("/two/value/pages/key").good
        assert site.computations("key") == {"key": 1}
