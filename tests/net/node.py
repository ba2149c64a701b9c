"""A host with gunicorn and a sidecar, both started as a user starts them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.net.network import Host, Switch, child_of
from tests.procs import until
from tests.servers.client import Reply, ask
from tests.servers.gate import WATCHDOG, Gate
from tests.servers.gunicorn import Gthread
from tests.servers.site import Site

PORT = 7411

_SIDECAR = str(Path(sys.executable).with_name("coopshm-sidecar"))

_CONFIG = """
namespace = "net"

[caches.pages]
memory_limit = "16 MiB"
version = 1
lifetime = "host"
on_reset = "tests.servers.app.source:publish"

[cluster]
name = "{name}"
{others}
secret_file = "{secret}"
lease_timeout = 4.0  # beyond it workers compute without the cluster, so it is long for machines that are slow
"""


def peers(addresses: Sequence[str]) -> str:
    """Of [cluster]: the nodes are connected with each other."""
    return f'listen = "0.0.0.0:{PORT}"\nnodes = {json.dumps([f"{address}:{PORT}" for address in addresses])}'


def by_engine(url: str, replicate: str) -> str:
    """Of [cluster]: the nodes are connected with an engine."""
    return f'engine = "{url}"\nreplicate = "{replicate}"\nlease_ttl = 3.0'


class NodeSite(Site):
    """The files of one node."""

    def __init__(self, directory: Path, name: str, others: str, secret: str, gate: Gate) -> None:
        """
        Args:
            others: what [cluster] says of how this node finds the others.
        """
        directory.mkdir(exist_ok=True)
        self.name = name
        self.others = others
        self.secret = secret
        super().__init__(directory, "net", gate)

    def configure(self, version: int = 1, extra: str = "") -> None:
        secret = self.directory / "secret"
        secret.write_text(self.secret)
        secret.chmod(0o600)
        text = _CONFIG.format(name=self.name, others=self.others, secret=secret)
        (self.directory / "coopshm.toml").write_text(text)

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "NET_NODE": self.name}

    def version_of_source(self) -> object:
        """What on_reset has last brought it to."""
        return json.loads((self.directory / "version").read_text())


class Web(Gthread):
    """gunicorn on a host; nobody else can reach its port."""

    workers = 2
    application = "tests.net.web:application"

    def __init__(self, host: Host, site: Site) -> None:
        super().__init__(site, ["--preload", "--workers", str(self.workers), "--threads", "24"])
        self._host = host

    def command(self, listener: socket.socket) -> list[str]:
        return self._host.command(super().command(listener))

    def bind(self) -> socket.socket:
        with self._host.network():
            return super().bind()

    def find_port(self) -> None:
        self.master = child_of(self._process)  # of nsenter's

    def get(self, path: str) -> Reply:
        with self._host.network():
            return ask(self.port, path)

    def post(self, path: str) -> Reply:
        with self._host.network():
            return ask(self.port, path, "POST")

    def wait_for_workers(self) -> None:
        seen: set[int] = set()
        until(lambda: seen.add(self.get("/pid").body.get("served", 0)) or len(seen - {0}) >= self.workers, self.log)

    def worker_pids(self) -> list[int]:
        return [pid for pid in self.processes() if pid not in (self.master, self._process.pid)]

    def check_memory(self) -> None:
        """Is for the node: the segment stays (lifetime = "host"), and goes with the host."""


class Sidecar:
    """One process of `coopshm-sidecar`; started when made, and ready."""

    def __init__(self, host: Host, site: Site, program: Sequence[str] = (_SIDECAR,)) -> None:
        self._log = site.directory / "sidecar.log"
        told = site.directory / "notify"
        told.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear, self._log.open("ab") as log:
            ear.bind(str(told))
            ear.settimeout(0.05)
            self._process = subprocess.Popen(
                host.command(program),
                env={**site.environment(), "NOTIFY_SOCKET": str(told)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            self.pid = child_of(self._process)
            until(lambda: self._is_ready(ear), self.log)

    def _is_ready(self, ear: socket.socket) -> bool:
        assert self._process.poll() is None, f"the sidecar has ended: {self.log()}"
        try:
            return b"READY=1" in ear.recv(1000)
        except TimeoutError:
            return False

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)
        if number == signal.SIGCONT:
            os.kill(self._process.pid, number)  # nsenter stops itself when its child stops

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self._process.wait(WATCHDOG)

    def stop(self) -> None:
        """As a service manager does."""
        self.signal(signal.SIGTERM)
        assert self._process.wait(WATCHDOG) == 0, self.log()

    def let_go(self) -> None:
        """Its host is about to end, and cannot while nsenter is stopped, which is the one that reaps."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)

    def reap(self) -> None:
        """Its host has ended."""
        self._process.wait(WATCHDOG)


class Node:
    """A host and what runs on it."""

    def __init__(self, switch: Switch, directory: Path, number: int, others: str, secret: str) -> None:
        self.name = f"n{number}"
        self.host = Host(switch, number)
        self._gate = Gate()
        with self.host.network():
            self.gate = self._gate.__enter__()
        self.site = NodeSite(directory, self.name, others, secret, self.gate)
        self.web = Web(self.host, self.site)
        self.sidecar: Sidecar | None = None
        self._webbed = self._gone = False

    def start(self, *, sidecar: bool = True) -> None:
        """gunicorn first, as the sidecar never makes a segment."""
        self.web.__enter__()
        self._webbed = True
        if sidecar:
            self.start_sidecar()

    def start_sidecar(self) -> Sidecar:
        self.sidecar = Sidecar(self.host, self.site)
        return self.sidecar

    # ---- asked

    def get(self, path: str) -> dict[str, Any]:
        reply = self.web.get(path)
        assert reply.good, (self.name, reply)
        return reply.body

    def value(self, key: str) -> dict[str, Any]:
        return self.get(f"/value/{key}")

    def peek(self, key: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.get(f"/peek/{key}")["value"]
        return found

    def reset(self) -> Reply:
        reply = self.web.post("/reset")
        assert reply.good, (self.name, reply)
        return reply

    def standing(self) -> dict[str, Any]:
        return self.get("/standing")

    def stamp(self) -> tuple[int, str, str]:
        counter, version, origin = self.standing()["stamp"]
        return counter, version, origin

    def live(self) -> set[str]:
        """The nodes that it takes to be live, with their copy of the cache as new as its own."""
        return {name for name, state in self.standing()["nodes"].items() if state == "live"}

    def computed(self, key: str) -> int:
        """How often it has computed a key."""
        return self.site.computations(key)[key]

    # ---- its end

    def stop(self) -> None:
        """As an operator stops it; and everything is found in order first."""
        if self.sidecar is not None:
            self.sidecar.stop()
            self.sidecar = None
        until(lambda: self.get("/sound")["left"] == [0, 0, 0], lambda: str(self.get("/sound")))
        assert self.get("/sound")["damage"] == []
        self.web.stop()

    def vanish(self) -> None:
        """All at once, as when power is lost. Can be done to what has ended."""
        if self._gone:
            return
        self._gone = True
        if self.sidecar is not None:
            self.sidecar.let_go()
        self.host.end()
        if self._webbed:
            self.web._process.wait(WATCHDOG)
        if self.sidecar is not None:
            self.sidecar.reap()
        self._gate.__exit__(None, None, None)

    def logs(self) -> str:
        """What its processes have written."""
        found = []
        for name in ("server.log", "sidecar.log"):
            path = self.site.directory / name
            if path.exists():
                found.append(f"---- {self.name} {name}\n{path.read_text(errors='replace')}")
        return "\n".join(found)
