"""Whole hosts of which something dies, stops, comes late, or cannot be trusted."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.net.cluster import cluster, relays
from tests.net.history import histories
from tests.net.network import needs_hosts
from tests.procs import until
from tests.servers.gate import WATCHDOG

pytestmark = needs_hosts
KEYS = [f"key-{number}" for number in range(20)]


@relays
def test_without_its_sidecar_a_host_goes_on_alone_and_with_a_new_one_in_the_cluster(tmp_path: Path, relay: str) -> None:
    with cluster(tmp_path, 3, relay=relay) as net:
        one, two, three = net.nodes
        with histories(net.nodes, KEYS) as seen:
            seen.go_on()
            # Killed while its host waits for a value that another one computes.
            held = net.at_once([two], "/value/held-1")
            first = two.gate.next()
            waiting = net.at_once([one], "/value/held-1", 5)
            until(lambda: sum(one.get("/sound")["left"][:2]) >= 1)
            assert one.sidecar is not None
            one.sidecar.kill()
            own = one.gate.next()  # once on the host, at once
            assert one.gate.is_empty()
            own.release()
            assert {future.result(WATCHDOG)["node"] for future in waiting} == {"n1"}
            first.release()
            assert held[0].result(WATCHDOG)["node"] == "n2"
            assert one.computed("held-1") == 1
            replies = [future.result(WATCHDOG) for future in net.at_once([one], "/value/alone", 5)]
            assert all(reply == replies[0] for reply in replies)
            assert one.computed("alone") == 1
            reset = two.reset()
            until(lambda: three.stamp() == two.stamp())
            missed = two.value("missed")
            net.until_live(two, three)

            one.start_sidecar()
            net.until_live(*net.nodes)
            net.until_one_stamp(*net.nodes)
            seen[one].applied.append((reset.began, one.web.get("/pid").ended))
            until(lambda: one.peek("missed") == missed)  # it resumes where the log had got to
            seen.go_on()
        seen.check()
        for node in net.nodes:
            node.stop()


@relays
def test_a_stopped_sidecar_is_in_nobodys_way(tmp_path: Path, relay: str) -> None:
    with cluster(tmp_path, 3, relay=relay) as net:
        one, two, three = net.nodes
        assert one.sidecar is not None
        one.sidecar.signal(signal.SIGSTOP)
        assert one.value("stopped-1")["node"] == "n1"
        until(lambda: two.live() == {"n3"} and three.live() == {"n2"})
        assert two.value("k")["node"] == "n2"
        one.sidecar.signal(signal.SIGCONT)
        net.until_live(*net.nodes)
        until(lambda: one.peek("k") is not None)


@relays
def test_a_host_that_vanishes_in_the_middle_of_a_computation_and_comes_back_empty(tmp_path: Path, relay: str) -> None:
    with cluster(tmp_path, 5, relay=relay) as net:
        *others, gone = net.nodes
        for key in KEYS:
            others[0].value(key)
        future = net.at_once([gone], "/value/held-2")[0]
        gone.gate.next()
        waiting = net.at_once(others, "/value/held-2", 2)
        # Asked: a waiter on each of the others, and nobody has begun to compute.
        for node in others:
            until(lambda node=node: node.get("/sound")["left"][0] == 1)
        assert all(node.gate.is_empty() for node in others)
        gone.vanish()
        until(lambda: any(not node.gate.is_empty() for node in others))  # one of them takes over
        [by] = [node for node in others if not node.gate.is_empty()]
        by.gate.next().release()
        assert {reply.result(WATCHDOG)["node"] for reply in waiting} == {by.name}
        assert future.exception(WATCHDOG) is not None
        assert net.computed("held-2") == {gone.name: 1, by.name: 1}
        others[0].reset()
        net.until_one_stamp(*others)
        values = {key: others[1].value(key) for key in KEYS}

        back = net.make(5)
        net.start(back)
        net.until_live(*net.nodes)
        net.until_one_stamp(*net.nodes)
        for key in KEYS:  # computed before it was there
            until(lambda key=key: back.peek(key) == values[key])
        assert back.site.version_of_source() == others[0].site.version_of_source()


@relays
def test_a_newcomer_gets_everything_while_writes_and_resets_go_on(tmp_path: Path, relay: str) -> None:
    with cluster(tmp_path, 3, running=2, relay=relay) as net:
        one, two, late = net.nodes
        for key in KEYS:
            one.value(key)
        with histories([one, two], [*KEYS, *(f"more-{number}" for number in range(200))]) as seen:
            seen[one].reset()
            seen.go_on()
            net.start(late)
            seen[two].reset()
            seen.go_on()
            net.until_live(*net.nodes)
            net.until_one_stamp(*net.nodes)
            seen[one].reset()
            seen.go_on()
        seen.check()
        net.until_one_stamp(*net.nodes)
        # What either of them has, the newcomer has, once it has come.
        for key in KEYS:
            value = one.value(key)
            until(lambda key=key, value=value: late.peek(key) == value)
        for node in net.nodes:
            node.stop()


def test_a_node_with_another_secret_is_refused_and_works_alone(tmp_path: Path) -> None:
    with cluster(tmp_path, 3, running=2) as net:
        one, two, _ = net.nodes
        net.nodes[2].vanish()
        stranger = net.make(3, secret="another one, which is also of 32 bytes and more")
        net.start(stranger)
        assert stranger.sidecar is not None
        until(lambda: "secret" in stranger.sidecar.log() and "secret" in one.sidecar.log(), stranger.logs)
        mine = stranger.value("k")
        assert mine["node"] == "n3"
        assert one.value("k")["node"] == "n1"
        stranger.reset()
        assert stranger.value("k")["version"] == 2
        assert one.stamp() == two.stamp() != stranger.stamp()
        assert (one.live(), two.live(), stranger.live()) == ({"n2"}, {"n1"}, set())


@relays
def test_killed_workers_and_a_flapping_link_under_load(tmp_path: Path, relay: str) -> None:
    with cluster(tmp_path, 3, relay=relay) as net:
        one, two, three = net.nodes
        with histories([one, two], KEYS) as seen:
            for turn in range(1, 4):
                worker = three.web.worker_pids()[0]
                pending = net.at_once([three], f"/value/held-{turn}")
                three.gate.next()
                three.host.unplug()
                os.kill(worker, signal.SIGKILL)
                seen[one].reset()
                seen.go_on()
                three.host.plug()
                del pending
            net.until_live(*net.nodes)
            net.until_one_stamp(*net.nodes)
            seen.go_on()
        seen.check()


def test_a_link_that_loses_one_direction_only_is_no_link_until_it_is_whole_again(tmp_path: Path) -> None:
    with cluster(tmp_path, 3) as net:
        one, two, three = net.nodes
        one.host.mute(two.host)
        until(lambda: (one.live(), two.live(), three.live()) == ({"n3"}, {"n3"}, {"n1", "n2"}))
        with histories(net.nodes, KEYS) as seen:
            reset = seen[one].reset()
            for node in net.nodes:  # also where it has to take the way round
                seen[node].learns(1, reset)
            seen.go_on()
            for turn, node in enumerate((two, three), start=2):
                reset = seen[node].reset()
                for other in net.nodes:
                    seen[other].learns(turn, reset)
                seen.go_on()
            one.host.unmute(two.host)
            net.until_live(*net.nodes)
            seen.go_on()
        seen.check()
        assert len({node.stamp() for node in net.nodes}) == 1
        value = one.value("whole")
        assert [node.value("whole") for node in net.nodes] == [value] * 3
        for node in net.nodes:
            node.stop()
