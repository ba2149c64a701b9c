"""Whole hosts with a sidecar each, while everything about them goes wrong at random: `make soak-cluster`.

Workers on each host call, compute, nest, fail and reset; workers and sidecars are killed and stopped, links fail in
every way, the source's callback fails. Now and then all is mended, and must be well again. In the end the histories are
judged (judge.py). Exit code 1 on any violation.

What is random follows from --seed; what the machine does, does not.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.net import network

from .histories import Histories
from .judge import Judge
from .report import table
from .run import Run


def arguments() -> argparse.Namespace:
    assert __doc__
    parser = argparse.ArgumentParser(prog="python -m tests.soak_cluster", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None, help="of all that is random; default: by chance")
    parser.add_argument("--nodes", type=int, default=3, choices=range(2, 11), metavar="N", help="hosts (default 3)")
    parser.add_argument("--workers", type=int, default=3, help="on each host (default 3)")
    parser.add_argument("--relay", choices=("peers", "redis"), default="peers")
    parser.add_argument("--replicate", choices=("all", "on_demand"), default="all", help="over redis (default all)")
    parser.add_argument("--lease-timeout", type=float, default=2.0, help="seconds (default 2)")
    parser.add_argument(
        "--trace", action="store_true", help="write down what sidecars of the peers relay do about leases"
    )
    parser.add_argument(
        "--directory", type=Path, help="where all is written, and kept; default: removed if all is well"
    )
    options = parser.parse_args()
    if options.seed is None:
        options.seed = secrets.randbits(32)
    return options


def main() -> int:
    options = arguments()
    if network._reason:
        print(f"soak of a cluster: not here: {network._reason.removeprefix('expected: ')}")
        return 0 if network._reason.startswith("expected: ") else 1
    directory = Path(tempfile.mkdtemp(prefix="soak-")) if options.directory is None else options.directory
    again = (
        f"python -m tests.soak_cluster --seconds {options.seconds:g} --seed {options.seed} --nodes {options.nodes}"
        f" --workers {options.workers} --lease-timeout {options.lease_timeout:g} --relay {options.relay}"
    ) + (f" --replicate {options.replicate}" if options.relay == "redis" else "")
    print(f"soak of a cluster: {again}", flush=True)
    begin = time.monotonic()
    directory.mkdir(exist_ok=True)
    directory.mkdir(exist_ok=True)
    run = Run(directory, options)
    run.run(options.seconds)
    seconds = time.monotonic() - begin
    histories = Histories().read(run.log.read())
    judge = Judge(histories, options.lease_timeout).judge(run.log.read())
    wrong = table(run, histories, judge, seconds, again)
    if not wrong and options.directory is None:
        shutil.rmtree(directory)
    else:
        print(f"what was written down is in {directory}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
