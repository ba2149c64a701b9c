"""What must hold in every server, one function a promise. Each starts servers of one kind by `make`, and asks them.

The columns of the table in docs/servers.md are these functions; modes.py says which server is held to which.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable

from tests.procs import until
from tests.servers.client import Crowd, Reply, load
from tests.servers.server import Server

#: Makes a server of the kind that is tested, not yet started.
Make = Callable[..., Server]

CLIENTS = 8
KEYS = [f"page-{n}" for n in range(6)]


def stampede(make: Make) -> None:
    """N clients ask for M keys at once: each is computed once, and several workers take part."""
    with make() as server:
        site, crowd = server.site, Crowd(server.port)
        crowd.ask("/value/pages/held")
        held = site.gate.next()
        recruit(server, crowd, "held")
        for key in KEYS:
            crowd.ask(f"/value/pages/{key}", CLIENTS)
        held.release()
        replies = crowd.replies()
        assert failed(replies) == []
        assert set(site.computations("held", *KEYS).values()) == {1}
        assert len({reply.body["served"] for reply in replies}) > 1
        assert site.gate.is_empty()


def kill(make: Make) -> None:
    """The worker that computes is killed: another one that waits takes over, and all others get their value."""
    with make() as server:
        site, crowd = server.site, Crowd(server.port)
        crowd.ask("/value/pages/held")
        victim = site.gate.next()
        recruit(server, crowd, "held")
        os.kill(victim.pid, signal.SIGKILL)
        heir = site.gate.next()
        assert heir.pid != victim.pid
        heir.release()
        replies = crowd.replies()
        died = {one["request"] for one in site.records("asks", pid=victim.pid)}
        assert died
        assert {reply.request for reply in failed(replies)} == died
        assert {reply.body["by"] for reply in replies if reply.good} == {heir.pid}
        assert site.computations("held") == {"held": 2}
        assert site.gate.is_empty()
        server.wait_for_workers()


def waiting(make: Make) -> None:
    """A worker in which requests wait for another one's computation serves others meanwhile; so does that one."""
    with make() as server:
        site, crowd = server.site, Crowd(server.port)
        crowd.ask("/value/pages/held", CLIENTS)
        held = site.gate.next()
        recruit(server, crowd, "held")
        for worker in site.asking("held"):
            until(lambda worker=worker: served_by(server) == worker)
        assert crowd.done() == 0
        held.release()
        assert failed(crowd.replies()) == []
        assert site.computations("held") == {"held": 1}


def reset(make: Make) -> None:
    """Under load, nobody gets what was computed before a reset once it is done, in-flight computations included.

    A request that was sent before the reset's reply came, and found its value in the cache, may have it on the wire by
    then. So of the steady load, those are judged that were sent later. The crowd's requests were all sent before; their
    computation is held until the reset is done.
    """
    with make() as server:
        site = server.site
        for version in (2, 3):
            held_key, crowd = f"held-{version}", Crowd(server.port)
            crowd.ask(f"/value/pages/{held_key}")
            held = site.gate.next()
            recruit(server, crowd, held_key)
            with load(server.port, paths("pages")) as seen:
                until(functools.partial(seen.answered, paths("pages")))
                done = server.post("/reset/pages")
                assert done.body["version"] == version, done
                held.release()
                again = site.gate.next()
                again.release()
                until(functools.partial(seen.answered, paths("pages"), done))
            since = seen.since(done)
            assert failed(seen.replies) == failed(crowd.replies()) == []
            assert (held.version, again.version) == (version - 1, version)
            assert {reply.body["version"] for reply in crowd.replies()} == {version}
            assert {reply.body["version"] for reply in since} == {version}
            assert site.computations(held_key) == {held_key: 2}
        assert set(site.computations(*KEYS).values()) == {3}, "one for each version"
        assert site.gate.is_empty()


def timeout(make: Make) -> None:
    """The server kills workers that do not get on: SIGABRT, then SIGKILL. Who asks then gets the value from another."""
    server = make()
    server.arguments += server.impatience()
    with server:
        site, unlucky, crowd = server.site, Crowd(server.port), Crowd(server.port)
        unlucky.ask("/value/pages/stuck")
        stuck = site.gate.next()
        unlucky.ask("/value/pages/deaf")
        deaf = site.gate.next()
        assert stuck.pid != deaf.pid
        server.wait_for_impatience(deaf.pid)
        for key in ("stuck", "deaf"):
            crowd.ask(f"/value/pages/{key}", CLIENTS)
        assert failed(crowd.replies()) == []
        assert {reply.body["by"] for reply in crowd.replies()}.isdisjoint({stuck.pid, deaf.pid})
        assert len(failed(unlucky.replies())) == 2
        assert site.computations("stuck", "deaf") == {"stuck": 2, "deaf": 2}
        until(lambda: server.processes().isdisjoint({stuck.pid, deaf.pid}))
        server.wait_for_workers()


def recycle(make: Make) -> None:
    """Workers that are replaced after some requests, under load: no request fails, and nothing is computed again."""
    server = make()
    server.arguments += server.recycling()
    with server:
        cache = "pages" if server.recycling_keeps_cache else "kept"
        with load(server.port, paths(cache)) as seen:
            until(lambda: len({reply.body["served"] for reply in seen.replies if reply.good}) >= 2 * server.workers)
        assert lost(server, seen.replies, server.recycling_drops) == []
        assert set(server.site.computations(*KEYS, cache=cache).values()) == {1}
        server.crash()  # a worker that is being replaced may not hear that it is to stop: not gunicorn's, nor uWSGI's


def reload(make: Make) -> None:
    """A graceful reload under load: all workers are new, no request fails, nothing is computed again or stale."""
    server = make()
    _replace(server, server.reload, server.reload_loads_code)


def upgrade(make: Make) -> None:
    """The same, while a new master takes over from the old one."""
    server = make()
    server.arguments += server.upgradable()
    _replace(server, server.upgrade, loads_code=True)


def _replace(server: Server, begin: Callable[[], None], loads_code: bool) -> None:
    with server:
        site = server.site
        both = [*paths("pages"), *paths("kept")]
        with load(server.port, both) as seen:
            until(lambda: seen.answered(both), seen.tell)
            old = server.met
            site.deploy(2)
            begin()
            until(lambda: server.processes().isdisjoint(old), lambda: f"{old} of {server.processes()}; {seen.tell()}")
            turned = server.get("/pid")  # what is sent from here on is answered by a new worker
            until(lambda: seen.answered(both, turned), seen.tell)
            done = server.post("/reset/pages")
            until(lambda: seen.answered(both, done), seen.tell)
        assert failed([turned, done]) == []
        assert lost(server, seen.replies, server.reload_drops * len(old)) == []
        assert failed(seen.since(turned)) == [], "no worker ends any more"
        later = [reply for reply in seen.since(turned) if reply.good]
        assert {reply.body["code"] for reply in later} == {2 if loads_code else 1}
        assert {reply.body["served"] for reply in later}.isdisjoint(old)
        pages = [reply for reply in seen.since(done) if reply.good and reply.body["cache"] == "pages"]
        assert {reply.body["version"] for reply in pages} == {2}
        assert set(site.computations(*KEYS, cache="kept").values()) == {1}
        if server.reload_keeps_cache:
            assert set(site.computations(*KEYS, cache="pages").values()) == {2}, "one for each version"
        server.wait_for_workers()


def restart(make: Make) -> None:
    """Stopped and started again: with lifetime "app" the cache is cold, with "host" it is warm."""
    for start in (1, 2):
        with make() as server:
            assert server.get("/value/pages/key").good
            assert server.get("/value/kept/key").good
            assert server.site.computations("key", cache="pages") == {"key": start}
            assert server.site.computations("key", cache="kept") == {"key": 1}


# ---- what they share


def paths(cache: str) -> list[str]:
    return [f"/value/{cache}/{key}" for key in KEYS]


def served_by(server: Server) -> int:
    """A worker that answers at once."""
    return int(server.get("/pid").body["served"])


def failed(replies: list[Reply]) -> list[Reply]:
    return [reply for reply in replies if not reply.good]


def lost(server: Server, replies: list[Reply], drops: float) -> list[Reply]:
    """Requests that failed. But if no more than `drops` were dropped before the application saw them, not those."""
    begun = {one["request"] for one in server.site.records("asks")}
    dropped = [reply for reply in failed(replies) if not reply.status and reply.request not in begun]
    return [reply for reply in failed(replies) if len(dropped) > drops or reply not in dropped]


def recruit(server: Server, crowd: Crowd, key: str, workers: int = 2, cache: str = "pages") -> None:
    """Have clients ask for a key that is being computed, until so many workers and all clients were heard."""

    def asked() -> int:
        return len(server.site.records("asks", key=key))

    while True:
        until(lambda: asked() >= len(crowd), lambda: f"{asked()} of {len(crowd)} clients have been heard")
        if len(server.site.asking(key)) >= workers:
            return
        crowd.ask(f"/value/{cache}/{key}")
