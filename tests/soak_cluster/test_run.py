"""What the run itself says of a time: whether nothing was wrong in it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from tests.soak_cluster.run import Run


class Host:
    """What its sidecar has said so far."""

    def __init__(self) -> None:
        self.said = "INFO n2 is live, at 10.9.0.2:7411\nINFO connected with the engine redis://10.9.0.200:6379\n"

    def sidecar_log(self) -> str:
        return self.said


SAID = {
    "nothing": "",
    "that it is well": "INFO n3 is live, at 10.9.0.3:7411\n",
    "that a node is away": "WARNING n2 is not connected any more\n",
    "that the engine is": "WARNING the engine redis://a:6379 is lost (TimeoutError); this host goes on by itself\n",
}


@pytest.mark.parametrize("what", SAID)
@pytest.mark.parametrize("when", ["before it began", "in it"])
def test_a_time_is_whole_unless_nodes_have_parted_since_all_was_well(tmp_path: Path, what: str, when: str) -> None:
    options: dict[str, Any] = {"seed": 1, "nodes": 2, "workers": 1, "relay": "redis", "replicate": "all"}
    run = Run(tmp_path, argparse.Namespace(**options, lease_timeout=2.0, trace=False))
    host = Host()
    run.hosts = [Host(), host]  # type: ignore[list-item]  # as far as they go
    partings = run._partings()
    if when != "in it":
        host.said += SAID[what]
    with run._whole(partings):
        if when == "in it":
            host.said += SAID[what]
    parted = what not in ("nothing", "that it is well")
    assert [event["event"] for event in run.log.read()] == ([] if parted else ["whole"])
    assert run.parted == parted
