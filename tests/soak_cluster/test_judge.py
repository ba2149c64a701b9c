"""The judge: it passes a history in which all is well, and finds each kind of violation that is planted in it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from coopshm import _codes
from tests.soak_cluster.histories import Histories
from tests.soak_cluster.judge import Judge

SECOND = 1_000_000_000
ZERO, ONE, TWO = [0, "1", ""], [1, "2", "n1#a"], [2, '"x"', "n2#b"]
LEASE_TIMEOUT = 2.0

Event = dict[str, Any]


def computes(id: str, at: int, stamp: list[Any] | None, key: int = 7, **other: Any) -> Event:
    who, host = id.rpartition("/")[0], id.partition("/")[0]
    source = {"1": 1, "2": 2, '"x"': "x"}[stamp[1]] if stamp else None
    made = {"event": "computes", "id": id, "who": who, "host": host, "cache": "roomy", "key": key, "asked": at - 1}
    made["looked"] = at - 3
    return {**made, "at": at, "nested": False, "patience": None, "ticket": 5, "stamp": stamp, "source": source, **other}


def computed(id: str, at: int, code: int | str = _codes.OK) -> Event:
    return {"event": "computed", "id": id, "before": at - 1, "at": at, "code": code}


def call(who: str, begin: int, end: int, made: Event | None, before: list[Any], **other: Any) -> Event:
    meta = {name: made[name] for name in ("id", "cache", "key", "at", "stamp", "source")} if made else None
    did = {"event": "call", "who": who, "host": who.partition("/")[0], "how": "cached", "cache": "roomy", "key": 7}
    did |= {"begin": begin, "end": end, "before": before, "after": before, "meta": meta, "text": "", "starved": 0}
    return {**did, "came": "value" if made else "nothing", **other}


def reset(who: str, begin: int, end: int, stamp: list[Any], done: str = "yes") -> Event:
    did = {"event": "reset", "who": who, "host": who.partition("/")[0], "cache": "roomy", "begin": begin, "end": end}
    return {**did, "stamp": stamp, "done": done, "text": ""}


def resets(who: str, at: int) -> Event:
    return {"event": "resets", "who": who, "cache": "roomy", "at": at}


def good() -> list[Event]:
    """A value computed on one host, and had by another; a reset on the one, applied on the other; a value again."""
    first, second = computes("n1/1/1", 1100, ZERO), computes("n2/1/1", 3100, ONE)
    return [
        {"event": "born", "who": "n1/1", "host": "n1", "pid": 11, "at": 900},
        {"event": "born", "who": "n2/1", "host": "n2", "pid": 11, "at": 900},
        first,
        computed("n1/1/1", 1200),
        call("n1/1", 1000, 1300, first, ZERO),
        call("n2/1", 1400, 1500, first, ZERO),
        {"event": "published", "host": "n1", "version": "2", "at": 2010},
        resets("n1/1", 2000),
        reset("n1/1", 2000, 2100, ONE),
        {"event": "published", "host": "n2", "version": "2", "at": 2200},
        call("n2/1", 2300, 2301, None, ONE, how="get"),
        second,
        computed("n2/1/1", 3200),
        call("n2/1", 3000, 3300, second, ONE),
        call("n1/1", 3400, 3500, second, ONE),
        {"event": "whole", "begin": 950, "end": 5000},
        {"event": "died", "who": "n1/1", "at": 9 * SECOND, "status": 0},
        {"event": "died", "who": "n2/1", "at": 9 * SECOND, "status": -9},
    ]


def judged(events: list[Event]) -> Judge:
    judge = Judge(Histories().read(copy.deepcopy(events)), LEASE_TIMEOUT, dead_after=5.0)
    return judge.judge(copy.deepcopy(events))


def kinds(events: list[Event]) -> set[str]:
    return {what for what, _ in judged(events).violations}


def test_a_history_in_which_all_is_well_passes() -> None:
    judge = judged(good())
    assert judge.violations == []
    assert judge.counts["calls"] == 5
    assert judge.counts["compared with resets"] == 1
    assert judge.elsewhere == []


def changed(what: Callable[[list[Event]], object]) -> list[Event]:
    events = good()
    what(events)
    return events


def of(events: list[Event], event: str, number: int = 0) -> Event:
    return [each for each in events if each["event"] == event][number]


PLANTED: dict[str, tuple[str, Callable[[list[Event]], object]]] = {
    "a value of another key": ("value", lambda e: of(e, "call", 1)["meta"].update(id="n1/1/1", at=1) or None),
    "a value that nobody computed": ("value", lambda e: of(e, "call", 1)["meta"].update(id="n9/9/9")),
    "a value that is not whole": ("value", lambda e: of(e, "call", 1).update(came="wrong", text="torn")),
    "a call that raises": ("error", lambda e: of(e, "call", 1).update(came="error", meta=None, text="KeyError")),
    "a value under an older stamp": ("stamp", lambda e: of(e, "call", 4).update(meta=of(e, "call", 0)["meta"])),
    "a value under a newer stamp": ("stamp", lambda e: of(e, "call", 1).update(meta=of(e, "call", 3)["meta"])),
    "a value that was void": ("stamp", lambda e: (of(e, "call", 1)["meta"].update(stamp=None))),
    "a host that goes back": ("stamp", lambda e: of(e, "call", 3).update(before=ZERO)),
    "a call that goes back": ("stamp", lambda e: of(e, "call", 3).update(before=TWO)),
    "a value older than the host's reset": ("P2", lambda e: e.append(reset("n1/1", 3150, 3250, ONE))),
    "the source not brought up to date": ("source", lambda e: of(e, "computes", 1).update(source=1)),
    "the callback not called": ("source", lambda e: e.remove(of(e, "published", 1))),
    "computed again after it was stored": (
        "once on the host",
        lambda e: e.extend([computes("n1/1/2", 1600, ZERO), computed("n1/1/2", 1700)]),
    ),
    "computed twice at the same time": (
        "once on the host",
        lambda e: e.extend([computes("n1/1/2", 1150, ZERO), computed("n1/1/2", 1160, _codes.NOT_STORED)]),
    ),
    "computed although it had come from elsewhere": (
        "once on the host",
        lambda e: e.extend([computes("n2/1/2", 1600, ZERO), computed("n2/1/2", 1700)]),
    ),
    "computed on two hosts": (
        "once in the cluster",
        lambda e: e.extend([computes("n3/1/1", 1150, ZERO), computed("n3/1/1", 1300)]),
    ),
    "computed on two hosts one after the other": (
        "once in the cluster",
        lambda e: e.extend([computes("n3/1/1", 1700, ZERO), computed("n3/1/1", 1800)]),
    ),
    "a call that takes too long": (
        "hang",
        lambda e: e.append(call("n1/1", 4000, 4000 + 4 * SECOND, None, ONE)),
    ),
    "a reset that raises": ("error", lambda e: e.append(reset("n1/1", 3600, 3700, ONE, done="error"))),
    "a worker that ends": ("crash", lambda e: of(e, "died").update(status=1)),
    "a host that does not answer": (
        "hang",
        lambda e: e.append({"event": "hangs", "host": "n1", "ask": "standing", "at": 4000}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("planted", PLANTED)
def test_what_is_planted_is_found(planted: str) -> None:
    kind, change = PLANTED[planted]
    assert kind in kinds(changed(change))


def test_a_value_older_than_a_reset_elsewhere_is_counted() -> None:
    # n3 resets, n2 is seen at that stamp, and then at a larger one under which a value is older.
    old = computes("n1/1/2", 3600, TWO, key=8)
    events = [
        *good(),
        {"event": "published", "host": "n1", "version": '"x"', "at": 3550},
        old,
        computed("n1/1/2", 3900),
        reset("n3/1", 3700, 3750, [2, "2", "n3#c"]),
        call("n2/1", 3800, 3801, None, [2, "2", "n3#c"], key=8, how="get"),
        call("n2/1", 4000, 4001, old, [2, "x", "n2#b"], key=8),
    ]
    assert judged(events).elsewhere == [100]


EXCUSED: dict[str, list[Event]] = {
    "killed": [computes("n1/2/1", 3600, ONE, key=8), computes("n1/1/2", 3700, ONE, key=8), computed("n1/1/2", 3800)],
    "failure or NoCache": [
        computes("n1/1/2", 3600, ONE, key=8),
        computed("n1/1/2", 3650, _codes.NOT_STORED),
        computes("n1/1/3", 3700, ONE, key=8),
        computed("n1/1/3", 3800),
    ],
}  # fmt: skip


@pytest.mark.parametrize("why", EXCUSED)
def test_computations_that_are_done_again_for_a_reason_are_counted(why: str) -> None:
    published = {"event": "published", "host": "n1", "version": "2", "at": 2010}
    judge = judged([*good(), published, *EXCUSED[why]])
    assert judge.violations == []
    assert judge.again_on_host[why] == 1


# What a computation has that began 2.5 s after another one, which goes on, and why it counts; or, that it does not.
SILENCE: dict[str, tuple[dict[str, Any], bool]] = {
    "its call waited": ({"asked": 3650}, True),
    "the sidecar had not looked": ({"looked": 3650}, True),
    "it looked, just": ({"looked": 3650 + SECOND}, False),
    "there was none": ({"looked": 0}, False),
}


@pytest.mark.parametrize("what", SILENCE)
def test_a_silence_of_the_sidecar_counts_from_when_it_last_looked(what: str) -> None:
    other, excused = SILENCE[what]
    at = 3650 + int(2.5 * SECOND)
    judge = judged(
        [
            *changed(lambda e: of(e, "whole").update(end=9 * SECOND)),
            computes("n1/1/2", 3645, ONE, key=8),
            computes("n2/1/2", at, ONE, key=8, **other),
            computed("n2/1/2", at + 100),
            computed("n1/1/2", at + 50),
        ]
    )
    assert judge.again_in_cluster["no answer in lease_timeout"] == excused
    assert {what for what, _ in judge.violations} == (set() if excused else {"once in the cluster"})


IN_CLUSTER: dict[str, dict[str, Any]] = {
    "nested": {"nested": True},
    "the call's timeout": {"patience": 1e-9},
}


@pytest.mark.parametrize("why", IN_CLUSTER)
def test_what_the_documentation_excepts_is_counted(why: str) -> None:
    other = {"asked": 3649, **IN_CLUSTER[why]}
    events = [
        *changed(lambda e: of(e, "whole").update(end=9 * SECOND)),
        computes("n1/1/2", 3645, ONE, key=8),
        computes("n2/1/2", 3650, ONE, key=8, **other),
        computed("n2/1/2", 3750),
        computed("n1/1/2", 3700),
    ]
    judge = judged(events)
    assert judge.violations == []
    assert judge.again_in_cluster[why] == 1


def test_what_was_begun_when_something_was_wrong_may_be_taken_over_later() -> None:
    events = [
        *changed(lambda e: of(e, "whole").update(begin=3600)),
        computes("n1/1/2", 3500, ONE, key=8),
        computes("n2/1/2", 3650, ONE, key=8),
        computed("n2/1/2", 3660),
        computed("n1/1/2", 3670, "alone"),
        computes("n1/3/1", 3680, ONE, key=8, asked=3610),
        computed("n1/3/1", 3690),
    ]
    judge = judged(events)
    assert judge.violations == []
    assert judge.again_in_cluster["begun when something was wrong"] == 1


@pytest.mark.parametrize("patience", [1e-9, None])
@pytest.mark.parametrize("asked", [3690, 3710], ids=["waited for it", "came after it"])
def test_who_takes_over_has_the_reason_of_the_killed_one(patience: float | None, asked: int) -> None:
    events = [
        *changed(lambda e: of(e, "whole").update(end=9 * SECOND)),
        {"event": "born", "who": "n1/2", "host": "n1", "pid": 12, "at": 3500},
        computes("n1/2/1", 3640, ONE, key=8, asked=3630, patience=patience),
        computes("n2/1/2", 3650, ONE, key=8),
        computed("n2/1/2", 3660),
        {"event": "died", "who": "n1/2", "at": 3700, "status": -9},
        computes("n1/1/2", 3720, ONE, key=8, asked=asked),
        computed("n1/1/2", 3730),
    ]
    judge = judged(events)
    if patience is not None and asked < 3700:
        assert judge.violations == []
        assert judge.again_in_cluster["the call's timeout"] == 1
    else:
        assert {what for what, _ in judge.violations} == {"once in the cluster"}


@pytest.mark.parametrize("known", ["finished", "cut short"])
def test_a_reset_on_its_way_has_what_was_waited_for_computed_again(known: str) -> None:
    events = [
        *good(),
        computes("n1/1/2", 3600, ONE, key=8),
        resets("n3/1", 3620),
        *([reset("n3/1", 3620, 3640, TWO)] if known == "finished" else []),
        computes("n2/1/2", 3650, ONE, key=8),
        computed("n2/1/2", 3660),
        computed("n1/1/2", 3670),
    ]
    judge = judged(events)
    assert judge.violations == []
    assert judge.again_in_cluster["a reset on its way"] == 1


@pytest.mark.parametrize(
    "reason",
    [
        {"event": "stopped", "host": "n1", "pid": 11, "begin": 4000, "end": 4000 + 4 * SECOND},
        {"event": "fault", "what": "partition", "on": "n2", "begin": 3000, "end": 3 * SECOND},
        computes("n2/1/5", 4100, TWO),
    ],
    ids=["stopped itself", "a fault", "computed elsewhere"],
)
def test_a_call_may_take_as_long_as_it_has_a_reason(reason: Event) -> None:
    long = call("n1/1", 4000, 4000 + 4 * SECOND, None, ONE)
    published = {"event": "published", "host": "n2", "version": '"x"', "at": 4050}
    assert kinds([*good(), long]) == {"hang"}
    assert kinds([*good(), published, long, reason]) == set()


@pytest.mark.parametrize("after", [ONE, TWO], ids=["under one stamp", "through a reset"])
def test_a_call_may_take_longer_for_each_stamp_that_it_comes_to(after: list[Any]) -> None:
    """Nobody else has seen that one by then."""
    long = call("n1/1", 4000, 4000 + int(3.5 * SECOND), None, ONE, after=after)
    assert kinds([*good(), long]) == ({"hang"} if after == ONE else set())
