"""`python -m bench [QUESTION ...] [--quick] [--out DIR]`, from the root of the source tree.

Without a QUESTION all of them but those about clusters (all of those: `cluster`), each in a process of its own, since a
segment stays mapped for as long as the process lives. Results go to bench/results/ (QUESTION.md, .json and .svg) and to
the standard output; headline.md puts the targets beside them.
--quick is a smoke run of a few seconds: it shows that the scripts work, its figures mean nothing, and it
writes files only into a DIR given with --out.
"""

from __future__ import annotations

import argparse
import importlib
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from . import headline, machine, plots, report
from .cluster import summary
from .common import Bench, clean

#: The questions, and the seconds that the rounds of each may take; then come starting peers, filling caches and, for
#: those without a number, what takes as long as it takes. All together is less than 12 minutes.
QUESTIONS = {
    "hit": 85.0,
    "miss": 30.0,
    "core": 0.0,
    "index": 0.0,
    "instructions": 0.0,
    "stampede": 40.0,
    "stall": 20.0,
    "takeover": 40.0,
    "reset": 30.0,
    "scaling": 80.0,
    "mixed": 40.0,
    "memory": 0.0,
    "interference": 22.0,
}

#: Those about clusters: `cluster` stands for all of them. Altogether less than 10 minutes.
CLUSTER = {
    "cluster.miss": 40.0,
    "cluster.reset": 80.0,
    "cluster.relay": 60.0,
    "cluster.load": 60.0,
    "cluster.wire": 0.0,
    "cluster.fleet": 0.0,
}

#: A question takes a minute or two; one that takes so many seconds hangs.
_WATCHDOG = 300.0
#: What was told to end has so many to do so: servers are stopped, and what the run made is removed.
_PATIENCE = 30.0

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure coopshm.")
    parser.add_argument(
        "question",
        nargs="*",
        help=f"any of: {', '.join(QUESTIONS)} (default: all of these), {', '.join(CLUSTER)} (cluster: all of those)",
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run: worthless figures, in seconds")
    parser.add_argument("--no-peers", action="store_true", help="leave other libraries out")
    parser.add_argument("--out", type=Path, help="folder for the results (default: bench/results)")
    options = parser.parse_args()
    unknown = [
        name
        for name in options.question
        if name not in (*QUESTIONS, *CLUSTER, "cluster", "cluster.summary", "headline")
    ]
    if unknown:
        parser.error(f"no such question: {', '.join(unknown)}; there are {', '.join((*QUESTIONS, *CLUSTER))}")
    out: Path | None = options.out or (None if options.quick else RESULTS)
    if options.quick and out is not None and out.resolve() == RESULTS.resolve():
        parser.error("figures of --quick mean nothing and do not belong into bench/results")
    signal.signal(signal.SIGTERM, _exit)
    names = options.question or [*QUESTIONS, "headline"]
    if "cluster" in names:
        at = names.index("cluster")
        names[at : at + 1] = [*CLUSTER, "cluster.summary"]
    if names in (["headline"], ["cluster.summary"]):
        _SUMMARIES[names[0]](out)
        return 0
    if len(names) == 1:
        answer(names[0], options.quick, not options.no_peers, out)
        return 0
    failed = []
    for name in names:
        if name in _SUMMARIES:
            _SUMMARIES[name](out)
            continue
        command = [sys.executable, "-m", "bench", name, *(["--quick"] if options.quick else [])]
        command += ["--out", str(out)] if out is not None else []
        command += ["--no-peers"] if options.no_peers else []
        status = _wait_for(command)
        if status != 0 and not options.no_peers:
            # What crashed or hung may be a library beside which coopshm was measured.
            print(f"{name} failed ({status}); once more, without peers", file=sys.stderr)
            status = _wait_for([*command, "--no-peers"])
        if status != 0:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _wait_for(command: list[str]) -> int:
    """Run a command; return its exit status. What ends this process ends the command, which cleans up."""
    with subprocess.Popen(command) as child:
        try:
            return child.wait(_WATCHDOG)
        except subprocess.TimeoutExpired:
            return _end(child)
        except SystemExit:  # a SIGTERM; a Ctrl-C goes to both
            _end(child)
            raise
        finally:
            clean(child.pid)  # what crashed or was killed removed nothing; its servers ended with it


def _end(child: subprocess.Popen[bytes]) -> int:
    child.terminate()
    try:
        return child.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def answer(name: str, quick: bool, peers: bool, out: Path | None) -> None:
    """Answer one question in this process, print the results, and write them unless `out` is None."""
    question = importlib.import_module(f"bench.{name}")
    shown = shlex.join(["python", "-m", "bench", name, *(["--quick"] if quick else [])])
    taken_on = {"command": shown, **machine.describe(peers)}
    started = time.monotonic()
    with Bench(quick, peers, {**QUESTIONS, **CLUSTER}[name]) as bench:
        tables = question.run(bench)
    taken_on["took"] = f"{time.monotonic() - started:.0f} s"
    if quick:
        bench.note("a quick run: these figures mean nothing")
    pictures = plots.draw(tables, out, name) if out is not None else []
    if pictures is None:
        print(plots.MISSING, file=sys.stderr)
    page = report.markdown(name, question.__doc__ or "", tables, bench.notes, taken_on, pictures or ())
    print(page, flush=True)
    if out is not None:
        report.write(out, name, page, report.to_json(name, tables, bench.notes, taken_on))


def summarize(out: Path | None) -> None:
    """Write and print headline.md, made of the results in `out`."""
    page = headline.page(out or RESULTS)
    print(page, flush=True)
    if out is not None:
        (out / "headline.md").write_text(page, encoding="utf-8")


def summarize_cluster(out: Path | None) -> None:
    """Print the figures of docs/cluster.md, made of the results in `out`; write them there if that is bench/results."""
    page = summary.page(out or RESULTS)
    print(page, flush=True)
    if out is not None and out.resolve() == RESULTS.resolve():
        summary.into(RESULTS.parents[1] / "docs" / "cluster.md", page)


_SUMMARIES = {"headline": summarize, "cluster.summary": summarize_cluster}


def _exit(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)  # so that what the run made is removed


if __name__ == "__main__":
    sys.exit(main())
