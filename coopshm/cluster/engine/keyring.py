"""Which of several secrets the nodes seal with while they change it.

What is sealed with a secret has a place of its own in the engine (keys.py), so all nodes must be in one of them. A
node says which secrets it knows, the one that it is to use first; it looks whether others are in the places of the
secrets that it knows, and goes where `choose` says. All who see the same come to the same.

With each step of a change (the new one is added, is put first, the old one is removed) some nodes have taken it and
some have not. They stay where they are until all say that the new one comes first, then go there, each for itself: as
after a loss of the engine, each one offers what it has. Who knows no secret can put old announcements back, and so hold
up the change; no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .seal import Seal

__all__ = ["KNOWN_MAX", "Keyring", "choose"]

#: Secrets that a node tells of.
KNOWN_MAX = 16


class Keyring:
    """The seals that a node knows, by their fingerprints, in order."""

    def __init__(self, secrets: Sequence[bytes], namespace: str) -> None:
        """Takes a twentieth of a second for each secret that was not seen before."""
        seals = [Seal(secret, namespace) for secret in secrets[:KNOWN_MAX]]
        self.seals: dict[str, Seal] = {seal.fingerprint: seal for seal in seals}
        self.known = tuple(self.seals)
        self.first = seals[0]


def choose(mine: Sequence[str], at: str | None, others: Mapping[str, Sequence[Sequence[str]]]) -> str:
    """Return in which place to be.

    Args:
        mine: the secrets that this node knows, the one to use first.
        at: where it is; None: nowhere yet.
        others: what each other node knows, by the place that it is in; of those places that this node knows.
    """
    everyone = [mine, *(knows for there in others.values() for knows in there if knows)]
    if all(knows[0] == mine[0] for knows in everyone):
        return mine[0]
    common = set(mine).intersection(*everyone)
    occupied = {place for place, there in others.items() if there} | ({at} if at is not None else set())
    # Whoever is there knows this one as well. If none is known to all, who has the first one only is not to be lost.
    return min(occupied & common, default=mine[0])
