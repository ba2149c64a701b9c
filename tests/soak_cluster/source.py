"""What the caches are of: each host has a copy, a version, and a callback that brings it to another one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .events import Log, now

#: This host's, and the run's.
DIRECTORY = Path(os.environ.get("SOAK_HOST", "."))

_VERSION = "source"
_BROKEN = "broken"


def version() -> Any:
    """The version that this host's copy is of."""
    return json.loads((DIRECTORY / _VERSION).read_text())


def begin(directory: Path) -> None:
    (directory / _VERSION).write_text("1")


def set_broken(directory: Path, broken: bool) -> None:
    """From now on the callback raises; or does not."""
    if broken:
        (directory / _BROKEN).touch()
    else:
        (directory / _BROKEN).unlink(missing_ok=True)


def publish(to: object) -> None:
    """on_reset of the cache "roomy"."""
    if (DIRECTORY / _BROKEN).exists():
        raise RuntimeError("the source cannot be brought up to date")
    log = Log(DIRECTORY.parent)
    try:  # first: who is killed in between has promised nothing
        log.write("published", host=DIRECTORY.name, version=json.dumps(to), at=now())
    finally:
        log.close()
    new = DIRECTORY / f"{_VERSION}.{os.getpid()}"
    new.write_text(json.dumps(to))
    new.replace(DIRECTORY / _VERSION)
