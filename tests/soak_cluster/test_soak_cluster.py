"""A short soak of a cluster with a fixed seed: it looks at the exit code alone, and so at no time but that of hangs, by
the rule of judge.py. `make soak-cluster` runs longer ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.net.network import needs_hosts
from tests.procs import WATCHDOG

pytestmark = needs_hosts
SECONDS = 8


def test_eight_seconds_of_everything_at_once_on_three_hosts(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.soak_cluster", "--seconds", str(SECONDS), "--seed", "7"]
    done = subprocess.run(
        [*command, "--workers", "2", "--directory", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=WATCHDOG + 20,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
