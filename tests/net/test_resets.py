"""Resets that travel between whole hosts, under load."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.net.cluster import cluster, relays
from tests.net.history import histories
from tests.net.network import heal, needs_hosts, part
from tests.procs import until

pytestmark = needs_hosts
KEYS = [f"key-{number}" for number in range(20)]


@relays
@pytest.mark.parametrize("size", [3, 5])
def test_resets_reach_all_nodes_under_load_and_concurrent_ones_converge(tmp_path: Path, size: int, relay: str) -> None:
    with cluster(tmp_path, size, relay=relay) as net:
        with histories(net.nodes, KEYS) as seen:
            seen.go_on()
            for turn, node in enumerate(net.nodes, start=1):  # one after the other, on each node
                reset = seen[node].reset()
                for other in net.nodes:
                    seen[other].learns(turn, reset)
                assert len({other.stamp() for other in net.nodes}) == 1
                seen.go_on()
            with ThreadPoolExecutor(size) as pool:  # all at once
                list(pool.map(lambda node: seen[node].reset(), net.nodes))
            counter, _, _ = net.until_one_stamp(*net.nodes)
            assert counter > size
            seen.go_on()
        seen.check()
        versions = {node.value("afterwards")["version"] for node in net.nodes}
        assert len(versions) == 1
        for node in net.nodes:
            node.stop()


@relays
def test_a_reset_that_a_node_missed_reaches_it_when_it_is_back(tmp_path: Path, relay: str) -> None:
    with cluster(tmp_path, 3, relay=relay) as net:
        one, two, three = net.nodes
        old = three.value("k")
        for node in (one, two):
            until(lambda node=node: node.peek("k") == old)
        three.host.unplug()
        reset = one.reset()
        until(lambda: two.stamp() == one.stamp())
        assert two.value("k")["at"] > reset.began
        assert three.value("k") == old  # it cannot know; and it goes on
        three.host.plug()
        net.until_one_stamp(*net.nodes)
        net.until_live(*net.nodes)
        assert three.value("k")["at"] > reset.began


@relays
def test_both_sides_of_a_partition_go_on_and_then_agree(tmp_path: Path, relay: str) -> None:
    with cluster(tmp_path, 3, relay=relay) as net:
        one, two, three = net.nodes
        left, right = [one.host, two.host], [three.host]
        if net.engine_host is not None:
            left.append(net.engine_host)
        with histories(net.nodes, KEYS) as seen:
            part(left, right)
            until(lambda: one.live() == {"n2"} and two.live() == {"n1"} and three.live() == set())
            # Once on each side.
            values = [node.value("split") for node in net.nodes]
            assert values[0] == values[1] != values[2]
            assert sum(net.computed("split").values()) == 2
            # Resets on both: whoever wins, nobody returns what is older than its own.
            seen[one].reset()
            seen[three].reset()
            until(lambda: two.stamp() == one.stamp())
            assert two.stamp() != three.stamp()
            seen.go_on()
            heal(left, right)
            net.until_live(*net.nodes)
            net.until_one_stamp(*net.nodes)
            seen.go_on()
        seen.check()
        first = one.value("whole")
        assert [node.value("whole") for node in net.nodes] == [first] * 3
        for node in net.nodes:
            node.stop()
