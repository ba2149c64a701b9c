"""Nodes of a cluster: hosts of our own (network.py), each with a sidecar and processes of an application.

A sidecar is `coopshm-sidecar` with a configuration file, as users run it, over TLS with a shared secret. A worker is a
process that calls what it is sent, a module-level function with arguments, and answers with what that returns. It has
two caches: "pages", which the sidecars connect, and "alone", of which they know nothing.
"""

from __future__ import annotations

import json
import os
import pickle
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, NamedTuple, ParamSpec, TypeVar, cast

import coopshm
from coopshm.resets import nodes_of

from ..common import Bench, CacheSettings, Config
from ..procs import Asked
from . import engine as engines
from .engine import Engine
from .network import Host, Switch, child_of, until, why_not

__all__ = ["ALL", "ENGINES", "ON_DEMAND", "PEERS", "Cluster", "Node", "Relay", "Worker", "available", "cluster"]

P = ParamSpec("P")
R = TypeVar("R")

_ROOT: Final = Path(__file__).parents[2]
_PORT: Final = 7411
_ENGINE_NUMBER: Final = 254
_WATCHDOG: Final = 60.0


class Relay(NamedTuple):
    """What connects the nodes."""

    name: str
    replicate: str = ""  #: of an engine

    def table(self, addresses: Sequence[str], engine: Engine | None) -> dict[str, object]:
        """Its part of the `[cluster]` table."""
        if engine is None:
            return {"listen": f"0.0.0.0:{_PORT}", "nodes": [f"{address}:{_PORT}" for address in addresses]}
        return {"engine": engine.url, "replicate": self.replicate}


PEERS: Final = Relay("peers")
ALL: Final = Relay("Redis, all", "all")
ON_DEMAND: Final = Relay("Redis, on demand", "on_demand")
ENGINES: Final = (ALL, ON_DEMAND)


def available(bench: Bench, *relays: Relay) -> list[Relay]:
    """Those of them that there can be here; a note says why the others were left out."""
    reason = why_not()
    if reason:
        bench.note(f"left out: everything: {reason}")
        return []
    without_engine = engines.why_none()
    if without_engine and any(relay.replicate for relay in relays):
        bench.note(f"left out: relays over Redis: {without_engine}")
    return [relay for relay in relays if not (relay.replicate and without_engine)]


# ---- workers


def _caller(config: Config) -> Callable[[tuple[Callable[[], object], None]], object]:
    coopshm.configure(config)
    coopshm.open("pages")
    return lambda message: message[0]()


def live() -> int:
    """In a worker: how many other nodes there are that have the cache as new as this one."""
    return sum(node.state == "live" for node in nodes_of(coopshm.open("pages")._attachment.segment))


def entries() -> int:
    """In a worker: how many entries are on its host."""
    return coopshm.open("pages").stats().entries


class Worker(Asked[tuple[Callable[[], object], None], object]):
    """A process on a host; started when made."""

    def __init__(self, host: Host, config: Config, log: Path) -> None:
        ours, theirs = socket.socketpair()
        with theirs, log.open("ab") as output:
            self._process = subprocess.Popen(
                host.command([sys.executable, "-m", "bench.cluster.worker", str(theirs.fileno())]),
                env={**os.environ, "PYTHONPATH": str(_ROOT)},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        conn: Connection[tuple[Callable[[], object], None], tuple[bool, object]] = Connection(ours.detach())
        super().__init__(conn)
        self._log = log
        conn.send_bytes(pickle.dumps(partial(_caller, config)))

    def begin(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Callable[[], R]:
        """Have it call a module-level function. What is returned waits for what that returns; to be called in turn."""
        self.send((partial(function, *args, **kwargs), None))
        return cast("Callable[[], R]", self.receive)

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The same, and wait for it."""
        return self.begin(function, *args, **kwargs)()

    def receive(self) -> object:
        """Return the next answer."""
        try:
            return super().receive()
        except (EOFError, ConnectionError):
            raise RuntimeError(f"a worker has ended: {self._log.read_text(errors='replace')[-2000:]}") from None

    def end(self) -> None:
        """Return when it has ended; its host may have."""
        self.hang_up()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()  # nsenter; what it runs ends with the host
            self._process.wait()


# ---- sidecars


class Sidecar:
    """A process of coopshm-sidecar; started when made."""

    def __init__(self, host: Host, folder: Path) -> None:
        self._log = folder / "sidecar.log"
        told = folder / "notify"
        told.unlink(missing_ok=True)
        self._ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ear.bind(str(told))
        self._ear.settimeout(0.1)
        command = [sys.executable, "-m", "coopshm.cluster.command", "--config", str(folder / "coopshm.toml")]
        program = Path(sys.executable).with_name("coopshm-sidecar")
        if program.exists():
            command[:3] = [str(program)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                host.command(command),
                env={**os.environ, "NOTIFY_SOCKET": str(told)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.pid = child_of(self._process)

    def wait_ready(self) -> None:
        until(self._is_ready, self.log, 0.0)

    def _is_ready(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"a sidecar has ended: {self.log()}")
        try:
            return b"READY=1" in self._ear.recv(1000)
        except TimeoutError:
            return False

    def log(self) -> str:
        """The end of what it has written."""
        return self._log.read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        """As a service manager does."""
        os.kill(self.pid, signal.SIGTERM)
        self._process.wait(_WATCHDOG)

    def end(self) -> None:
        """Its host has ended, or is about to."""
        self._process.wait(_WATCHDOG)
        self._ear.close()


# ---- nodes


class Node:
    """A host and what runs on it."""

    def __init__(self, host: Host, folder: Path, namespace: str, cache: CacheSettings, table: Config) -> None:
        folder.mkdir()
        self.host = host
        self.folder = folder
        self.name = f"n{host.number}"
        self.workers: list[Worker] = []
        self.sidecar: Sidecar | None = None
        self._config: Config = {"namespace": namespace, "caches": {"pages": cache, "alone": cache}}
        secret = folder / "secret"
        secret.write_text("of the hosts of a benchmark, 32 bytes and more")
        secret.chmod(0o600)
        table = {"name": self.name, "secret_file": str(secret), **table}
        lines = [f"namespace = {json.dumps(namespace)}"]
        for head, settings in (("caches.pages", cache), ("cluster", table)):
            lines += [f"[{head}]", *(f"{key} = {json.dumps(value)}" for key, value in settings.items())]
        (folder / "coopshm.toml").write_text("\n".join([*lines, ""]))

    @property
    def worker(self) -> Worker:
        """The first one."""
        return self.workers[0]

    def start_worker(self) -> None:
        self.workers.append(Worker(self.host, self._config, self.folder / "worker.log"))

    def start_sidecar(self) -> None:
        self.sidecar = Sidecar(self.host, self.folder)

    @property
    def sidecar_pid(self) -> int:
        assert self.sidecar is not None
        return self.sidecar.pid

    def end(self) -> None:
        for worker in self.workers:
            worker.hang_up()
        self.host.end()
        for worker in self.workers:
            worker.end()
        if self.sidecar is not None:
            self.sidecar.end()


class Cluster:
    """`nodes` of one relay, which know each other; `engine` if there is one."""

    def __init__(self, relay: Relay, nodes: list[Node], engine: Engine | None) -> None:
        self.relay = relay
        self.nodes = nodes
        self.engine = engine

    def start_sidecars(self) -> None:
        """All at once; return when each is ready."""
        for node in self.nodes:
            node.start_sidecar()
        for node in self.nodes:
            assert node.sidecar is not None
            node.sidecar.wait_ready()

    def wait_live(self) -> None:
        """Return once each takes all others to be live."""
        others = len(self.nodes) - 1
        for node in self.nodes:
            until(lambda node=node: node.worker.call(live) == others, self.logs)  # type: ignore[misc]

    def wait_entries(self, count: int, nodes: Sequence[Node] | None = None) -> None:
        """Return once so many entries are on each of these nodes (default: on all)."""
        for node in self.nodes if nodes is None else nodes:
            until(lambda node=node: node.worker.call(entries) >= count, self.logs)  # type: ignore[misc]

    def logs(self) -> str:
        return "\n".join(f"{node.name}: {node.sidecar.log()}" for node in self.nodes if node.sidecar is not None)


@contextmanager
def cluster(
    relay: Relay,
    size: int,
    *,
    workers: int = 1,
    memory_limit: str = "64 MiB",
    max_items: int = 200_000,
    sidecars: bool = True,
) -> Iterator[Cluster]:
    """`size` nodes, each with a sidecar (unless `sidecars` is false: then they can be started) and `workers`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="coopshm-bench-")))
        switch = Switch()
        stack.callback(switch.end)
        engine = None
        if relay.replicate:
            host = Host(switch, _ENGINE_NUMBER)
            stack.callback(host.end)
            engine = Engine(host, folder)
            stack.callback(engine.end)
            stack.callback(host.end)  # first, so that it ends
        namespace = f"bench-{secrets.token_hex(4)}"
        cache: CacheSettings = {"memory_limit": memory_limit, "max_items": max_items}
        table = relay.table([f"10.9.0.{number}" for number in range(1, size + 1)], engine)
        nodes: list[Node] = []
        made = Cluster(relay, nodes, engine)
        for number in range(1, size + 1):
            host = Host(switch, number)
            node = Node(host, folder / f"n{number}", namespace, cache, table)
            stack.callback(node.end)
            nodes.append(node)
            for _ in range(workers):
                node.start_worker()
        for node in nodes:
            for worker in node.workers:
                worker.receive()  # is ready
        if sidecars:
            made.start_sidecars()
            made.wait_live()
        yield made
