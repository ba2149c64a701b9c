"""What became of a reset on the other nodes of a cluster: `reset(..., wait=seconds)`.

The sidecar notes in the segment, for each node, up to which reset of this host that node's copy of the cache goes
(csm_peer in csrc/layout.h). So a worker learns it without a connection of its own.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from ._segment import Segment

__all__ = ["STATES", "NodeReset", "ResetReport", "nodes_of", "wait_for_nodes"]

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


def nodes_of(segment: Segment) -> tuple[NodeReset, ...]:
    """Return the other nodes as they are now."""
    own = segment.stamp().own
    nodes = []
    for peer in segment.peers():
        state = STATES[peer.state] if peer.state < len(STATES) else "away"
        nodes.append(NodeReset(peer.name, state == "absent" or peer.covers >= own, state, peer.since_ns / 1e9))
    return tuple(sorted(nodes))
