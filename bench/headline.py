"""The targets of the design, beside what was measured: `python -m bench headline` makes headline.md of the results.

It measures nothing: it reads what the questions wrote. "Best peer" is the fastest of those that do the same job: what
other processes stored, decoded into an object that is the caller's own. lru_cache, whose values no other process sees,
is the bound, not a peer. UltraDict hands out the one object that its process keeps, so it is compared where coopshm
does the same (hot objects "share").
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from .peers import LOCKING, LRU, OURS, PEERS

__all__ = ["Results", "page"]

_SHARES: Final = ("UltraDict",)
_OURS: Final = ("coopshm", "Cache.", *(peer.name for peer in OURS))

Found = Mapping[str, float]


class Row(NamedTuple):
    what: str
    target: str
    ours: str = "not measured"
    met: str = ""
    peer: str = ""
    ratio: str = ""


class Results:
    """The samples of all questions that have been asked."""

    def __init__(self, folder: Path) -> None:
        self.machines: dict[str, Mapping[str, str]] = {}
        self._tables: list[tuple[str, str, Sequence[Mapping[str, object]]]] = []
        for path in sorted(folder.glob("*.json")):
            data = json.loads(path.read_text())
            self.machines[data["question"]] = data["machine"]
            self._tables += [(data["question"], table["title"], table["samples"]) for table in data["tables"]]

    def samples(self, question: str, title: str, case: str) -> Iterator[tuple[str, Found]]:
        """Yield (contender, figures) of the table whose title begins so, where the case does."""
        for asked, titled, samples in self._tables:
            if asked == question and titled.startswith(title):
                for sample in samples:
                    if str(sample["case"]).startswith(case):
                        yield str(sample["contender"]), {k: v for k, v in sample.items() if isinstance(v, (int, float))}

    def one(self, question: str, title: str, case: str, contender: str) -> Found | None:
        return next((found for who, found in self.samples(question, title, case) if who == contender), None)

    def best(self, question: str, title: str, case: str, without: Sequence[str] = ()) -> tuple[str, Found] | None:
        """Return the fastest that is neither coopshm nor lru_cache, nor `without`."""
        peers = [
            (who, found)
            for who, found in self.samples(question, title, case)
            if not who.startswith((*_OURS, LRU.name, *without))
        ]
        return min(peers, key=lambda peer: peer[1]["median"], default=None)


def page(folder: Path) -> str:
    """Return headline.md, made of the results in `folder`."""
    results = Results(folder)
    lines = ["# Targets, and what was measured", ""]
    lines += ["| | target | coopshm | met | best peer | coopshm / best peer |", "| --- | --- | --: | --- | --- | --: |"]
    lines += ["| " + " | ".join(row) + " |" for row in _rows(results)]
    about = (__doc__ or "").partition("It measures nothing: ")[2].partition('"Best peer"')
    lines += [
        "",
        (about[1] + about[2]).strip(),
        "",
        "Medians; spread, method and all contenders: the page of each question.",
    ]
    lines += ["", "### Taken on", ""]
    first: Mapping[str, str] = next(iter(results.machines.values()), {})
    lines += [f"- {what}: {first[what]}" for what in ("CPU", "cores", "memory", "kernel", "Python") if what in first]
    peers = first.get("peers")
    lines += [f"- peers: {peers}"] if peers else []
    commits = sorted({f"{machine['commit']} ({machine['date'][:10]})" for machine in results.machines.values()})
    return "\n".join([*lines, f"- commit: {', '.join(commits)}", ""])


def _rows(results: Results) -> Iterator[Row]:
    yield from _hits(results)
    yield from _scaling(results)
    yield from _stampede(results)
    yield from _misses(results)
    yield from _resets(results)
    yield from _memory(results)
    yield from _cluster(results)


def _cluster(results: Results) -> Iterator[Row]:
    """On one machine, so that the hosts share its cores; the network between them takes no time to speak of."""
    what, target = "resets reaching 3 hosts, each with namespaces of its own", "p99 ≤ 10 ms"
    measured = []
    for relay in ("peers", "Redis, all"):
        found = results.one("cluster.reset", "Until it is in force", "3 hosts", relay)
        if found is not None:
            ours = f"{relay}: p99 {found['p99']:.1f} ms, median {found['median']:.1f} ms"
            measured.append(Row(what, target, ours, _met(found["p99"] <= 10)))
    yield from measured or [Row(what, target)]


def _memory(results: Results) -> Iterator[Row]:
    what, target = "index and headers, an entry", "≤ 64 B"
    memory = {who: found["median"] for who, found in results.samples("memory", "Bytes an entry", "1,000,000")}
    if memory:
        parts = ("index", "headers and padding", "log and the rest")
        ours = f"{memory['all']:.0f} B: " + ", ".join(f"{part} {memory[part]:.0f}" for part in parts)
        yield Row(what, target, ours, _met(memory["all"] <= 64))
    else:
        yield Row(what, target)


def _hits(results: Results) -> Iterator[Row]:
    for value in ("str, 20 characters", "int", "bytes, 1 KiB"):
        what, target = f"hot hit, {value}, `coopshm.cached`", "≤ 2 x lru_cache"
        ours, lru = _hit(results, value, "coopshm.cached"), _hit(results, value, LRU.name)
        if ours is None or lru is None:
            yield Row(what, target)
            continue
        times = ours / lru
        best = results.best("hit", "By value", value)
        yield Row(what, target, f"{_ns(ours)} = {times:.1f} x {_ns(lru)}", _met(times <= 2), *_beside(ours, best))
    what, target = "hit, dict of 4 items, `coopshm.cached`", "below every peer"
    yield _below(results, what, target, "dict, 4 items", "coopshm.cached", _SHARES)
    what = "the same, hot objects: share"
    yield _below(results, what, "", "dict, 4 items", "Cache.cached, hot objects: share")
    ours, lmdb = _hit(results, "bytes, 1 KiB", OURS[2].name), _hit(results, "bytes, 1 KiB", "py-lmdb")
    what, target = "hit, bytes of 1 KiB, hot objects off", "≤ 0.75 x py-lmdb"
    if ours is None or lmdb is None:
        yield Row(what, target)
    else:
        best = results.best("hit", "By value", "bytes, 1 KiB", _SHARES)
        met = _met(ours <= 0.75 * lmdb)
        yield Row(what, target, f"{_ns(ours)} = {ours / lmdb:.2f} x {_ns(lmdb)}", met, *_beside(ours, best))
    yield _below(results, "hit, list of 200 dicts", "", "list of 200 dicts", "coopshm.cached", _SHARES)
    for value in ("ndarray, 1 MiB", "ndarray, 100 MiB"):
        what, target = f"hit, {value}, hot objects off", "≤ 5 µs"
        row = _below(results, what, target, value, OURS[2].name, _SHARES)
        ours = _hit(results, value, OURS[2].name)
        yield row if ours is None else row._replace(met=_met(ours <= 5000))


def _below(results: Results, what: str, target: str, value: str, contender: str, without: Sequence[str] = ()) -> Row:
    ours, best = _hit(results, value, contender), results.best("hit", "By value", value, without)
    if ours is None:
        return Row(what, target)
    met = _met(best is None or ours <= best[1]["median"]) if target else ""
    return Row(what, target, _ns(ours), met, *_beside(ours, best))


def _hit(results: Results, value: str, contender: str) -> float | None:
    found = results.one("hit", "By value", value, contender)
    return None if found is None else found["median"]


def _scaling(results: Results) -> Iterator[Row]:
    for contender in (OURS[0].name, OURS[2].name):
        what, target = f"hits/s of 2 processes against 1, {contender}", "≥ 1.9 x"
        found = results.one("scaling", "Hits of processes", contender, "2 processes")
        lru = results.one("scaling", "Hits of processes", LRU.name, "2 processes")
        if found is None or lru is None:
            yield Row(what, target)
            continue
        peers = [
            (peer.name, sample)
            for peer in PEERS
            if (sample := results.one("scaling", "Hits of processes", peer.name, "2 processes"))
        ]
        best = max(peers, key=lambda peer: peer[1]["median"], default=None)
        said = "" if best is None else f"{best[0]}: {best[1]['ratio']:.2f} x, {_rate(best[1]['median'])}"
        ratio = "" if best is None else f"{found['median'] / best[1]['median']:.2f} in hits/s"
        ours = f"{found['ratio']:.2f} x, {_rate(found['median'])} (lru_cache: {lru['ratio']:.2f} x)"
        yield Row(what, target, ours, _met(found["ratio"] >= 1.9), said, ratio)


def _stampede(results: Results) -> Iterator[Row]:
    what, target = "cold key, 64 processes: computations", "1"
    ours = results.one("stampede", "Computations", "64", "all processes")
    locking = [
        (peer.name, count, took)
        for peer in LOCKING
        if (count := results.one("stampede", "Beside others: comp", "64", peer.name))
        and (took := results.one("stampede", "Beside others: from", "64", peer.name))
    ]
    naive = [
        found["median"] for peer in PEERS if (found := results.one("stampede", "Beside others: comp", "64", peer.name))
    ]
    best = min(locking, key=lambda one: (one[1]["max"], one[2]["median"]), default=None)
    others = f"without a lock: {min(naive):.0f}" if naive else ""
    if best is not None:
        others = f"{best[0]}: {best[1]['max']:.0f}; {others}"
    yield Row(what, target) if ours is None else Row(what, target, f"{ours['max']:.0f}", _met(ours["max"] == 1), others)
    what, target = "the same: last waiter after publication", "≤ 5 ms"
    last = results.one("stampede", "From publication", "64", "the last waiter")
    if last is None:
        yield Row(what, target)
    else:
        ms = f"{last['median'] / 1000:.1f} ms (worst {last['max'] / 1000:.1f})"
        yield Row(what, target, ms, _met(last["median"] <= 5000))
    what = "the same, beside peers that compute once"
    mine = results.one("stampede", "Beside others: from", "64", OURS[0].name)
    if mine is not None and best is not None:
        ratio = f"{mine['median'] / best[2]['median']:.2g}"
        yield Row(what, "", f"{mine['median']:.1f} ms", "", f"{best[0]}: {best[2]['median']:.0f} ms", ratio)


def _misses(results: Results) -> Iterator[Row]:
    what, target = "miss of 1 KiB: claim and publish, in Python", "≤ 10 µs"
    ours = results.one("miss", "A miss of 1 KiB", "1 KiB", "coopshm.cached")
    if ours is None:
        yield Row(what, target)
    else:
        # Those that, as coopshm does, see to it that nobody else computes the same.
        locking = {peer.name for peer in LOCKING}
        found = [one for one in results.samples("miss", "A miss of 1 KiB", "1 KiB") if one[0] in locking]
        best = min(found, key=lambda one: one[1]["median"], default=None)
        yield Row(what, target, _ns(ours["median"]), _met(ours["median"] <= 10_000), *_beside(ours["median"], best))
    what, target = "the same, in C", "≤ 1.5 µs"
    c = results.one("core", "In C", "miss of 1 KiB", "C")
    yield Row(what, target) if c is None else Row(what, target, _ns(c["median"]), _met(c["median"] <= 1500))


def _resets(results: Results) -> Iterator[Row]:
    for n in (10, 10**5, 10**6):
        what, target = f"reset of {n:,} entries", "≤ 20 µs"
        case = f"{n:,} entries"
        ours = results.one("reset", "A reset", case, "Cache.reset")
        if ours is None:
            yield Row(what, target)
            continue
        best = results.best("reset", "Beside others", case)
        ns = ours["median"] * 1000
        beside = _beside(ns, None if best is None else (best[0], {"median": best[1]["median"] * 1000}))
        yield Row(what, target, _ns(ns), _met(ns <= 20_000), *beside)
    what, target = "reset of 10,000,000 entries, in C", "≤ 20 µs"
    c = results.one("core", "In C", "reset of 10000000", "C")
    yield Row(what, target) if c is None else Row(what, target, _ns(c["median"]), _met(c["median"] <= 20_000))


def _beside(ours: float, best: tuple[str, Found] | None) -> tuple[str, str]:
    return ("", "") if best is None else (f"{best[0]}: {_ns(best[1]['median'])}", f"{ours / best[1]['median']:.2g}")


def _met(met: bool) -> str:
    return "yes" if met else "**no**"


def _ns(ns: float) -> str:
    if ns < 1000:
        return f"{ns:.0f} ns"
    return f"{ns / 1000:.1f} µs" if ns < 1e6 else f"{ns / 1e6:.1f} ms"


def _rate(a_second: float) -> str:
    return f"{a_second / 1e6:.1f} M/s" if a_second >= 1e6 else f"{a_second / 1e3:.0f} k/s"
