"""Once in the cluster: over whole hosts, with real gunicorns and sidecars."""

from __future__ import annotations

from pathlib import Path

from tests.net.cluster import cluster, relays
from tests.net.network import needs_hosts
from tests.procs import until
from tests.servers.gate import WATCHDOG

pytestmark = needs_hosts


@relays
def test_five_nodes_with_five_callers_each_compute_a_key_once(tmp_path: Path, relay: str) -> None:
    with cluster(tmp_path, 5, relay=relay) as net:
        for key in ("a", "b", "c"):
            replies = [future.result(WATCHDOG) for future in net.at_once(net.nodes, f"/value/{key}", 5)]
            assert len(replies) == 25
            assert all(reply == replies[0] for reply in replies)
            assert sum(net.computed(key).values()) == 1
        # A value that is computed on one node is there on all others, without being asked for.
        for node in net.nodes:
            key = f"of-{node.name}"
            value = node.value(key)
            for other in net.nodes:
                until(lambda other=other, key=key: other.peek(key) is not None)
                assert other.peek(key) == value
            assert net.computed(key) == {node.name: 1}
        for node in net.nodes:
            node.stop()
