"""Sub-interpreters, in which uWSGI and mod_wsgi run further sites: coopshm says at once that it is not for them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.procs import WATCHDOG

#: Run in a process of its own: takes the steps that it is given, each in an interpreter, and prints a line for each.
PROGRAM = """
import json, sys

if sys.version_info >= (3, 13):
    import _interpreters
    create, run = lambda: _interpreters.create("legacy"), _interpreters.exec
else:
    import _xxsubinterpreters as _interpreters
    create, run = lambda: _interpreters.create(isolated=False), _interpreters.run_string

IN_ANOTHER = '''
try:
    import coopshm
except ImportError as exc:
    print(exc, flush=True)
else:
    print("imported", flush=True)
'''

def in_main():
    import coopshm
    coopshm.configure(json.loads(sys.argv[1]))
    print(coopshm.cached("c", "k", lambda: "main"), flush=True)

others = {"one": create(), "other": create()}
for step in sys.argv[2:]:
    in_main() if step == "main" else run(others[step], IN_ANOTHER)
"""


@pytest.mark.parametrize("steps", [["main", "one", "one", "main"], ["one", "other", "main", "one", "main"]])
def test_only_the_main_interpreter_has_coopshm_whoever_comes_first(settings, steps: list[str]) -> None:
    command = [sys.executable, "-c", PROGRAM, json.dumps(settings()), *steps]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WATCHDOG)
    assert (done.returncode, done.stderr) == (0, "")
    for step, said in zip(steps, done.stdout.splitlines(), strict=True):
        if step == "main":
            assert said == "main"
        else:
            assert "this is a sub-interpreter" in said
            assert "single-interpreter = true" in said
