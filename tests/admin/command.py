"""Runs coopshm-admin, and gets at the bytes of a segment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.conftest import SHM
from tests.procs import WATCHDOG

COMMAND = str(Path(sys.executable).with_name("coopshm-admin"))

#: Commands that only look at cache `c`.
LOOKING = ("list", "stats c", "keys c", "get c k", "flights c", "verify c --no-lock")

#: Where things lie in a segment; see csrc/layout.h.
LAYOUT, WRITE_LOCK, EPOCHS, EPOCH_BYTES, ENTRIES, VERSION = 8, 320, 640, 4320, 16, 224

#: Exit statuses.
FAILED, USAGE, NOTHING, UNUSABLE, DENIED, BUSY = 1, 2, 3, 4, 5, 6

Result = subprocess.CompletedProcess[str]

#: The command as another user. That one may not read the interpreter's files, so it is loaded before.
_AS_USER = """
import os, sys
import difflib, grp, json, pwd
__import__("tomllib" if sys.version_info >= (3, 11) else "tomli")
from coopshm.admin.cli import cli
uid = int(sys.argv.pop(1))
os.setgroups([]), os.setgid(uid), os.setuid(uid)
cli(prog_name="coopshm-admin")
"""


def command_of(uid: int) -> list[str]:
    """The beginning of a command line that runs coopshm-admin as a user."""
    return [COMMAND] if uid == os.geteuid() else [sys.executable, "-c", _AS_USER, str(uid)]


class Admin:
    """Runs the command in the test's namespace, in an empty directory."""

    def __init__(self, namespace: str, directory: Path) -> None:
        self.namespace, self.directory = namespace, directory

    def __call__(self, line: str, *more: str, **options: Any) -> Result:
        return self.run("--namespace", self.namespace, *line.split(), *more, **options)

    def run(self, *args: str, env: dict[str, str] | None = None, stdin: str = "") -> Result:
        return subprocess.run(
            [COMMAND, *args],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=self.directory,
            env={**os.environ, **(env or {})},
            timeout=WATCHDOG,
            check=False,
        )

    def text(self, line: str, *more: str, **options: Any) -> str:
        """What it prints; it succeeds, and has nothing to complain about."""
        done = self(line, *more, **options)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def binary(self, line: str) -> bytes:
        """The bytes it prints."""
        return subprocess.run(
            [COMMAND, "--namespace", self.namespace, *line.split()],
            stdout=subprocess.PIPE,
            cwd=self.directory,
            timeout=WATCHDOG,
            check=True,
        ).stdout

    def json(self, line: str, *more: str, **options: Any) -> Any:
        """The document it prints with --json behind the command."""
        return json.loads(self.text(line, *more, "--json", **options))

    def table(self, line: str) -> list[list[str]]:
        """The rows it prints, without the header."""
        return [row.split() for row in self.text(line).splitlines()[1:]]

    def refusal(self, line: str, *more: str, code: int = 1, **options: Any) -> str:
        """What it says when it fails, with and without --json; nothing is on stdout."""
        for ending in ([], ["--json"]):
            done = self(line, *more, *ending, **options)
            assert (done.returncode, done.stdout) == (code, ""), done
            assert "Traceback" not in done.stderr
        return done.stderr


def path_of(namespace: str, cache: str = "c") -> Path:
    return SHM / f"coopshm:{namespace}:{cache}"


def poke(namespace: str, at: int, data: bytes) -> None:
    fd = os.open(path_of(namespace), os.O_RDWR)
    assert os.pwrite(fd, data, at) == len(data)
    os.close(fd)
