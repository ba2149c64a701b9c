"""What is told through `logging`: the events of docs/operating.md, by real processes; and nothing unasked."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import coopshm
from coopshm import _codes
from tests import raw
from tests.procs import Child

DOCS = Path(__file__).parent.parent / "docs" / "operating.md"

#: What each event's fields are, besides `event`, `cache` and `namespace`.
FIELDS = {
    "created": {"memory_limit", "max_items", "generation", "pid", "uid"},
    "attached": {"generation"},
    "settings": set(),
    "reset": {"cause", "generation", "former", "version", "pid", "uid"},
    "noticed": {"generation", "at_ns", "former", "version", "pid", "uid"},
    "full": {"reason", "generation"},
    "bypass": {"key", "cause", "reason"},
    "takeover": {"key", "former_pid"},
    "repair": {"lock", "dead_pid", "times"},
    "rejoined": {"generation"},
    "lost": {"reason"},
    "destroyed": {"pid", "uid"},
}


def _listen(events: list[dict[str, Any]], level: int = logging.INFO) -> Callable[[], None]:
    """Collect the events that this process tells from now on. Returns what ends that."""
    handler = logging.Handler(level)

    def emit(record: logging.LogRecord) -> None:
        events.append({**record.coopshm, "level": record.levelname, "message": record.getMessage()})  # type: ignore[attr-defined]

    handler.emit = emit  # type: ignore[method-assign]
    logger = logging.getLogger("coopshm")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)

    def end() -> None:
        logger.removeHandler(handler)
        logger.setLevel(before)

    return end


@pytest.fixture
def told(namespace: str) -> Any:
    """The events that this process tells."""
    events: list[dict[str, Any]] = []
    end = _listen(events)
    yield events
    end()
    for event in events:
        fields = event.keys() - {"event", "cache", "namespace", "level", "message"}
        assert FIELDS[event["event"]] <= fields | {"holder_pid"}, event
        assert fields - {"holder_pid"} <= FIELDS[event["event"]], event
        assert (event["cache"], event["namespace"]) == ("c", namespace)
        assert event["message"].startswith(f"cache 'c' (/dev/shm/coopshm:{namespace}:c): ")


def _names(events: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in events]


def test_creation_reset_and_destruction_are_told_with_who_and_what(cache, told) -> None:
    c = cache()
    c.reset()
    c.reset(version="2026-11")
    c.reset(version="2026-11")
    c.destroy()
    assert _names(told) == ["created", "reset", "reset", "destroyed"]
    assert {event["level"] for event in told} == {"INFO"}
    assert {(event["pid"], event["uid"]) for event in told} == {(os.getpid(), os.geteuid())}
    assert told[0]["memory_limit"] == 4 * 1024 * 1024
    assert [(e["former"], e["version"], e["generation"], e["cause"]) for e in told[1:3]] == [
        (1, 2, 2, "reset"),
        (2, "2026-11", 3, "reset"),
    ]


def _attach(conn: Any, settings: Any, level: int, act: str) -> Any:
    """Attach, do `act`, and return what was told meanwhile."""
    events: list[dict[str, Any]] = []
    _listen(events, level)
    coopshm.configure(settings)
    c = coopshm.open("c")
    conn.send("attached")
    if act == "reset":
        c.reset(version="of another")
    elif act == "look":
        conn.recv()
        c.cached("k", lambda: 1)
        c.cached("k2", lambda: 1)
    return events


def test_one_process_of_the_host_tells_people_that_another_has_reset_the_others_who_debug(
    settings, cache, told
) -> None:
    c = cache()
    others = [Child(_attach, settings(), logging.DEBUG, "look") for _ in range(3)]
    for other in others:
        assert other.receive() == "attached"
    resetter = Child(_attach, settings(), logging.INFO, "reset")
    assert resetter.receive() == "attached"
    assert _names(resetter.result()) == ["reset"]
    for other in others:
        other.send("go on")
    found = [other.result() for other in others]
    assert [_names(events) for events in found] == [["attached", "noticed"]] * 3
    assert sorted(events[1]["level"] for events in found) == ["DEBUG", "DEBUG", "INFO"]
    for events in found:
        noticed = events[1]
        assert (noticed["pid"], noticed["former"], noticed["version"]) == (resetter.pid, 1, "of another")
        assert noticed["generation"] == c.stats().generation
    c.cached("k", lambda: 2)
    assert _names(told) == ["created"], "this one came too late to tell people"


def test_who_is_not_listened_to_leaves_it_to_others(settings, cache, told) -> None:
    c = cache()
    quiet = Child(_attach, settings(), logging.ERROR, "look")
    assert quiet.receive() == "attached"
    resetter = Child(_attach, settings(), logging.INFO, "reset")
    assert resetter.receive() == "attached"
    resetter.result()
    quiet.send("go on")
    assert quiet.result() == []
    c.cached("k", lambda: 2)
    assert _names(told) == ["created", "noticed"]


def _store(_: Any, settings: Any) -> None:
    coopshm.configure(settings)
    coopshm.cached("c", "k", lambda: 1)


def test_a_cold_start_and_another_configured_version_are_told_as_resets(settings, told) -> None:
    Child(_store, settings(version="a")).result()
    coopshm.configure(settings(version="a"))
    coopshm.open("c")
    Child(_store, settings(version="b", lifetime="host")).result()
    coopshm.configure(settings(version="c"))
    coopshm.open("c").cached("k", lambda: 1)
    causes = [(e["event"], e["former"], e["version"], e.get("cause")) for e in told]
    assert causes == [
        ("reset", "a", "a", "no live process had it"),
        ("reset", "b", "c", "configured version"),
    ]


def test_other_settings_are_told(settings, cache, told) -> None:
    c = cache()
    coopshm.configure(settings(memory_limit="8 MiB"))
    assert coopshm.open("c").stats().memory_limit == c.stats().memory_limit
    assert _names(told) == ["created", "settings"]
    assert told[1]["level"] == "WARNING"


def test_a_full_cache_is_told_once_in_a_generation(cache, told) -> None:
    c = cache(memory_limit="64 KiB")
    for turn in range(2):
        for n in range(30):
            c.cached((turn, n), lambda: bytes(4000))
        c.reset()
    full = [event for event in told if event["event"] == "full"]
    assert [event["generation"] for event in full] == [1, 2]
    assert {event["reason"] for event in full} == {"memory_limit is reached"}
    assert "bypass" not in _names(told), "the statistics have the rest"


def test_a_bypass_is_told_once_of_each_cause_in_a_generation(cache, told) -> None:
    c = cache(memory_limit="64 KiB")
    for _ in range(3):
        for n in range(3):
            c.cached(("large", n), lambda: bytes(100_000))
            c.cached(("lock", n), threading.Lock)
        c.reset()
    bypasses = [event for event in told if event["event"] == "bypass"]
    assert [event["cause"] for event in bypasses] == ["too_large", "encode"] * 3
    assert {event["level"] for event in bypasses} == {"WARNING"}
    assert bypasses[0]["key"] == "('large', 0)"
    assert "lock" in bypasses[1]["reason"], "what was raised"


def test_the_process_that_holds_the_lock_and_does_not_run_is_named(cache, told) -> None:
    c = cache()
    c.cached("before", lambda: 1)
    raw.hold_write_lock(c)
    try:
        assert c.cached("k", lambda: 2) == 2
    finally:
        raw.drop_write_lock(c)
    (bypass,) = [event for event in told if event["event"] == "bypass"]
    assert (bypass["cause"], bypass["key"], bypass["holder_pid"]) == ("lock", "'k'", os.getpid())
    assert f"process {os.getpid()}" in bypass["message"]


def _compute_for_ever(conn: Any, settings: Any) -> None:
    coopshm.configure(settings)
    coopshm.cached("c", ("key", 1), lambda: (conn.send("computing"), conn.recv()))


def test_a_takeover_is_told_with_the_key_and_from_whom(settings, cache, told) -> None:
    c = cache()
    owner = Child(_compute_for_ever, settings())
    assert owner.receive() == "computing"
    owner.kill()
    assert c.cached(("key", 1), lambda: "mine") == "mine"
    (takeover,) = [event for event in told if event["event"] == "takeover"]
    assert (takeover["level"], takeover["key"], takeover["former_pid"]) == ("WARNING", "('key', 1)", owner.pid)
    assert c.stats().takeovers == 1


def _hold(conn: Any, settings: Any, lock: str) -> None:
    coopshm.configure(settings)
    c = coopshm.open("c")
    if lock == "write":
        raw.hold_write_lock(c)
    else:
        assert c._attachment.segment.reset_lock(1) == _codes.OK
    conn.send("held")
    conn.recv()


@pytest.mark.parametrize("lock", ["write", "reset"])
def test_a_lock_taken_from_the_dead_is_told_with_whose_it_was(settings, cache, told, lock) -> None:
    c = cache()
    c.cached("before", lambda: 1)
    holder = Child(_hold, settings(), lock)
    assert holder.receive() == "held"
    holder.kill()
    c.cached("k", lambda: 1)
    c.reset()
    (repair,) = [event for event in told if event["event"] == "repair"]
    assert (repair["lock"], repair["dead_pid"], repair["times"]) == (lock, holder.pid, 1)
    assert c.stats().steals == (lock == "write")


def test_a_lock_that_is_stolen_to_publish_is_told_as_well(settings, cache, told) -> None:
    c = cache()

    def fn() -> int:
        holder = Child(_hold, settings(), "write")
        assert holder.receive() == "held"
        holder.kill()
        return 1

    c.cached("k", fn)
    assert [event["lock"] for event in told if event["event"] == "repair"] == ["write"]


def _destroy(_: Any, settings: Any) -> None:
    coopshm.configure(settings)
    coopshm.open("c").destroy()


def test_rejoining_after_a_destruction_is_told(settings, cache, told) -> None:
    c = cache()
    c.cached("k", lambda: 1)
    Child(_destroy, settings()).result()
    c.cached("k2", lambda: 1)
    assert _names(told) == ["created", "created", "rejoined"]
    assert told[2]["level"] == "WARNING"


def test_what_cannot_be_rejoined_is_told_once(cache, namespace, told) -> None:
    c = cache(hot_objects=False)
    path = Path(f"/dev/shm/coopshm:{namespace}:c")
    path.unlink()
    path.mkdir()
    try:
        for n in range(3):
            assert c.cached(n, lambda n=n: n) == n
    finally:
        path.rmdir()
    lost = told[1]
    assert _names(told) == ["created", "lost"]
    assert (lost["level"], "remove it" in lost["reason"]) == ("ERROR", True)


def test_without_being_asked_nothing_is_printed(namespace) -> None:
    program = (
        "import coopshm, threading\n"
        f"coopshm.configure({{'namespace': {namespace!r}, 'caches': {{'c': {{'memory_limit': '64 KiB'}}}}}})\n"
        "for n in range(30): coopshm.cached('c', n, lambda: bytes(4000))\n"
        "coopshm.cached('c', 'lock', threading.Lock)\n"
        "coopshm.reset('c'); coopshm.open('c').destroy()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_event_is_documented_with_its_fields() -> None:
    section = DOCS.read_text().partition("\n## Events\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+)[^|]*\|[^|]*\|([^|]*)\|$", section, re.MULTILINE)
    assert {name for name, _, _ in rows} == set(FIELDS)
    for name, _, fields in rows:
        assert set(re.findall(r"`(\w+)`", fields)) - {"holder_pid"} == FIELDS[name], name
