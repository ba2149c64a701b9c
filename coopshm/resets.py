"""What became of a reset on the other nodes of a cluster: `reset(..., wait=seconds)`.

The sidecar notes in the segment, for each node, up to which reset of this host that node's copy of the cache goes
(csm_peer in csrc/layout.h). So a worker learns it without a connection of its own.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from ._segment import Segment

__all__ = ["STATES", "NodeReset", "ResetReport", "Standing", "nodes_of", "standing", "wait_for_nodes"]

#: What a node is to a cache; in the order of coopshm.cluster.relay.NodeState.
STATES: Final = ("away", "absent", "behind", "failing", "live")

#: Seconds between two looks.
_PAUSE: Final = 0.005


class NodeReset(NamedTuple):
    """Another node, after a reset.

    Attributes:
        name: of the node.
        applied: it returns nothing any more that was computed before the reset.
        since: when that was noted, in seconds since the Epoch.
        state: "live"; "absent": it does not have the cache; "behind": it has not come to it; "failing": its on_reset
            callback raises, and is tried again; "away": not connected.
    """

    name: str
    applied: bool
    state: str
    since: float

    def as_dict(self) -> dict[str, object]:
        """Return it as JSON can take it."""
        return self._asdict()


class ResetReport(NamedTuple):
    """What `reset` returns with `wait`.

    Attributes:
        version: now in force on this host.
        nodes: the other nodes of the cluster that are known, by name; none without a sidecar.
    """

    version: object
    nodes: tuple[NodeReset, ...]

    @property
    def complete(self) -> bool:
        """Have all nodes applied it?"""
        return all(node.applied for node in self.nodes)


def wait_for_nodes(segment: Segment, seconds: float) -> tuple[NodeReset, ...]:
    """Return how far the other nodes are, once all have applied the last reset of this host, or after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        nodes = nodes_of(segment)
        if all(node.applied for node in nodes) or time.monotonic() >= end:
            return nodes
        time.sleep(_PAUSE)


class Standing(NamedTuple):
    """Where a cache stands in its cluster, as this host's sidecar has noted it in the segment.

    Attributes:
        node: this host's name in the cluster; None if there never was a sidecar.
        sidecar: its PID; None if none runs.
        resets: in the cluster, the last one included that this host has come to.
        last_reset_by: who made that one: a node's name (nothing, if its host had none), "#", and the id of its segment;
            None if there was none.
        own_last_reset: which one of them was the last that this host made; None if none was.
        nodes: the others, by name.
    """

    node: str | None
    sidecar: int | None
    resets: int
    last_reset_by: str | None
    own_last_reset: int | None
    nodes: tuple[NodeReset, ...]

    def as_dict(self) -> dict[str, object]:
        """Return it as JSON can take it."""
        return {**self._asdict(), "nodes": [node.as_dict() for node in self.nodes]}


def standing(segment: Segment) -> Standing:
    """Return where the cache of a segment stands. Takes no lock."""
    stamp = segment.stamp()
    return Standing(
        node=segment.origin().rpartition("#")[0] or None,
        sidecar=segment.sidecar(),
        resets=stamp.counter,
        last_reset_by=stamp.origin or None,
        own_last_reset=stamp.own or None,
        nodes=nodes_of(segment),
    )


def nodes_of(segment: Segment) -> tuple[NodeReset, ...]:
    """Return the other nodes as they are now."""
    own = segment.stamp().own
    nodes = []
    for peer in segment.peers():
        state = STATES[peer.state] if peer.state < len(STATES) else "away"
        nodes.append(NodeReset(peer.name, state == "absent" or peer.covers >= own, state, peer.since_ns / 1e9))
    return tuple(sorted(nodes))
