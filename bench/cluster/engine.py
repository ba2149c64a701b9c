"""A redis-server on a host of its own, for the relays that want one: started as it comes, without persistence."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from .network import Host, child_of, until

__all__ = ["Engine", "why_none"]

_PORT = 6379
_WATCHDOG = 20.0
#: Where `make tools` unpacks what is not installed.
_UNPACKED = Path(__file__).parents[2] / "build" / "tools" / "usr" / "bin"


def _program() -> str | None:
    return shutil.which("redis-server") or shutil.which("redis-server", path=str(_UNPACKED))


def why_none() -> str:
    """Why there can be no engine; empty if there can."""
    if _program() is None:
        return "redis-server is not installed"
    if importlib.util.find_spec("redis") is None:
        return "redis-py is not installed"
    if importlib.util.find_spec("coopshm.cluster.engine") is None:
        return "this coopshm has no relay over an engine"
    return ""


class _Client(Protocol):
    """What is used of redis-py's."""

    def ping(self) -> object: ...
    def info(self, section: str) -> Mapping[str, int]: ...
    def scan_iter(self, match: str = ...) -> Iterable[bytes]: ...
    def memory_usage(self, key: bytes, samples: int) -> int | None: ...
    def hlen(self, key: bytes) -> int: ...


class Engine:
    """One server. It has no password: nobody else is on the switch."""

    def __init__(self, host: Host, folder: Path) -> None:
        program = _program()
        assert program is not None, "not started when it is missing"
        self.host = host
        self.url = f"redis://{host.address}:{_PORT}/0"
        self._log = folder / "redis.log"
        door = folder / "redis.sock"  # for the bench, which is not on the switch
        options = {
            "port": str(_PORT),
            "bind": "0.0.0.0",
            "protected-mode": "no",
            "save": "",
            "appendonly": "no",
            "dir": str(folder),
            "unixsocket": str(door),
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                host.command([program, *arguments]), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.pid = child_of(self._process)
        until(lambda: door.exists() or self._process.poll() is not None, self._said)
        if self._process.returncode is not None:
            raise RuntimeError(f"redis-server has ended: {self._said()}")
        self._client: _Client = importlib.import_module("redis").Redis(unix_socket_path=str(door))
        self._client.ping()

    def info(self, section: str) -> Mapping[str, int]:
        """A section of INFO."""
        return self._client.info(section)

    def memory(self) -> int:
        """Bytes that it uses for data, buffers of its clients not among them."""
        return self._client.info("memory")["used_memory_dataset"]

    def usage(self) -> int:
        """Bytes that all keys take, as MEMORY USAGE has it."""
        return sum(self._client.memory_usage(key, 0) or 0 for key in self._client.scan_iter())  # none: gone since

    def entries(self) -> int:
        """How many it has."""
        return sum(self._client.hlen(key) for key in self._client.scan_iter("*:values"))

    def wait_entries(self, count: int) -> None:
        """Return once it has so many: sidecars hand entries on after they were stored on their hosts."""
        until(lambda: self.entries() >= count, lambda: f"the engine has {self.entries()} of {count} entries")

    def end(self) -> None:
        """Its host has ended."""
        self._process.wait(_WATCHDOG)

    def _said(self) -> str:
        return self._log.read_text(errors="replace")[-500:]
