"""The benchmarks of clusters run, on hosts of their own, and leave nothing. What they measure is not looked at."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import report
from bench.cluster import summary
from bench.cluster.network import Host, Switch, until, why_not
from bench.cluster.nodes import PEERS, cluster, entries
from bench.common import Sample, Table

_reason = why_not()
# Root has them, so that CI cannot skip this.
pytestmark = pytest.mark.skipif(bool(_reason), reason=_reason if os.geteuid() == 0 else f"expected: {_reason}")

QUESTIONS = ["miss", "reset", "relay", "load", "wire", "fleet"]


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_answered(question, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "bench", f"cluster.{question}", "--quick", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent.parent,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / f"cluster.{question}.json").exists()
    assert "### Taken on" in done.stdout


def test_nothing_is_left_of_a_cluster():
    with cluster(PEERS, 2) as made:
        pids = [node.sidecar_pid for node in made.nodes] + [node.host.pid for node in made.nodes]
        assert [node.worker.call(entries) for node in made.nodes] == [0, 0]
        folders = [node.folder for node in made.nodes]
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    assert [folder for folder in folders if folder.exists()] == []


def test_what_a_worker_raises_is_told():
    with cluster(PEERS, 1) as made, pytest.raises(RuntimeError, match="negative"):
        made.nodes[0].worker.call(bytes, -1)


def test_bytes_on_the_wire_are_counted():
    switch = Switch()
    try:
        one, other = Host(switch, 1), Host(switch, 2)
        program = f"import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(bytes(1000), ('{other.address}', 9))"
        before = one.wire()[1]
        subprocess.run(one.command([sys.executable, "-c", program]), check=True)
        until(lambda: one.wire()[1] >= before + 1000, lambda: str(one.wire()))
        one.end()
        other.end()
    finally:
        switch.end()


def test_the_summary_has_a_row_for_whatever_was_measured_and_goes_where_the_document_wants_it(tmp_path):
    samples = [Sample("3 hosts", "peers", [1.5, 2.5]), Sample("3 hosts", "Redis, all", [2.0, 3.0])]
    tables = [Table("Until it is in force on all other hosts", "ms", samples)]
    fleet = [
        Sample("an entry: redis-server, µs of a core", f"{hosts} hosts, all", [10.0 * hosts]) for hosts in (10, 30)
    ]
    for question, found in (("cluster.reset", tables), ("cluster.fleet", [Table("Figures", "", fleet)])):
        taken_on = {"load average at the start": "0.1"}
        report.write(tmp_path, question, "", report.to_json(question, found, [], taken_on))
    page = summary.page(tmp_path)
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("|")]
    found = {row[0]: row for row in rows}
    assert found["a reset is in force on all of 3 hosts"][2:4] == ["2.0 ms (2.5 ms)", "2.5 ms (3.0 ms)"]
    assert found["engine for an entry of 1 KiB, µs of a core"][1] == "3,000"  # 300 hosts, from 100 µs and 300 µs
    document = tmp_path / "document.md"
    document.write_text(f"before\n{summary._FROM}\nold\n{summary._TO}\nafter\n")
    summary.into(document, page)
    summary.into(document, page)
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert text.count("a reset is in force on all of 3 hosts") == 1
