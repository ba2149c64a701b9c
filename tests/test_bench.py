"""What the benchmarks promise apart from figures: a failing peer ends nothing, and nothing is left."""

import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench import guard, headline, peers, report
from bench.common import Bench, Sample, Table, clean
from bench.peers.protocol import Peer, Running
from bench.timing import Timed, measure

LISTENS = """
import signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
signal.pause()
"""

SERVES = """
import sys
from pathlib import Path
from bench.peers.server import serving
folder = Path(sys.argv[1])
with serving([sys.executable, "-c", sys.argv[2], str(folder / "socket")], folder / "socket", folder / "log") as server:
    print(server.pid, flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def ready(_):
    yield Running(dict)


@contextlib.contextmanager
def broken(_):
    raise OSError("the server\nhas no room")
    yield


def run_server(folder, program):
    command = [sys.executable, "-c", SERVES, str(folder), program]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=Path(__file__).parent.parent)


@pytest.mark.parametrize("how", ["kill", "end"])
def test_a_server_ends_with_the_bench_however_that_ends(tmp_path, how):
    with run_server(tmp_path, LISTENS) as bench:
        server = os.pidfd_open(int(bench.stdout.readline()))
        if how == "kill":
            bench.send_signal(signal.SIGKILL)
        else:
            bench.stdin.close()
        select.select([server], [], [])  # readable when the process has ended
        os.close(server)


def test_a_server_that_does_not_start_is_quoted(tmp_path):
    with run_server(tmp_path, "raise SystemExit('no such option: -x')") as bench:
        assert "does not listen: no such option: -x" in bench.stderr.read()


def test_a_peer_that_is_missing_or_fails_is_named_and_the_others_run():
    good, missing = (
        Peer("good", ready),
        Peer("missing", ready, modules=("no_such_module",), programs=("no-such-program",)),
    )
    failing = Peer("failing", broken)
    bench = Bench(quick=True)
    with peers.started(bench, [missing, failing, good]) as running:
        assert list(running) == [good]
    assert any(note.startswith("left out: missing: no_such_module is not installed") for note in bench.notes)
    assert any("no-such-program is not installed" in note for note in bench.notes)
    assert "left out: failing: OSError: has no room" in bench.notes


def test_rounds_end_when_the_time_is_up_but_there_are_three():
    hasty, patient = Bench(quick=False, seconds=0.0), Bench(quick=False, seconds=1e9)
    assert list(hasty.rounds(10, 2)) == [0, 1, 2]
    assert "fewer rounds" in hasty.notes[0]
    assert list(patient.rounds(10, 2)) == list(range(10))
    assert patient.notes == []


def test_a_case_that_may_fail_is_left_out_and_another_ends_the_question():
    bench = Bench(quick=True)
    works, fails = Timed("int", "works", "1", {}), Timed("int", "fails", "1 / 0", {}, optional=True)
    ((sample,),) = measure(bench, range(2), [works, fails])
    assert (sample.contender, len(sample.values)) == ("works", 2)
    assert bench.notes == ["left out: fails, int: ZeroDivisionError: division by zero"]
    fails.optional = False
    with pytest.raises(ZeroDivisionError):
        measure(bench, range(2), [fails])


def test_what_a_killed_run_left_is_removed_and_nothing_else():
    shm, pid = Path("/dev/shm"), 2**30 + os.getpid()  # no process has such an id
    left = [shm / f"coopshm:bench-{pid}-0123:c", shm / f"warp_cache_bench-{pid}-0123.data"]
    others = shm / f"coopshm:bench-{pid}0-0123:c"
    folder = shm / f"coopshm-bench-{pid}-0123-x"
    folder.mkdir()
    try:
        for path in (*left, others, folder / "data.mdb"):
            path.touch()
        clean(pid)
        assert [path for path in (*left, folder) if path.exists()] == []
        assert others.exists()
    finally:
        others.unlink()


def test_a_multiple_is_of_the_same_round_or_of_the_medians_where_rounds_are_missing():
    base, twice = Sample("a", "base", [1.0, 10.0, 100.0]), Sample("a", "twice", [2.0, 20.0, 200.0])
    fewer = Sample("a", "fewer", [30.0, 30.0])
    table = Table("t", "ns", [base, twice, fewer], "base")
    assert report.ratio(table, twice) == 2.0
    assert report.ratio(table, fewer) == 3.0


def test_headline_says_who_is_ahead_and_what_was_not_measured(tmp_path):
    figures = {
        "functools.lru_cache": 30.0,
        "coopshm.cached": 75.0,
        "Cache.cached, hot objects: off": 100.0,
        "warp_cache, shared": 150.0,
        "py-lmdb": 250.0,
        "UltraDict": 10.0,
    }
    samples = [Sample("bytes, 1 KiB", who, [ns]) for who, ns in figures.items()]
    taken_on = {"commit": "abc", "date": "2026-11-22 12:00 UTC"}
    data = report.to_json("hit", [Table("By value", "ns a call", samples)], [], taken_on)
    report.write(tmp_path, "hit", "", data)
    rows = [line.strip("| ").split(" | ") for line in headline.page(tmp_path).splitlines() if line.startswith("|")]
    found = {row[0]: row for row in rows}
    ahead = found["hit, bytes of 1 KiB, hot objects off"]
    assert ahead[2:] == ["100 ns = 0.40 x 250 ns", "yes", "warp_cache, shared: 150 ns", "0.67"]
    assert found["hot hit, bytes, 1 KiB, `coopshm.cached`"][2:4] == ["75 ns = 2.5 x 30 ns", "**no**"]
    assert "not measured" in found["hit, ndarray, 1 MiB, hot objects off"][2]


def test_guard_fails_on_more_instructions_unless_other_tools_made_them(capsys):
    before, now = {("C", "find"): 400.0}, {("C", "find"): 405.0, ("C", "new"): 1.0}
    assert guard._compare("C", ("find", "new"), before, now, 5.0, 0.0, [])
    assert not guard._compare("C", ("find",), before, now, 4.0, 0.0, [])
    assert guard._compare("C", ("find",), before, now, 0.0, 0.02, [])
    assert guard._compare("C", ("find",), before, now, 4.0, 0.0, ["libc"])
    assert "not committed" in capsys.readouterr().out
