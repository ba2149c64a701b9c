"""`python -m tests.servers.table`: runs test_modes.py and writes what came of it into docs/servers.md, between markers.

test_docs.py holds that the table there has a row and a cell for each test, and that each says yes: so a test that is
added, dropped or renamed makes it fail until the table is written anew, and so does a cell that said no.
"""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from tests.servers.modes import COLUMNS, MODES, Cell, Mode
from tests.servers.site import ROOT

DOCUMENT = ROOT / "docs" / "servers.md"
BEGIN, END = "<!-- written by `make servers` -->\n", "<!-- end -->"
SERVERS = ("gunicorn", "gevent", "uWSGI", "uvicorn", "uvicorn-worker", "granian")


def run(arguments: Sequence[str]) -> tuple[int, dict[str, bool]]:
    """Run the tests. Returns pytest's status, and which have passed, by the ids of their cells."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory, "report.xml")
        tests = "tests/servers/test_modes.py"
        command = [sys.executable, "-m", "pytest", "-n", "auto", f"--junitxml={report}", *arguments, tests]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        cases = ElementTree.parse(report).iter("testcase")
        return status, {case.get("name", "").partition("[")[2].removesuffix("]"): len(case) == 0 for case in cases}


def render(passed: Mapping[str, bool]) -> str:
    """The table, and why some of its cells are empty."""
    reasons: list[str] = []

    def show(mode: Mode, column: str) -> str:
        reason = mode.checks[column]
        if not isinstance(reason, str):
            return "yes" if passed.get(Cell(mode, column, reason).id) else "**NO**"
        if reason not in reasons:
            reasons.append(reason)
        return f"({reasons.index(reason) + 1})"

    lines = [f"| | {' | '.join(COLUMNS)} |", "|---|" + ":-:|" * len(COLUMNS)]
    lines += [
        f"| {mode.server}: {mode.mode} | {' | '.join(show(mode, column) for column in COLUMNS)} |" for mode in MODES
    ]
    lines += ["", *(f"({number}) {reason}  " for number, reason in enumerate(reasons, 1))]
    return "\n".join(lines) + "\n"


def written() -> str:
    """What is between the markers."""
    return DOCUMENT.read_text().partition(BEGIN)[2].partition(END)[0]


def main() -> int:
    status, passed = run(sys.argv[1:])
    versions = [f"{name} {importlib.metadata.version(name)}" for name in SERVERS]
    head = f"\nOf a run with Python {platform.python_version()}, {', '.join(versions)}:\n\n"
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    DOCUMENT.write_text(f"{before}{BEGIN}{head}{render(passed)}{END}{after}")
    return status


if __name__ == "__main__":
    sys.exit(main())
