"""`python -m demo`: plays the scenario with each way of caching, prints the table, tells whether all held."""

import asyncio
import os
import signal
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import coopshm
from demo import report, scenario, server, source

NAMESPACE = f"demo-{os.getpid()}"  # no other run's
CONFIG = Path(__file__).with_name("coopshm.toml")


def play(way: str, directory: Path) -> report.Run:
    """Runs the server with one way of caching, and the clients against it."""
    directory.mkdir()
    os.environ.update(DEMO_DIR=str(directory), DEMO_CACHE=way)
    source.publish(1)
    print(f"{way}: ", end="", flush=True)
    began = time.monotonic()
    with server.gunicorn() as port:
        seen = asyncio.run(scenario.run(port))
        arena = fill() if way == "coopshm" else "-"
    print(f"{time.monotonic() - began:.0f} s", flush=True)
    return report.Run(seen, source.computations(), arena)


def fill() -> str:
    stats = coopshm.stats("pages")
    return f"{stats.bytes_used / 2**20:.1f} of {stats.memory_limit / 2**20:.0f} MiB"


def leftovers() -> list[str]:
    """Shared memory that this run has left behind."""
    return [name for name in os.listdir("/dev/shm") if NAMESPACE in name]


def main() -> int:
    os.environ.update(COOPSHM_NAMESPACE=NAMESPACE, COOPSHM_CONFIG=str(CONFIG))
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # leaves through `finally`
    print(report.headline(), flush=True)
    with tempfile.TemporaryDirectory(prefix="coopshm-demo-") as directory:
        try:
            per_worker = play("per-worker", Path(directory, "per-worker"))
            shared = play("coopshm", Path(directory, "coopshm"))
        finally:
            coopshm.open("pages").destroy()
    conclusion = textwrap.fill(report.conclusion(per_worker, shared), 80)
    print("", report.table(per_worker, shared), "", conclusion, sep="\n")
    if leftovers():
        print(f"left in /dev/shm: {', '.join(leftovers())}", file=sys.stderr)
    return 1 if report.broken_promises(shared) or leftovers() else 0


if __name__ == "__main__":
    sys.exit(main())
