"""The source of the values: it has a version, writes down who asks and who computes, and can hold a computation.

What happens is appended to one file, a line of JSON each, by one write: no kill can lose or tear it.

A key that begins with "held" is computed until the test lets it go (tests/servers/gate.py), as cooperatively as the
worker class allows. One that begins with "stuck" holds the whole thread, as a C extension would that lets nothing else
run there; one that begins with "deaf" does not even hear SIGABRT. Those two are so only the first time.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

#: Of the test; made by tests/servers/site.py.
DIRECTORY = Path(os.environ["SERVERS_DIRECTORY"])
GATE = ("127.0.0.1", int(os.environ["SERVERS_GATE"]))

_VERSION = DIRECTORY / "version"
_RECORDS = DIRECTORY / "records"


def version() -> Any:
    """The version of the source, as it is now."""
    return json.loads(_VERSION.read_text())


def publish(to: object) -> None:
    """on_reset: bring the source up to date."""
    new = DIRECTORY / f"version.{os.getpid()}"
    new.write_text(json.dumps(to))
    new.replace(_VERSION)


def record(what: str, **details: object) -> None:
    _append({"what": what, "pid": os.getpid(), "at": time.monotonic(), **details})


def _append(details: dict[str, Any]) -> None:
    line = json.dumps(details)
    fd = os.open(_RECORDS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(fd, f"{line}\n".encode())
    finally:
        os.close(fd)


def begin(cache: str, key: str) -> dict[str, Any]:
    """A computation begins: it has read the source."""
    value = {"cache": cache, "key": key, "version": version(), "by": os.getpid()}
    record("computes", **value)
    return value


def is_held(key: str) -> bool:
    """Whether the computation shall ask the gate before it ends, cooperatively."""
    return key.startswith("held")


def is_stuck(key: str) -> bool:
    """Whether it shall ask the gate without letting anything else run in its thread."""
    first = f'"what": "stuck", "key": "{key}"'
    return key.startswith(("stuck", "deaf")) and first not in _RECORDS.read_text()


def announce(value: dict[str, Any]) -> bytes:
    """What a computation says to the gate."""
    return json.dumps(value).encode() + b"\n"


def wait_stuck(value: dict[str, Any]) -> None:
    """Waits at the gate, by system calls that gevent does not know of."""
    import _socket  # gevent replaces only what is in `socket`

    _append({"what": "stuck", "key": value["key"]})
    if value["key"].startswith("deaf"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGABRT])
    gate = _socket.socket()
    gate.connect(GATE)
    gate.send(announce(value))
    gate.recv(1)
    gate.close()
