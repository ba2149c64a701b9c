"""A host as the run has it: its crew, its sidecar, what is asked of it, and what is left of it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.net.network import Host, Switch, child_of
from tests.net.node import PORT, Sidecar
from tests.procs import WATCHDOG

from . import goods, source
from .events import Log, now

ROOT = Path(__file__).parents[2]
SECRET = "of the hosts of the soak, 32 bytes and more"
_BIN = Path(sys.executable).parent

#: `dead_after` of the peers relay, and `lease_ttl` of the engine's, in seconds.
DEAD_AFTER = 5.0

_CACHES = """
namespace = "soak"

[caches.roomy]
memory_limit = "{roomy}"
version = 1
lifetime = "host"
on_reset = "tests.soak_cluster.source:publish"

[caches.tight]
memory_limit = "{tight}"
version = 1
lifetime = "host"
hot_objects = false

[cluster]
name = "{name}"
secret_file = "{secret}"
lease_timeout = {lease_timeout}
"""


class Plan(NamedTuple):
    """What all hosts have in common."""

    directory: Path
    seed: int
    addresses: list[str]
    workers: int
    lease_timeout: float
    engine: str  # its URL; "": the nodes connect to each other
    trace: bool  # what sidecars tell each other is written down
    replicate: str  # by the engine: "all", "on_demand"


class SoakHost:
    """One host, with everything that runs there. What comes back after power was lost is another one, under another
    name, but the same node to the cluster."""

    def __init__(self, switch: Switch, number: int, plan: Plan, log: Log, life: int = 1) -> None:
        self.node = f"n{number}"
        self.name = self.node if life == 1 else f"{self.node}.{life}"
        self.directory = plan.directory / self.name
        self.directory.mkdir()
        self.host = Host(switch, number)
        self.sidecar: Sidecar | None = None
        self.nodes = list(plan.addresses)
        self._switch, self._plan, self._log, self._life = switch, plan, log, life
        self._asking = threading.Lock()
        (plan.directory / "secret").write_text(SECRET)
        (plan.directory / "secret").chmod(0o600)
        source.begin(self.directory)
        self.configure(self.nodes)
        program = [sys.executable, "-m", "tests.soak_cluster.crew", self.name, str(plan.seed), str(plan.workers)]
        with (self.directory / "crew.log").open("ab") as errors:
            self._nsenter = subprocess.Popen(
                self.host.command(program), env=self.environment(), cwd=ROOT,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
        self.crew = child_of(self._nsenter)
        self._answerer = 0

    def environment(self) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("COOPSHM_", "PYTEST"))}
        return {
            **environment,
            "COOPSHM_CONFIG": str(self.directory / "coopshm.toml"),
            "SOAK_HOST": str(self.directory),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }

    def configure(self, nodes: list[str]) -> None:
        """Write the configuration, with these addresses of nodes."""
        text = _CACHES.format(
            name=self.node,
            secret=self._plan.directory / "secret",
            lease_timeout=self._plan.lease_timeout,
            **goods.LIMITS,
        )
        if self._plan.engine:
            text += f'engine = "{self._plan.engine}"\nreplicate = "{self._plan.replicate}"\n'
            text += f"lease_ttl = {DEAD_AFTER}\n"
        else:
            text += f'listen = "0.0.0.0:{PORT}"\nnodes = {json.dumps([f"{node}:{PORT}" for node in nodes])}\n'
        new = self.directory / "coopshm.toml.new"
        new.write_text(text)
        new.replace(self.directory / "coopshm.toml")

    # ---- asked

    def ask(self, ask: str, **details: object) -> Any:
        """The crew's answer."""
        with self._asking:
            assert self._nsenter.stdin is not None
            assert self._nsenter.stdout is not None
            timer = threading.Timer(WATCHDOG, self._hangs, [ask])
            timer.start()
            try:
                self._nsenter.stdin.write(json.dumps({"ask": ask, **details}) + "\n")
                self._nsenter.stdin.flush()
                line = self._nsenter.stdout.readline()
            finally:
                timer.cancel()
            assert line, f"{self.name}: its crew did not answer to {ask!r}: {self.crew_log()}"
            return json.loads(line)

    def _hangs(self, ask: str) -> None:
        """Have whoever waits for the answer see the end of it, and the crew say where it is."""
        self._log.write("hangs", host=self.name, ask=ask, at=now())
        for pid in [self.crew, *self.children()]:
            os.kill(pid, signal.SIGUSR1)
        threading.Event().wait(0.5)
        self.host.end()

    def meet(self) -> None:
        """Return once there are segments, of which a sidecar makes none."""
        self._answerer = self.ask("pid")

    def standing(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("standing")
        return found

    def admin(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run coopshm-admin there."""
        return subprocess.run(
            self.host.command([str(_BIN / "coopshm-admin"), *arguments]),
            env=self.environment(), capture_output=True, text=True, check=False, timeout=WATCHDOG,
        )  # fmt: skip

    def crew_log(self) -> str:
        return (self.directory / "crew.log").read_text(errors="replace")

    # ---- workers

    def children(self) -> list[int]:
        """What the crew has forked, as this process sees it; the first one of them answers questions."""
        try:
            return sorted(map(int, Path(f"/proc/{self.crew}/task/{self.crew}/children").read_text().split()))
        except (FileNotFoundError, ProcessLookupError):
            return []

    @contextmanager
    def victim(self, rng: random.Random) -> Iterator[tuple[int, int] | None]:
        """A worker: its PID in the host, and a handle on it that cannot come to mean another process."""
        children = self.children() if self._answerer else []  # until it is known who that is, nobody
        for pid in rng.sample(children, len(children)):
            try:
                handle = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                inner = self._inner(pid)
                if inner is not None and inner != self._answerer:
                    yield inner, handle
                    return
            finally:
                os.close(handle)
        yield None

    def _inner(self, pid: int) -> int | None:
        """The PID in the host, if it is a child of the crew."""
        try:
            text = Path(f"/proc/{pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        return int(fields["NSpid"].split()[-1]) if int(fields["PPid"]) == self.crew else None

    # ---- the sidecar

    def start_sidecar(self) -> None:
        program = (
            [sys.executable, "-m", "tests.soak_cluster.trace"] if self._plan.trace else [str(_BIN / "coopshm-sidecar")]
        )
        self.sidecar = Sidecar(self.host, self, program)  # type: ignore[arg-type]  # a Site, as far as it goes

    def kill_sidecar(self) -> None:
        assert self.sidecar is not None
        self.sidecar.kill()
        self.sidecar = None

    def end_sidecar(self) -> None:
        """As a service manager ends it."""
        if self.sidecar is not None:
            sidecar, self.sidecar = self.sidecar, None
            sidecar.stop()

    def sidecar_log(self) -> str:
        path = self.directory / "sidecar.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # ---- its end

    def lose_power(self) -> None:
        """All of it is gone, without a word."""
        self.end()
        self._log.write("gone", host=self.name, at=now())

    def again(self) -> SoakHost:
        """The host that is switched on in its place, and has nothing in memory."""
        return SoakHost(self._switch, self.host.number, self._plan, self._log, self._life + 1)

    def until_alone(self) -> bool:
        """Return once no worker is left; False: some hang. Those have then written down where."""
        end = now() + int(WATCHDOG * 1e9)
        while len(self.children()) > 1:
            if now() > end:
                for pid in self.children()[1:]:
                    os.kill(pid, signal.SIGUSR1)
                threading.Event().wait(0.5)
                return False
            threading.Event().wait(0.02)
        return True

    def dismiss(self) -> None:
        """The crew ends."""
        assert self._nsenter.stdin is not None
        self._nsenter.stdin.close()
        assert self._nsenter.wait(WATCHDOG) == 0, self.crew_log()

    def left_in_memory(self) -> list[str]:
        """What there is in its /dev/shm."""
        return os.listdir(f"/proc/{self.host.pid}/root/dev/shm")

    def left_running(self) -> list[str]:
        """The processes in it but for its first."""
        home, found = os.readlink(f"/proc/{self.host.pid}/ns/pid"), []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(path / "ns/pid") == home and int(path.name) != self.host.pid:
                    found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                pass
        return found

    def end(self) -> None:
        """Whatever state it is in, nothing of it is left."""
        if self.sidecar is not None:
            self.sidecar.let_go()
        self.host.end()
        self._nsenter.wait(WATCHDOG)
        for pipe in (self._nsenter.stdin, self._nsenter.stdout):
            assert pipe is not None
            if not pipe.closed:
                pipe.close()
        if self.sidecar is not None:
            self.sidecar.reap()
