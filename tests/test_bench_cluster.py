"""The benchmarks of clusters run, on hosts of their own, and leave nothing. What they measure is not looked at."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cluster.network import Host, Switch, until, why_not
from bench.cluster.nodes import PEERS, cluster, entries

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
