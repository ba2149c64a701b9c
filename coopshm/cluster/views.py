"""Whom a node sees, and which of them owns a key: rendezvous hashing, the same on all nodes that see the same.

A *view* is the set of nodes (names and instances: a restarted node has forgotten its table) that a node is connected
to, itself included. Two nodes hold the same view exactly when its hash is the same, which is what they tell each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple

__all__ = ["Member", "Members"]


class Member(NamedTuple):
    name: str
    instance: bytes


class Members:
    """One view."""

    def __init__(self, instances: Mapping[str, bytes]) -> None:
        self.instances = dict(sorted(instances.items()))
        digest = blake2b(digest_size=8, person=b"coopshm view")
        for name, instance in self.instances.items():
            digest.update(b"%d:%s%d:%s" % (len(name.encode()), name.encode(), len(instance), instance))
        self.hash = digest.digest()
        self._seeds = [(name, blake2b(name.encode(), digest_size=16).digest()) for name in self.instances]

    def __contains__(self, name: str) -> bool:
        return name in self.instances

    def member(self, name: str) -> Member:
        return Member(name, self.instances[name])

    def owner(self, cache: str, key_id: bytes) -> Member:
        """The node with the largest hash of its name and the key: when a node comes or goes, only its own keys move."""
        data = b"%d:%s%s" % (len(cache), cache.encode(), key_id)
        name = max((blake2b(data, digest_size=8, key=seed).digest(), name) for name, seed in self._seeds)[1]
        return self.member(name)
