"""The sidecar: one process per host that connects the host's caches with those of the other hosts.

    SIGTERM, SIGINT   hand on what is not yet sent, let go of the segments, end
    SIGHUP            read the configuration again: other nodes, secrets and certificates take effect for what is
                      connected from then on, all else with the next start

It tells systemd when it is ready. If it ends or is killed, the workers go on without the cluster, at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import replace

from ..config import Config
from ..errors import ConfigError, count
from .host import SegmentHost
from .peers import Peers, PeersConfig
from .relay import Relay
from .settings import Settings, parse

__all__ = ["Sidecar", "notify"]

log = logging.getLogger("coopshm")


def notify(state: str) -> None:
    """Tell the service manager, if there is one: a datagram to $NOTIFY_SOCKET (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
        to.sendto(state.encode(), address)


class Sidecar:
    """All caches of a configuration, and their relay. Made and run on one event loop."""

    def __init__(self, config: Config, reread: Callable[[], Config]) -> None:
        """
        Args:
            reread: loads the configuration again.

        Raises:
            ConfigError: `[cluster]` is missing or wrong, or there are no caches.
        """
        self.config = config
        self.settings = parse(config)
        self._reread = reread
        self._ends = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()  # or of two in quick succession the former might have the last word
        self.relay = _relay(self.settings)
        self.hosts = {
            name: SegmentHost(config.namespace, cache, self.settings.name, self.settings.lease_timeout, self.relay)
            for name, cache in config.caches.items()
        }

    async def run(self) -> None:
        """Run until told to end, by `end` or a signal.

        Raises:
            OSError: the address cannot be listened on.
        """
        loop = asyncio.get_running_loop()
        settings = self.settings
        await self.relay.start(self.hosts)
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.end)
            loop.add_signal_handler(signal.SIGHUP, self._reload)
            await asyncio.gather(*(host.start() for host in self.hosts.values()))
            where = settings.describe()
            log.info("sidecar %s: %s; %s", settings.name, where, count(len(self.hosts), "cache", "caches"))
            notify(f"READY=1\nSTATUS=node {settings.name}, {where}")
            await self._ends.wait()
            notify("STOPPING=1")
            log.info("sidecar %s: ends", settings.name)
        finally:
            await self.relay.stop(settings.drain)
            # Last: until now workers were still served. Who waits goes on without the cluster.
            await asyncio.gather(*(host.stop() for host in self.hosts.values()))

    def end(self) -> None:
        self._ends.set()

    def _reload(self) -> None:
        task = asyncio.get_running_loop().create_task(self.reload())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def reload(self) -> None:
        """Read the configuration again, and go on with its nodes and its trust. One that is wrong changes nothing."""
        async with self._reloading:
            await self._read_again()

    async def _read_again(self) -> None:
        notify("RELOADING=1")
        try:
            config = await asyncio.to_thread(self._reread)
            settings = await asyncio.to_thread(parse, config)
        except ConfigError as exc:
            log.error("the configuration was not read again: %s", exc)
        else:
            if _lasting(settings, self.settings) != _lasting(self.settings, self.settings):
                log.warning("of the changed configuration only `nodes`, secrets and certificates take effect now")
            if set(config.caches) != set(self.config.caches):
                log.warning("caches were added or removed: that takes effect with the next start")
            nodes = f"the nodes {', '.join(settings.nodes)}" if settings.engine is None else "the secrets of its file"
            log.info("sidecar %s: goes on with %s", self.settings.name, nodes)
            self.settings = self.settings._replace(nodes=settings.nodes)
            await self._trust(settings)
            await self.relay.reload(settings.nodes)
        finally:
            notify("READY=1")

    async def _trust(self, settings: Settings) -> None:
        before, now = self.settings.trust, settings.trust
        if settings.engine is not None and self.settings.engine is not None:
            from .engine import EngineRelay

            assert isinstance(self.relay, EngineRelay)
            await self.relay.secrets((settings.engine.secret, *settings.engine.others))
        elif (before.server is None) != (now.server is None):
            log.warning("to begin or cease to trust by secret or certificates takes the next start")
        elif isinstance(self.relay, Peers):
            self.settings = self.settings._replace(trust=now)
            self.relay.trust(now)


def _lasting(settings: Settings, before: Settings) -> Settings:
    """What takes the next start, of what may be in force: without nodes and what nodes trust by."""
    engine = settings.engine
    if engine is not None and before.engine is not None:
        engine = replace(engine, secret=before.engine.secret, others=before.engine.others)
    return settings._replace(nodes=(), trust=before.trust, engine=engine)


def _relay(settings: Settings) -> Relay:
    if settings.engine is not None:
        from .engine import EngineRelay  # takes coopshm[redis], which others need not have

        return EngineRelay(settings.engine)
    return Peers(_peers(settings))


def _peers(settings: Settings) -> PeersConfig:
    return PeersConfig(
        name=settings.name,
        namespace=settings.namespace,
        listen=settings.listen,
        nodes=settings.nodes,
        trust=settings.trust,
        lease_timeout=settings.lease_timeout,
    )
