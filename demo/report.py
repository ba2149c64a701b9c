"""Reads what was observed: the table, and the promises that must hold."""

import platform
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from demo import source
from demo.client import Reply
from demo.gunicorn_conf import workers
from demo.scenario import CONNECTIONS, RESETS, Observation
from demo.source import Computation

INFINITY = float("inf")


@dataclass(frozen=True)
class Run:
    """One way of caching: what the clients saw, what was computed, and how full the arena was."""

    seen: Observation
    computed: list[Computation]
    arena: str  # "2.1 of 16 MiB"

    def computed_for(self, release: int) -> int:
        return sum(computation.release == release for computation in self.computed)

    def periods(self) -> Iterator[tuple[float, float]]:
        """The times in which no reset was in progress, one for each generation."""
        begins = [-INFINITY, *(reset.ended for reset in self.seen.resets)]
        ends = [*(reset.began for reset in self.seen.resets), INFINITY]
        return zip(begins, ends, strict=True)

    def stale(self) -> int:
        """Replies to requests that were sent after a reset had returned, yet show an older release."""
        return sum(
            any(reply.began > reset.ended and reply.release < reset.release for reset in self.seen.resets)
            for reply in self.seen.replies()
        )

    def repeated(self) -> int:
        """Computations that a cache of this host had no need of, being of the same page and generation.

        Counted is only what belongs to one generation beyond doubt: the request turned to the cache after one
        reset had returned, and the computation began before the next reset. (A computation that a reset
        overtakes is discarded and done again; that is not a repetition.)
        """
        repeated = 0
        for begin, end in self.periods():
            times = Counter(c.name for c in self.computed if begin < c.asked and c.began < end)
            repeated += sum(count - 1 for count in times.values())
        return repeated

    def overtaken(self) -> int:
        """Computations that were done again for the same page and release, repeated ones included."""
        return len(self.computed) - len({(c.name, c.release) for c in self.computed})

    def differing(self) -> int:
        """Pages of which clients got more than one rendering in one generation."""
        differing = 0
        for begin, end in self.periods():
            renderings: dict[str, set[tuple[int, float]]] = {}
            for reply in self.seen.replies():
                if begin < reply.began and reply.ended < end:
                    renderings.setdefault(reply.page, set()).add((reply.worker, reply.rendered))
            differing += sum(len(found) > 1 for found in renderings.values())
        return differing


def broken_promises(run: Run) -> list[str]:
    """What must not happen with coopshm, in words; nothing when all is well."""
    found = {
        f"{run.stale()} replies were older than a reset that had returned": run.stale(),
        f"{run.repeated()} computations repeated one of the same generation": run.repeated(),
        f"{run.differing()} pages were served in two renderings of one generation": run.differing(),
    }
    return [text for text, count in found.items() if count]


def _latency(replies: list[Reply]) -> str:
    """Median and 99th percentile of the time from a request to the end of its reply."""
    times = sorted(reply.ended - reply.began for reply in replies)
    median, high = times[len(times) // 2], times[len(times) * 99 // 100]
    return f"{median * 1e3:,.1f} / {high * 1e3:,.1f} ms"


def _rush(run: Run) -> str:
    """From the first cold request until the last client had its last page."""
    cold = run.seen.cold
    return f"{max(reply.ended for reply in cold) - min(reply.began for reply in cold):,.1f} s"


ROWS: dict[str, Callable[[Run], str]] = {
    "requests": lambda run: f"{sum(1 for _ in run.seen.replies()):,}",
    "computations": lambda run: f"{len(run.computed):,}",
    "  on the cold cache": lambda run: f"{run.computed_for(1):,}",
    "  after each reset": lambda run: " ".join(str(run.computed_for(r.release)) for r in run.seen.resets),
    "cold request, p50 / p99": lambda run: _latency(run.seen.cold),
    "all pages served to all clients in": _rush,
    "warm request, p50 / p99": lambda run: _latency(run.seen.warm),
    "replies older than the reset": lambda run: f"{run.stale():,}",
    "arena": lambda run: run.arena,
}


def table(per_worker: Run, shared: Run) -> str:
    """The two ways side by side, for a terminal of 80 columns."""
    rows = [("", "per worker", "coopshm")]
    rows += [(label, cell(per_worker), cell(shared)) for label, cell in ROWS.items()]
    return "\n".join(f"{label:<36}{left:>22}{right:>22}" for label, left, right in rows)


def headline() -> str:
    return (
        f"{CONNECTIONS} clients, {workers} gunicorn workers, {len(source.MODULES)} pages on "
        f"Python {platform.python_version()}'s library, {RESETS} resets"
    )


def conclusion(per_worker: Run, shared: Run) -> str:
    """What was seen, in a sentence."""
    broken = broken_promises(shared)
    if broken:
        return "PROMISE BROKEN by coopshm: " + "; ".join(broken) + "."
    again = f" ({shared.overtaken()} more, as a reset overtook them)" if shared.overtaken() else ""
    return (
        f"Seen: with coopshm each page was computed once in each release for all workers{again}, and every "
        "request sent after a reset got a page of the new release; with a cache per worker, "
        f"{per_worker.computed_for(1)} computations were needed where {shared.computed_for(1)} do, and "
        f"{per_worker.stale():,} replies were older than a reset."
    )
