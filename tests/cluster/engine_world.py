"""Nodes in memory that meet in a real engine: what the tests of its failures have."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from coopshm.cluster.engine import EngineConfig, EngineRelay
from coopshm.cluster.engine.address import parse
from coopshm.cluster.relay import Relay
from tests.cluster.contract import LONG, Cluster, Fn, until
from tests.cluster.loops import run
from tests.cluster.memory import FnError, MemoryHost

SECRET = b"a secret of 32 bytes or more, for tests"


class Nodes(Cluster):
    """Any number of them, which wait for an answer of the engine for `silence`. Other settings are EngineConfig's."""

    def __init__(self, url: str, lease_timeout: float = LONG, silence: float = LONG, **settings: Any) -> None:
        super().__init__(lease_timeout, silence)
        self.settings: dict[str, Any] = {
            "namespace": "test",
            "address": parse(url) if url else None,
            "secret": SECRET,
            "replicate": "all",
            "lease_timeout": lease_timeout,
            "lease_ttl": 10.0,
            "timeout": silence,
            "bulk_timeout": max(silence, 10.0),
            "heartbeat": 0.2,
            "away_after": 3.0,
            **settings,
        }

    async def make_relay(self, index: int) -> Relay:
        return EngineRelay(EngineConfig(name=self.hosts[index].node, **self.settings))

    def isolate(self, index: int, how: str) -> None:
        assert not how, "these have one engine, which fails for all"

    def counted(self, what: str) -> int:
        """By all relays together."""
        return sum(relay.status().counters[what] for relay in self.relays if relay is not None)

    async def alone(self) -> None:
        """Return once all have found the engine lost."""
        await until(lambda: not any(self.sees(index) for index in range(len(self.hosts))))

    async def together(self) -> None:
        """Return once all are where they should be: connected, at one stamp, and what one stores reaches all."""
        await self.connected()
        await self.agreed()
        await self.caught_up()

    async def compute_once(self, *keys: bytes) -> None:
        """Asked on all nodes at the same time, each of these is computed on one of them."""
        await self.connected()
        links = self.links()
        for key in keys:
            fn = Fn(key.decode())
            values = await asyncio.gather(*(host.cached(key, fn) for host in self.hosts for _ in range(2)))
            assert set(values) == {key.decode()}
            assert self.once(fn, links), key


def trial(nodes: Nodes, test: Callable[[Nodes], Awaitable[None]]) -> None:
    """Run a test; whatever it does, nobody may have got or kept what is older than a reset."""

    async def main() -> None:
        try:
            await test(nodes)
            nodes.check()
        finally:
            await nodes.close()

    run(main())


class Load:
    """Callers on all nodes, all the time: a context manager."""

    KEYS = 20

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._ended = False
        self.calls: dict[str, int] = {}

    async def _call(self, host: MemoryHost, number: int) -> None:
        while not self._ended:
            fn = Fn(number)
            if number % 7 == 0:
                fn.result = FnError("sometimes")
            try:
                await host.cached(b"load %d" % (number % self.KEYS), fn)
            except FnError:
                pass
            number += 1
            self.calls[host.node] = self.calls.get(host.node, 0) + 1
            await asyncio.sleep(0)

    async def goes_on(self, calls: int = 50) -> None:
        """Return once the callers of each node have had so many more answers."""
        goals = {host.node: self.calls.get(host.node, 0) + calls for host in self._nodes.hosts}
        await until(lambda: all(self.calls.get(node, 0) >= goal for node, goal in goals.items()))

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.ensure_future(self._call(host, n)) for host in self._nodes.hosts for n in range(2)]
        return self

    async def __aexit__(self, *of: object) -> None:
        self._ended = True
        if of[0] is not None:
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=of[0] is not None)
