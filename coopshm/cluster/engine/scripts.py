"""The scripts (lua/*.lua): each one is a step that happens as a whole or not at all.

They go by the hash of their text, so that sidecars of different releases do not run each other's; keys.VERSION keeps
apart what they leave. A server that does not know one (restarted, replaced by its replica, SCRIPT FLUSH) says so before
it has done anything, and is given the text.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Final, NamedTuple

__all__ = [
    "ANNOUNCE",
    "BEAT",
    "DISCARD",
    "LACKS",
    "LEASE",
    "LEAVE",
    "PIECE",
    "RELEASE",
    "RENEW",
    "STAND",
    "WHO",
    "WRITE",
]


class Script(NamedTuple):
    name: str
    text: str
    sha: str


def _load(name: str) -> Script:
    folder = resources.files(__package__) / "lua"
    text = (folder / "common.lua").read_text() + (folder / f"{name}.lua").read_text()
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


ANNOUNCE: Final = _load("announce")
BEAT: Final = _load("beat")
DISCARD: Final = _load("discard")
LACKS: Final = _load("lacks")
LEASE: Final = _load("lease")
LEAVE: Final = _load("leave")
PIECE: Final = _load("piece")
RELEASE: Final = _load("release")
RENEW: Final = _load("renew")
STAND: Final = _load("stand")
WHO: Final = _load("who")
WRITE: Final = _load("write")
