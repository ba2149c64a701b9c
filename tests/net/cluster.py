"""Several nodes: what a test has."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.engines import RedisServer, needs_redis
from tests.net.network import Host, Switch
from tests.net.node import Node, by_engine, peers
from tests.procs import until
from tests.servers.gate import WATCHDOG

PEERS = "peers"
#: For tests of what holds however the nodes are connected.
relays = pytest.mark.parametrize("relay", [PEERS, pytest.param("all", marks=needs_redis, id="engine")])

SECRET = "of the hosts of the tests, 32 bytes and more"


class NetCluster:
    """`nodes` by position: node i has the number i + 1, and the name n(i + 1). With an engine, `engine` runs on
    `engine_host`, which nobody else is on."""

    def __init__(self, directory: Path, size: int, relay: str) -> None:
        self._directory = directory
        self._switch = Switch()
        self._ends = ExitStack()
        self._ends.callback(self._switch.end)
        self.nodes: list[Node] = []
        self._pool = ThreadPoolExecutor(64)
        self.engine_host: Host | None = None
        if relay == PEERS:
            self._others = peers([f"10.9.0.{number}" for number in range(1, size + 1)])
            return
        try:
            host = self.engine_host = Host(self._switch, 200)
            self._ends.callback(host.end)
            self.engine = RedisServer(directory, address=host.address, within=host.within())
            self._ends.enter_context(self.engine)
        except BaseException:
            self._ends.close()
            raise
        self._others = by_engine(self.engine.url, relay)

    def make(self, number: int, secret: str = SECRET) -> Node:
        """A node that does not run yet. There may have been one of that number, which has vanished."""
        node = Node(self._switch, self._directory / f"n{number}", number, self._others, secret)
        self.nodes[number - 1 : number] = [node]
        return node

    def start(self, *nodes: Node, sidecar: bool = True) -> None:
        """All at once."""
        for done in [self._pool.submit(node.start, sidecar=sidecar) for node in nodes]:
            done.result(WATCHDOG)

    def at_once(self, nodes: Sequence[Node], path: str, callers: int = 1) -> list[Future[dict[str, Any]]]:
        """So many callers on each node ask for one thing."""
        return [self._pool.submit(node.get, path) for node in nodes for _ in range(callers)]

    def until_live(self, *nodes: Node) -> None:
        """Return once each of these nodes takes all others of them to be live, and nobody else."""
        names = {node.name for node in nodes}
        for node in nodes:
            until(lambda node=node: node.live() == names - {node.name}, lambda node=node: str(node.standing()))

    def until_one_stamp(self, *nodes: Node) -> tuple[int, str, str]:
        """Return once all of these nodes stand at one stamp; that stamp."""
        until(lambda: len({node.stamp() for node in nodes}) == 1, lambda: str([node.stamp() for node in nodes]))
        return nodes[0].stamp()

    def computed(self, key: str) -> dict[str, int]:
        """How often each node has computed a key; nodes that have not are left out."""
        counts = {node.name: node.computed(key) for node in self.nodes}
        return {name: count for name, count in counts.items() if count}

    def end(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._ends as stack:  # all of them, whatever goes wrong with one
            for node in self.nodes:
                stack.callback(node.vanish)


@contextmanager
def cluster(directory: Path, size: int, running: int | None = None, relay: str = PEERS) -> Iterator[NetCluster]:
    """`size` nodes, of which the first `running` (default: all) run and know each other.

    Args:
        relay: PEERS, or how values get from node to node by way of an engine: "all" or "on_demand".
    """
    made = NetCluster(directory, size, relay)
    try:
        for number in range(1, size + 1):
            made.make(number)
        first = made.nodes[:running]
        made.start(*first)
        made.until_live(*first)
        yield made
    except BaseException:
        for node in made.nodes:
            sys.stderr.write(node.logs())
        raise
    finally:
        made.end()
