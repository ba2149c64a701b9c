"""Whole hosts that an engine connects, and what may become of it. What holds for any relay is in the other modules."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.engines import needs_redis
from tests.net.cluster import NetCluster, cluster
from tests.net.history import histories
from tests.net.network import needs_hosts
from tests.procs import until
from tests.servers.gate import WATCHDOG

pytestmark = [needs_hosts, needs_redis]
KEYS = [f"key-{number}" for number in range(20)]


def lose(net: NetCluster, how: str) -> None:
    if how == "killed":
        net.engine.kill()
    elif how == "stopped":
        net.engine.pause()
    else:
        assert net.engine_host is not None
        net.engine_host.unplug()


def bring_back(net: NetCluster, how: str) -> None:
    if how == "killed":
        net.engine.start()  # and it has forgotten everything
    elif how == "stopped":
        net.engine.resume()
    else:
        assert net.engine_host is not None
        net.engine_host.plug()


@pytest.mark.parametrize("how", ["killed", "stopped", "unplugged"])
def test_without_the_engine_each_host_goes_on_alone_and_when_it_is_back_together(tmp_path: Path, how: str) -> None:
    with cluster(tmp_path, 3, relay="all") as net:
        one, two, three = net.nodes
        with histories(net.nodes, KEYS) as seen:
            seen.go_on()
            lose(net, how)
            until(lambda: not any(node.live() for node in net.nodes), lambda: str([n.live() for n in net.nodes]))
            replies = [future.result(WATCHDOG) for future in net.at_once(net.nodes, "/value/alone", 5)]
            assert len(replies) == 15
            assert net.computed("alone") == {"n1": 1, "n2": 1, "n3": 1}  # once on each host
            reset = seen[one].reset()
            seen.go_on()
            assert two.stamp()[0] == three.stamp()[0] == 0  # they cannot know
            bring_back(net, how)
            net.until_live(*net.nodes)
            net.until_one_stamp(*net.nodes)
            for node in net.nodes:
                seen[node].learns(1, reset)
            seen.go_on()
        seen.check()
        for node in net.nodes:
            replies = [future.result(WATCHDOG) for future in net.at_once(net.nodes, f"/value/of-{node.name}", 5)]
            assert all(reply == replies[0] for reply in replies)
        for node in net.nodes:
            node.stop()


def test_on_demand_a_host_gets_a_value_when_it_first_misses_it(tmp_path: Path) -> None:
    with cluster(tmp_path, 3, relay="on_demand") as net:
        one, *others = net.nodes
        values = {key: one.value(key) for key in KEYS}
        for node in others:
            assert node.peek(KEYS[0]) is None
            assert {key: node.value(key) for key in KEYS} == values
        assert all(net.computed(key) == {"n1": 1} for key in KEYS)
        for node in net.nodes:
            node.stop()


def test_a_node_with_another_secret_has_a_cluster_of_its_own(tmp_path: Path) -> None:
    with cluster(tmp_path, 3, running=2, relay="all") as net:
        one, two, _ = net.nodes
        net.nodes[2].vanish()
        stranger = net.make(3, secret="another one, which is also of 32 bytes and more")
        net.start(stranger)
        mine = stranger.value("k")
        theirs = one.value("k")
        assert (mine["node"], theirs["node"]) == ("n3", "n1")
        assert two.value("k") == theirs
        stranger.reset()
        assert stranger.value("k")["version"] == 2
        one.reset()
        one.reset()
        net.until_one_stamp(one, two)
        assert one.value("k") == two.value("k")
        assert net.computed("k") == {"n1": 2, "n3": 2}
        assert (one.stamp()[0], stranger.stamp()[0]) == (2, 1)
        assert (one.live(), two.live(), stranger.live()) == ({"n2"}, {"n1"}, set())
