"""What must hold in every server, one function a promise. Each starts servers of one kind by `make`, and asks them.

The columns of the table in docs/servers.md are these functions; modes.py says which server is held to which.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from tests.servers.client import Crowd, Reply
from tests.servers.server import Server
from tests.servers.site import until

#: Makes a server of the kind that is tested, not yet started. What it is given is added to the command.
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


def restart(make: Make) -> None:
    """Stopped and started again: with lifetime "app" the cache is cold, with "host" it is warm."""
    for start in (1, 2):
        with make() as server:
            assert server.get("/value/pages/key").good
            assert server.get("/value/kept/key").good
            assert server.site.computations("key", cache="pages") == {"key": start}
            assert server.site.computations("key", cache="kept") == {"key": 1}


# ---- what they share


def failed(replies: list[Reply]) -> list[Reply]:
    return [reply for reply in replies if not reply.good]


def recruit(server: Server, crowd: Crowd, key: str, workers: int = 2) -> None:
    """Have clients ask for a key that is being computed, until so many workers and all clients were heard."""

    def asked() -> int:
        return len(server.site.records("asks", key=key))

    while True:
        until(lambda: asked() >= len(crowd), lambda: f"{asked()} of {len(crowd)} clients have been heard")
        if len(server.site.asking(key)) >= workers:
            return
        crowd.ask(f"/value/pages/{key}")
