"""Somebody puts the keys of a cache back to what they were, while the server and all nodes go on: the numbers of
messages come twice, and what they say must not be missed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.contract import Fn, until
from tests.cluster.engine_world import Nodes, trial
from tests.cluster.engines import RedisServer, needs_redis

pytestmark = needs_redis


class Backup:
    """All keys, as they are now."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        with server.client() as client:
            self._kept = {key: client.dump(key) for key in server.all_keys()}

    def restore(self) -> None:
        """In one step."""
        with self._server.client() as client, client.pipeline(transaction=True) as steps:
            steps.flushall()
            for key, kept in self._kept.items():
                steps.restore(key, 0, kept)
            steps.execute()


def seq(server: RedisServer) -> int:
    (head,) = [key for key in server.all_keys() if key.endswith(b":head")]
    return int(server.command("HGET", head, "seq"))


@pytest.mark.parametrize("heartbeat", [0.2, 600.0])
@pytest.mark.parametrize("reset", [False, True], ids=["entries", "a reset"])
def test_what_is_said_under_numbers_that_come_twice_is_not_missed(
    tmp_path: Path, heartbeat: float, reset: bool
) -> None:
    """Found by the signs of life, or, where these are far apart, in the log itself when it goes beyond."""

    async def test(nodes: Nodes) -> None:
        hosts = await nodes.ready(3)
        await hosts[0].cached(b"before", Fn("before"))
        await nodes.same_entries()
        backup = Backup(server)
        started = seq(server)
        if reset:
            await hosts[1].reset(b"2")
            await nodes.agreed()
        for number in range(20):
            await hosts[number % 3].cached(b"%d" % number, Fn(number))
        await nodes.same_entries()
        await until(lambda: seq(server) >= started + 20)
        ended, stamp = seq(server), hosts[0].stamp
        backup.restore()
        more = 0
        while seq(server) <= ended + 5:  # all numbers that were used are used again, and some
            await hosts[0].cached(b"again %d" % more, Fn(more))
            more += 1
            if reset and heartbeat > 1:
                await hosts[0].reset(b"3")  # puts its stamp to the head, without which nothing is stored there
                stamp = hosts[0].stamp
        assert await nodes.agreed() == stamp
        found = await nodes.same_entries()
        if not reset:
            assert {b"%d" % number for number in range(20)} | {b"again %d" % n for n in range(more)} <= found
        assert nodes.counted("gaps") + nodes.counted("epochs") > 0
        # The engine has again what it had lost: a newcomer finds all of it.
        nodes.host()
        await nodes.start(3)
        await nodes.connected()
        assert await nodes.same_entries() >= found
        await nodes.compute_once(b"a", b"b")

    with RedisServer(tmp_path) as server:
        trial(Nodes(server.url, heartbeat=heartbeat, away_after=3 * heartbeat), test)


def test_numbers_that_come_twice_up_to_where_they_were_are_seen_with_the_next_sign_of_life(tmp_path: Path) -> None:
    """Nothing more is said: there is no higher number that shows it."""

    async def test(nodes: Nodes) -> None:
        hosts = await nodes.ready(3)
        backup = Backup(server)
        for number in range(10):
            await hosts[0].cached(b"%d" % number, Fn(number))
        await nodes.same_entries()
        backup.restore()
        for number in range(10):
            await hosts[1].cached(b"other %d" % number, Fn(number))
        assert len(await nodes.same_entries()) >= 20

    with RedisServer(tmp_path) as server:
        trial(Nodes(server.url), test)
