"""A short soak with a fixed seed. It looks at the exit code alone, and so at no time but that of hangs, by the rule of
checks.py; the watchdog only ends what hangs. `make soak SECONDS=...` runs longer ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SECONDS, WATCHDOG_S = 10, 300


def test_ten_seconds_of_everything_at_once_while_processes_are_killed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--seconds", str(SECONDS), "--seed", "1"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=WATCHDOG_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
