"""Nodes on one machine: each has a network and a /dev/shm of its own (namespaces), a gunicorn and a sidecar.

All of it, the switch between them included, is in namespaces of this demonstration, whose first process it is: `enter`
starts it anew in there. When that process ends, for whatever reason, the kernel ends all others in there and takes the
rest away. Without root it is done in a user namespace, where that is allowed.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from demo import source
from demo.gunicorn_conf import workers

PORT = 8000  # of gunicorn
SIDECAR_PORT = 7411
PATIENCE = 60.0  # seconds, for anything that is waited for
CONFIG = Path(__file__).with_name("coopshm.toml")

_INSIDE = "DEMO_CLUSTER_INSIDE"
_UNSHARE = ["unshare", *([] if os.geteuid() == 0 else ["-r"]), "-n", "-m", "-p", "-f", "--mount-proc", "--kill-child"]
_SWITCH = "ip link add demo type bridge && ip address add 10.9.1.254/24 dev demo && ip link set demo up"
_BOOT = "mount -t tmpfs -o mode=1777 tmpfs /dev/shm && ip link set lo up && echo up && exec cat"


class NodeError(Exception):
    """A node did not do what it should; says which and what."""


def enter(arguments: list[str]) -> int | None:
    """Run this program again in namespaces of its own; its status. None: that is where this process is already, and
    $DEMO_DIR is a directory of its own."""
    if _INSIDE in os.environ:
        subprocess.run(["sh", "-c", _SWITCH], check=True)
        return None
    can = subprocess.run([*_UNSHARE, "sh", "-c", _SWITCH], capture_output=True, text=True, check=False)
    if can.returncode:
        print(f"nodes on one machine need namespaces (as root, or user namespaces) and ip: {can.stderr.strip()}")
        return 1
    with tempfile.TemporaryDirectory(prefix="coopshm-demo-") as directory:
        environment = {**os.environ, _INSIDE: "1", "DEMO_DIR": directory}
        # If this process is told to end, `run` kills unshare, and the kernel all that is in there.
        return subprocess.run([*_UNSHARE, *arguments], env=environment, check=False).returncode


class Node:
    """`number` is 1, 2, 3 ... `directory` is this node's: its source's, its configuration, its logs."""

    def __init__(self, directory: Path, number: int, nodes: int, secret: str) -> None:
        self.directory = directory
        self.name = f"node{number}"
        self.address = f"10.9.1.{number}"
        self._number = number
        directory.mkdir(exist_ok=True)
        (directory / "secret").write_text(secret, encoding="ascii")
        (directory / "secret").chmod(0o600)
        cluster = {
            "name": self.name,
            "listen": f"{self.address}:{SIDECAR_PORT}",
            "nodes": [f"10.9.1.{other}:{SIDECAR_PORT}" for other in range(1, nodes + 1)],
            "secret_file": str(directory / "secret"),
            "lease_timeout": 5.0,  # generous, for machines on which three nodes are two too many
        }
        table = "\n".join(f"{key} = {json.dumps(value)}" for key, value in cluster.items())
        text = f'namespace = "demo"\n{CONFIG.read_text(encoding="utf-8")}\n[cluster]\n{table}\n'
        (directory / "coopshm.toml").write_text(text, encoding="utf-8")
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """With an empty /dev/shm, and the source at release 1."""
        source.publish(1, self.directory)
        with contextlib.suppress(FileNotFoundError):
            (self.directory / "booted.log").unlink()
        keeper = subprocess.Popen(
            ["unshare", "-n", "-m", "sh", "-c", _BOOT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert keeper.stdout is not None
        if keeper.stdout.readline() != b"up\n":
            raise NodeError(f"{self.name}: its namespaces could not be made")
        port = f"p{self._number}"
        _ip(f"link add {port} type veth peer name eth0 netns {keeper.pid}", f"link set {port} master demo up")
        self._processes.append(keeper)
        self._enter = ["nsenter", f"--net=/proc/{keeper.pid}/ns/net", f"--mount=/proc/{keeper.pid}/ns/mnt"]
        self._run("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        self._run("ip", "link", "set", "eth0", "up")
        gunicorn = ["gunicorn", "--config", "python:demo.gunicorn_conf", "--bind", f"{self.address}:{PORT}"]
        self._spawn(sys.executable, "-m", *gunicorn, "demo.app:application")
        until(self._booted, f"{self.name}: gunicorn serves; it says {self.log()}")
        self._spawn(str(Path(sys.executable).with_name("coopshm-sidecar")))

    def kill(self) -> None:
        """All of it, as when power is lost: it says no goodbye. Can be done twice."""
        if self._processes:
            _ip(f"link delete p{self._number}")
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):
                if process is self._processes[0]:
                    process.kill()  # the keeper is in the group of this process
                else:
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._processes = []

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


def _ip(*commands: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)
