"""The cluster on the status page: what a sidecar has noted in the segment, seen from outside."""

from __future__ import annotations

import json
from typing import Any

import pytest

import coopshm
from coopshm import config as configuration
from coopshm.cluster.relay import NodeState
from coopshm.cluster.segment import SidecarSegment
from coopshm.status import document
from coopshm.status.history import History
from coopshm.status.look import Watch
from tests.procs import Child
from tests.status.test_browser import FAINT, UNLABELLED, browser, cells, live
from tests.status.test_serve import serve

__all__ = ["browser"]  # a fixture

#: Nodes, what each is to the cache, and up to which of this host's resets it goes.
NODES = [
    ("web2", NodeState.LIVE, 1),
    ("web3", NodeState.BEHIND, 0),
    ("web4", NodeState.FAILING, 0),
    ("web5.with-a-long-name.and-a-domain.example", NodeState.ABSENT, 0),
    ("web6", NodeState.AWAY, 1),
]


def sidecar(conn: Any, settings: dict[str, Any]) -> None:
    """Be the sidecar, note the nodes, and look often enough."""
    config = configuration.load(settings)
    segment = SidecarSegment.open(config.namespace, config.caches["c"], "web1", 10.0)
    for number, (name, state, covers) in enumerate(NODES):
        segment.note_peer(number, name, covers, state)
    conn.send("noted")
    while not conn.poll():
        segment.wait(0.05)
        segment.look()
    segment.close()


@pytest.fixture
def connected(cache, settings) -> Child:
    """The sidecar of cache `c`, which was reset once."""
    cache().cached("k", lambda: 1)
    child = Child(sidecar, settings())
    assert child.receive() == "noted"
    coopshm.reset("c")
    return child


def _cluster(namespace: str) -> Any:
    watch = Watch(namespace)
    (summary,) = json.loads(json.dumps(document.make(watch.looks(), History(), namespace)))["caches"]
    watch.close()
    return summary["cluster"]


def test_the_document_has_what_the_sidecar_noted(connected: Child, namespace: str) -> None:
    found = _cluster(namespace)
    assert (found["node"], found["sidecar"], found["resets"], found["own_last_reset"]) == ("web1", connected.pid, 1, 1)
    assert found["last_reset_by"].startswith("web1#")
    assert [(node["name"], node["state"], node["applied"]) for node in found["nodes"]] == [
        ("web2", "live", True),
        ("web3", "behind", False),
        ("web4", "failing", False),
        ("web5.with-a-long-name.and-a-domain.example", "absent", True),
        ("web6", "away", True),
    ]
    connected.kill()
    found = _cluster(namespace)
    assert (found["node"], found["sidecar"], found["nodes"]) == ("web1", None, [])


def test_without_a_cluster_it_says_so(cache, namespace) -> None:
    cache().cached("k", lambda: 1)
    assert _cluster(namespace) == {
        "node": None, "sidecar": None, "resets": 0, "last_reset_by": None, "own_last_reset": None, "nodes": [],
    }  # fmt: skip


def test_nodes_are_shown_with_their_states(browser, connected: Child, namespace: str) -> None:
    with serve(namespace) as (port, _):
        browser.look(1600)
        live(browser, port, f"#{namespace}/c")
        browser.until(f"document.querySelectorAll('#cluster tbody tr').length === {len(NODES)}")
        rows = cells(browser, "cluster")
        assert [row[0] for row in rows] == [name for name, _, _ in NODES]
        assert [row[1].partition(":")[0] for row in rows] == ["live", "behind", "failing", "absent", "away"]
        assert [row[2] for row in rows] == ["applied", "not yet", "not yet", "applied", "applied"]
        note = browser.run("document.querySelector('#cluster .note').textContent")
        assert note == (
            f"This host is web1; its sidecar is process {connected.pid}. Reset 1 of the cluster, made by web1."
        )
        titles = browser.run("[...document.querySelectorAll('#caches thead th')].map((title) => title.textContent)")
        ((*_, nodes, _version),) = cells(browser, "caches")
        assert (titles[-2], nodes) == ("Nodes", "1 of 5")
        connected.kill()
        browser.until("document.querySelector('#cluster .note').textContent.startsWith('No sidecar runs')")
        assert cells(browser, "cluster") == []
        assert not browser.run("document.querySelector('#caches').textContent.includes('Nodes')")
        assert browser.problems == []


def test_without_a_cluster_there_is_no_card_of_it(browser, cache, namespace: str) -> None:
    cache().cached("k", lambda: 1)
    with serve(namespace) as (port, _):
        browser.look(1280)
        live(browser, port, f"#{namespace}/c")
        browser.until("document.querySelector('#processes').textContent.includes('Process')")
        assert browser.run("document.querySelector('#cluster').checkVisibility()") is False
        assert "cluster" not in browser.run("document.body.innerText").lower()
        assert browser.problems == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_it_can_be_read(browser, connected: Child, namespace: str, width: int, theme: str) -> None:
    with serve(namespace) as (port, _):
        browser.look(width, theme=theme)
        live(browser, port, f"#{namespace}/c")
        browser.until(f"document.querySelectorAll('#cluster tbody tr').length === {len(NODES)}")
        browser.until("document.querySelectorAll('#lookups polyline').length === 3")
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert browser.run(FAINT) == []
        assert browser.run(UNLABELLED) == []
        cut = (
            "[...document.querySelectorAll('#cluster :is(td, th, p)')].filter((e) => e.scrollWidth > e.clientWidth + 1)"
        )
        assert browser.run(f"{cut}.map((element) => element.textContent)") == []
        assert browser.problems == []
