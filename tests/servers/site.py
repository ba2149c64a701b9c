"""What a test has beside the server: a directory, a namespace, a configuration, a gate, the application's records."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import coopshm
from coopshm.admin.segments import attach
from coopshm.objects import SHM, Place
from coopshm.stats import collect
from tests.servers.gate import Gate

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

#: The caches that a site configures, by name: with each lifetime.
LIFETIMES = {"pages": "app", "kept": "host"}

_CACHE = """
[caches.{name}]
lifetime = "{lifetime}"
memory_limit = "4 MiB"
version = {version}
on_reset = "tests.servers.app.source:publish"
"""


class Site:
    """Where servers run. Two servers at one site are the same deployment (unless given another namespace)."""

    def __init__(self, directory: Path, namespace: str, gate: Gate) -> None:
        self.directory = directory
        self.namespace = namespace
        self.gate = gate
        (directory / "version").write_text("1")
        self.deploy(1)
        self.configure()

    def configure(self, version: int = 1, extra: str = "") -> None:
        """Write coopshm.toml; `extra` settings go to each cache."""
        caches = [
            _CACHE.format(name=name, lifetime=lifetime, version=version) + extra for name, lifetime in LIFETIMES.items()
        ]
        text = f'namespace = "{self.namespace}"\n' + "".join(caches)
        (self.directory / "coopshm.toml").write_text(text)

    def deploy(self, code: int) -> None:
        """Have the application's code be this one, when it is next imported."""
        (self.directory / "release.py").write_text(f"CODE = {code}\n")

    def environment(self) -> dict[str, str]:
        """What a server and its workers get."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("COOPSHM_", "PYTEST"))}
        return {
            **environment,
            "COOPSHM_CONFIG": str(self.directory / "coopshm.toml"),
            "SERVERS_DIRECTORY": str(self.directory),
            "SERVERS_GATE": str(self.gate.port),
            "PYTHONPATH": f"{self.directory}:{ROOT}",
            "PYTHONDONTWRITEBYTECODE": "1",  # `release` changes twice a second
            "PYTHONUNBUFFERED": "1",
        }

    # ---- what the application wrote

    def records(self, what: str, **details: object) -> list[dict[str, Any]]:
        """The application's records of one kind, with these details, oldest first."""
        path = self.directory / "records"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        found = [json.loads(line) for line in lines]
        return [one for one in found if one["what"] == what and details.items() <= one.items()]

    def computations(self, *keys: str, cache: str = "pages") -> dict[str, int]:
        """How often each of the keys has been computed."""
        counts = dict.fromkeys(keys, 0)
        for one in self.records("computes", cache=cache):
            if one["key"] in counts:
                counts[one["key"]] += 1
        return counts

    def asking(self, key: str) -> set[int]:
        """The workers that have been asked for a key."""
        return {one["pid"] for one in self.records("asks", key=key)}

    # ---- what is in shared memory

    def objects(self) -> set[str]:
        """The caches that have an object in /dev/shm, and whatever else bears the namespace."""
        prefix = f"coopshm:{self.namespace}:"
        return {name.removeprefix(prefix) for name in os.listdir(SHM) if self.namespace in name}

    def observe(self, cache: str = "pages") -> coopshm.Stats:
        """What a look from outside shows; who looks counts as nobody."""
        segment = attach(Place(self.namespace, cache))
        try:
            return collect(cache, segment)
        finally:
            segment.leave()

    def damage(self, cache: str) -> list[str]:
        """What is wrong in the cache's segment: nothing, one hopes."""
        segment = attach(Place(self.namespace, cache))
        try:
            return segment.verify()
        finally:
            segment.leave()
