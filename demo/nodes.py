"""Nodes on one machine, each with a gunicorn and a sidecar; ground.py has what they stand on."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from demo import source
from demo.ground import Ground
from demo.gunicorn_conf import workers

PORT = 8000  # of gunicorn
SIDECAR_PORT = 7411
PATIENCE = 60.0  # seconds, for anything that is waited for
CONFIG = Path(__file__).with_name("coopshm.toml")


class NodeError(Exception):
    """A node did not do what it should; says which and what."""


class Node:
    """`number` is 1, 2, 3 ... `directory` is this node's: its source's, its configuration, its logs."""

    def __init__(
        self, directory: Path, number: int, ground: Ground, cluster: Mapping[str, object], secret: str
    ) -> None:
        """
        Args:
            cluster: of `[cluster]`, what all nodes have in common; see `direct` and `by_engine`.
        """
        self.directory = directory
        self.name = f"node{number}"
        self.address = ground.address(number)
        self._ground = ground
        self._number = number
        directory.mkdir(exist_ok=True)
        (directory / "secret").write_text(secret, encoding="ascii")
        (directory / "secret").chmod(0o600)
        mine = {
            "name": self.name,
            "namespace": "demo",
            "secret_file": str(directory / "secret"),
            "lease_timeout": 5.0,  # generous, for machines on which three nodes are two too many
            **({"listen": f"{self.address}:{SIDECAR_PORT}"} if "nodes" in cluster else {}),
        }
        table = "\n".join(f"{key} = {json.dumps(value)}" for key, value in {**mine, **cluster}.items())
        caches = CONFIG.read_text(encoding="utf-8")
        text = f'namespace = "{ground.namespace(number)}"\n{caches}\n[cluster]\n{table}\n'
        (directory / "coopshm.toml").write_text(text, encoding="utf-8")
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """With an empty memory, and the source at release 1."""
        source.publish(1, self.directory)
        with contextlib.suppress(FileNotFoundError):
            (self.directory / "booted.log").unlink()
        self._enter = self._ground.boot(self._number)
        gunicorn = ["gunicorn", "--config", "python:demo.gunicorn_conf", "--bind", f"{self.address}:{PORT}"]
        self._spawn(sys.executable, "-m", *gunicorn, "demo.app:application")
        until(self._booted, f"{self.name}: gunicorn serves; it says {self.log()}")
        self._spawn(str(Path(sys.executable).with_name("coopshm-sidecar")))

    def kill(self) -> None:
        """All of it, as when power is lost: it says no goodbye. Can be done twice."""
        self._ground.cut(self._number)
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._processes = []
        self._ground.end(self._number)

    def computations(self) -> list[source.Computation]:
        log = self.directory / "computations.log"
        return source.computations(self.directory) if log.exists() else []

    def live(self) -> int:
        """How many other nodes its sidecar is connected with that have the cache as new as this one."""
        found = self._admin("cluster", "pages")["nodes"]
        assert isinstance(found, list)
        return sum(node["state"] == "live" for node in found)

    def entries(self) -> int:
        """How many pages its cache holds."""
        found = self._admin("stats", "pages")["entries"]
        assert isinstance(found, int)
        return found

    def log(self) -> str:
        path = self.directory / "node.log"
        return path.read_text(encoding="utf-8", errors="replace")[-4000:] if path.exists() else ""

    # ---- how

    def _environment(self) -> dict[str, str]:
        mine = {"COOPSHM_CONFIG": str(self.directory / "coopshm.toml"), "DEMO_DIR": str(self.directory)}
        # Who enters other mounts leaves the current directory.
        return {**os.environ, **mine, "DEMO_CACHE": "coopshm", "PYTHONPATH": str(CONFIG.parents[1])}

    def _booted(self) -> bool:
        booted = self.directory / "booted.log"
        return booted.exists() and len(booted.read_text(encoding="ascii").splitlines()) >= workers

    def _spawn(self, *command: str) -> None:
        with (self.directory / "node.log").open("ab") as log:
            process = subprocess.Popen(
                [*self._enter, *command],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            [*self._enter, *command], env=self._environment(), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise NodeError(f"{self.name}: {' '.join(command)}: {done.stderr}")
        return done.stdout

    def _admin(self, *arguments: str) -> dict[str, object]:
        command = Path(sys.executable).with_name("coopshm-admin")
        found = json.loads(self._run(str(command), *arguments, "--json"))
        assert isinstance(found, dict)
        return found


def until(condition: Callable[[], bool], what: str) -> None:
    """Return once it holds; NodeError if it does not come to that."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise NodeError(f"it did not come to that: {what}")
        time.sleep(0.02)


def direct(ground: Ground, nodes: int) -> dict[str, object]:
    """[cluster] of nodes that know each other."""
    return {"nodes": [f"{ground.address(number)}:{SIDECAR_PORT}" for number in range(1, nodes + 1)]}


def by_engine(url: str) -> dict[str, object]:
    """[cluster] of nodes that know an engine. Each takes all entries, as those that know each other do."""
    return {"engine": url, "replicate": "all"}
