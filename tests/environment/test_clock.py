"""The wall clock is set, forward, back, and all over the place: nobody waits longer or shorter for that.

A shim in front of libc moves what processes take for the time of day, so that the machine's own clock can stay.
"""

from __future__ import annotations

import ast
import os
import re
import signal
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import coopshm
from tests import raw
from tests.conftest import clean
from tests.namespaces import command
from tests.procs import ended_well, forked, until

ROOT = Path(__file__).parents[2]
DAY = 86_400
WILD = -(2**63)

SHIM = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *shared; /* seconds by which the wall clock is wrong; INT64_MIN: each look tells another time */

__attribute__((constructor)) static void begin(void) {
    int fd = open(getenv("CLOCK_SHIM_FILE"), O_RDWR | O_CLOEXEC);
    shared = mmap(0, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
}

int clock_gettime(clockid_t id, struct timespec *t) {
    static __thread uint64_t state = 88172645463325252u;
    int rc = (int)syscall(SYS_clock_gettime, id, t);
    if (rc != 0 || (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE)) return rc;
    if (*shared != INT64_MIN) {
        t->tv_sec += *shared;
        return 0;
    }
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    t->tv_sec = (time_t)(state % 4000000000u);
    return 0;
}

int gettimeofday(struct timeval *restrict tv, void *restrict tz) {
    (void)tz;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    tv->tv_sec = t.tv_sec;
    tv->tv_usec = t.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (out) *out = t.tv_sec;
    return t.tv_sec;
}
"""


class Clock:
    """In a process under the shim."""

    def set(self, seconds: int) -> None:
        Path(os.environ["CLOCK_SHIM_FILE"]).write_bytes(struct.pack("<q", seconds))


def _round(c: coopshm.Cache, key: str, change: Callable[[], None], kill: bool, value: str) -> None:
    """Waiters wait for an owner; the clock changes; the owner publishes, or dies."""
    (hold, go), (here, there) = os.pipe(), os.pipe()

    def own() -> None:
        def fn() -> str:
            os.write(there, b".")
            os.read(hold, 1)
            if kill:
                os.kill(os.getpid(), signal.SIGKILL)
            return value

        c.cached(key, fn)

    owner = forked(own)
    assert os.read(here, 1) == b"."

    def wait() -> None:
        assert c.cached(key, lambda: value) == value

    before = c.stats()
    crew = [forked(wait) for _ in range(4)]
    until(lambda: c.stats().waiters >= 4)
    change()
    os.write(go, b".")
    ended_well(*crew)
    assert os.waitstatus_to_exitcode(os.waitpid(owner, 0)[1]) == (-signal.SIGKILL if kill else 0)
    after = c.stats()
    assert after.takeovers - before.takeovers == kill
    assert after.computations - before.computations == kill
    assert c.get(key) == value
    assert clean(c)


def _scenario(settings: Any) -> None:
    clock = Clock()
    coopshm.configure(settings)
    c = coopshm.open("c")
    for name, seconds in (("forward", DAY), ("back", -DAY), ("to zero", 0), ("wild", WILD)):
        for kill in (False, True):
            steady, wall = time.monotonic(), time.time()
            _round(c, f"{name} {kill}", lambda seconds=seconds: clock.set(seconds), kill, name)
            if not kill and seconds != WILD:
                assert abs(time.time() - wall) > DAY / 2, "the shim is there"
            assert time.monotonic() - steady < DAY / 2
        c.reset(name)
        told = c._attachment.segment.describe().reset_at_ns / 1e9
        if seconds != WILD:
            assert abs(told - time.time()) < DAY / 2, "and the core sees it, too"
        _dead_and_stopped_holders(c)
        _outcome_shared(c)
    clock.set(0)


def _dead_and_stopped_holders(c: coopshm.Cache) -> None:
    """The write lock is stolen from the dead, and passed by when the living do not run: by the steady clock."""
    (here, there), (hold, go) = os.pipe(), os.pipe()

    def hold_it(die: bool) -> None:
        c._attachment.segment.count(0, 0)
        raw.hold_write_lock(c)
        os.write(there, b".")
        if die:
            os.kill(os.getpid(), signal.SIGKILL)
        os.read(hold, 1)
        raw.drop_write_lock(c)

    before = c.stats()
    dead = forked(lambda: hold_it(die=True))
    os.waitpid(dead, 0)
    assert os.read(here, 1) == b"."
    assert c.cached(("dead", before.generation), lambda: 1) == c.get(("dead", before.generation))
    assert c.stats().steals == before.steals + 1
    stopped = forked(lambda: hold_it(die=False))
    assert os.read(here, 1) == b"."
    assert c.cached(("stopped", before.generation), lambda: 1) == 1
    assert c.get(("stopped", before.generation)) is None
    assert c.stats().bypasses["lock"] == before.bypasses["lock"] + 1
    os.write(go, b".")
    ended_well(stopped)
    assert c.cached(("stopped", before.generation), lambda: 2) == c.get(("stopped", before.generation)) == 2


def _outcome_shared(c: coopshm.Cache) -> None:
    """Outcomes expire by the steady clock: who waits for what is not stored shares it."""
    (hold, go), (here, there) = os.pipe(), os.pipe()

    def ask() -> None:
        def fn() -> object:
            os.write(there, b".")
            os.read(hold, 1)
            return coopshm.NoCache("shared")

        assert c.cached("not stored", fn) == "shared"

    crew = [forked(ask) for _ in range(5)]
    until(lambda: c.stats().waiters >= 4)
    assert os.read(here, 10) == b"."
    os.write(go, b".")
    ended_well(*crew)
    os.close(there)
    assert os.read(here, 10) == b"", "computed once"


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("clock")
    (folder / "shim.c").write_text(SHIM)
    library, now = folder / "shim.so", folder / "offset"
    now.write_bytes(bytes(8))
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", str(folder / "shim.c"), "-o", str(library)], check=True)
    return {"LD_PRELOAD": str(library), "CLOCK_SHIM_FILE": str(now)}


def test_the_wall_clock_is_set_while_others_wait(settings, namespace, shim) -> None:
    done = subprocess.run(
        ["sh", "-c", "exec " + command(_scenario, (settings(),))],
        env={**os.environ, **shim},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


# ---- and nothing in the code can notice

#: Names of the standard library that tell the time of day.
CLOCKS = {"time", "datetime", "date"}
WALL = {"time", "time_ns", "localtime", "gmtime", "ctime", "now", "utcnow", "today", "CLOCK_REALTIME"}


#: Who asks for it all the same, and why nothing is decided by the answer.
ASKS = {
    "admin/nodes.py: node_table": "how long ago, for people",
    "admin/top.py: _slowest": "how long ago, for people",
    "admin/top.py: _document": "when the document was made",
    "cluster/engine/nodes.py: Nodes.heard": "since when a node gives signs of life, for people",
    "cluster/mesh.py: Mesh._pair": "since when a node is connected, for people",
    "status/document.py: make": "when the document was made",
    "status/history.py: History.add": "under the lines of a chart; rates are by the steady clock",
}


def _who_asks(module: str, tree: ast.AST) -> list[str]:
    """The functions of a module that ask for the time of day, one for each time."""
    found: list[str] = []

    def visit(node: ast.AST, within: tuple[str, ...]) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            within = (*within, node.name)
        where = f"{module}: {'.'.join(within)}"
        if isinstance(node, ast.Attribute) and node.attr in WALL and ast.unparse(node).split(".")[0] in CLOCKS:
            found.append(where)
        if isinstance(node, ast.ImportFrom) and node.module in ("time", "datetime"):
            found.extend(where for name in node.names if name.name in WALL)
        for child in ast.iter_child_nodes(node):
            visit(child, within)

    visit(tree, ())
    return found


def test_python_code_asks_for_the_time_of_day_only_to_tell_people() -> None:
    found = [
        asks
        for path in sorted((ROOT / "coopshm").rglob("*.py"))
        for asks in _who_asks(path.relative_to(ROOT / "coopshm").as_posix(), ast.parse(path.read_text()))
    ]
    assert sorted(found) == sorted(ASKS), "each of them asks once, and nobody else does"


@pytest.mark.parametrize(
    "code",
    [
        "time.time()",
        "x = datetime.datetime.now()",
        "from time import time_ns",
        "def f(): time.clock_gettime(time.CLOCK_REALTIME)",
    ],
)
def test_who_asks_is_found(code: str) -> None:
    assert len(_who_asks("m.py", ast.parse(code))) == 1


def test_the_core_asks_for_the_time_of_day_only_to_tell_people() -> None:
    lines = [
        (path.name, line.strip())
        for path in sorted((ROOT / "csrc").rglob("*.[ch]"))
        for line in path.read_text().splitlines()
    ]
    asks = [(name, line) for name, line in lines if re.search(r"CLOCK_REALTIME|gettimeofday|\btime\(", line)]
    # csm_wall_ns; and, where libc has no sem_clockwait, one slice of a wait, which every waiter follows by another one.
    assert [name for name, _ in asks] == ["core.h", "wait.c"]
    told = [line for _, line in lines if "csm_wall_ns()" in line]
    assert told
    assert all(re.search(r"(created_ns|reset_at_ns|since_ns|ended_ns)\b.*csm_wall_ns\(\)", line) for line in told)
    fields = [line for _, line in lines if re.search(r"->(created_ns|reset_at_ns|since_ns|ended_ns)\b", line)]
    handed_on = re.compile(r"^out->|\.(\w+) = csm_load\(&\w+->\1\)")  # to people
    looks = [line for line in fields if "csm_wall_ns()" not in line and not handed_on.search(line)]
    assert looks == ["epoch->reset_at_ns = header->created_ns;"], "nothing is decided by them"
