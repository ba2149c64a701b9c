"""top: pictures and documents of what caches do, while they do it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from typing import Any

import pytest

import coopshm
from coopshm.admin.sampling import Sampler
from tests.admin.command import COMMAND, NOTHING, USAGE, WRITE_LOCK, path_of, poke
from tests.admin.screen import Screen
from tests.procs import WATCHDOG, Child


def _compute(conn: Any, settings: Any) -> None:
    coopshm.configure(settings)
    for key in iter(conn.recv, None):
        coopshm.cached("c", key, lambda: (conn.send("computing"), conn.recv())[1])
        conn.send("done")


def test_top_shows_rates_and_computations(admin, settings, cache) -> None:
    c = cache(hot_objects=False)
    worker = Child(_compute, settings())
    worker.send(("product", 42))
    assert worker.receive() == "computing"
    top = subprocess.Popen(
        [COMMAND, "--namespace", admin.namespace, "--json", "top", "c", "--interval", "0.2"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=admin.directory,
    )
    try:
        assert top.stdout is not None
        quiet = json.loads(top.stdout.readline())["caches"][0]
        assert (quiet["cache"], quiet["stats"]["flights"], quiet["error"]) == ("c", 1, None)
        (flight,) = quiet["flights"]
        assert (flight["key"], flight["pid"], flight["attended"]) == ("('product', 42)", worker.pid, True)
        for _ in range(100):
            c.cached("k", lambda: "value")
        while not (busy := json.loads(top.stdout.readline())["caches"][0])["rates"]["hits"]:
            c.cached("k", lambda: "value")
        assert 0 < busy["hit_ratio"] <= 1
        worker.send("result")
        assert worker.receive() == "done"
        while (done := json.loads(top.stdout.readline())["caches"][0])["flights"]:
            pass
        assert done["slowest"][0]["key"] == "('product', 42)"
        assert done["slowest"][0]["pid"] == worker.pid
        assert done["slowest"][0]["seconds"] > 0
    finally:
        top.kill()
        top.communicate(timeout=WATCHDOG)


def test_rates_are_those_of_the_interval(cache, namespace) -> None:
    c = cache(hot_objects=False)
    sampler = Sampler(namespace, ["c"])
    (first,) = sampler.look(1.0)
    assert (first.rates, first.hit_ratio) == (None, None)
    for _ in range(10):
        c.cached("k", lambda: "value")
    (second,) = sampler.look(3.0)
    assert second.rates == {
        "hits": 4.5, "misses": 0.5, "computations": 0.5, "waits": 0, "failures": 0, "bypasses": 0,
    }  # fmt: skip
    assert second.hit_ratio == 0.9
    (third,) = sampler.look(4.0)
    assert third.hit_ratio is None
    assert set(third.rates.values()) == {0}


def test_caches_come_and_go_while_it_looks(admin, use, settings, cache, namespace) -> None:
    sampler = Sampler(namespace)
    assert sampler.look() == []
    user = use([("k", 1)])
    assert [sample.place.cache for sample in sampler.look()] == ["c"]
    path_of(namespace, "alien").write_bytes(b"\xff" * 8192)
    alien, c = sampler.look()
    assert "another version of coopshm" in str(alien.error)
    assert c.rates is not None
    admin.text("destroy c --yes")
    user.kill()
    assert [sample.place.cache for sample in sampler.look()] == ["alien"]
    use([("k", 1), ("l", 2)])
    (found,) = [sample for sample in sampler.look() if sample.place.cache == "c"]
    assert found.stats.entries == 2
    assert found.rates is None, "it is another segment"
    named = Sampler(namespace, ["c", "gone"])
    assert "has no cache 'gone'" in str(named.look()[1].error)


def test_one_picture_for_scripts(admin, use) -> None:
    use([("k", b"x" * 1000)])
    lines = admin.text("top --once --interval 0.05").splitlines()
    assert lines[0].startswith(f"coopshm  namespace {admin.namespace}  ")
    assert lines[2].split()[:4] == ["CACHE", "FILL", "USED", "HITS"]
    assert lines[3].split()[0] == "c"
    assert "no computation in flight" in lines
    assert "no caches in namespace" in admin.run("--namespace", "none", "top", "--once", "--interval", "0.05").stdout
    assert len(admin("top --interval 0.05 --iterations 3 --json").stdout.splitlines()) == 3
    assert "has no cache 'd'" in admin.refusal("top c d --once", code=NOTHING)
    for wrong in ("top a:b", "top --interval 0", "top --iterations 0"):
        admin.refusal(wrong, code=USAGE)


def test_a_picture_can_be_kept(admin, use) -> None:
    use([("k", b"x" * 1000)])
    admin.text("top --once --interval 0.05 --svg top.svg")
    kept = (admin.directory / "top.svg").read_text()
    assert kept.startswith("<svg")
    assert "no&#160;computation&#160;in&#160;flight" in kept
    assert "url(http" not in kept
    assert 'url("http' not in kept, "it needs nothing from the network"
    assert "nowhere" in admin("top --once --interval 0.05 --svg nowhere/top.svg").stderr


@pytest.mark.parametrize("ending", ["q", "Q", "\x03", signal.SIGTERM, signal.SIGHUP])
def test_on_a_terminal_it_goes_on_until_it_is_told_to_end(admin, use, ending) -> None:
    use([("k", b"x" * 1000)])
    with Screen(admin.directory, "--namespace", admin.namespace, "top", "--interval", "0.1") as screen:
        screen.wait_for("no computation in flight", times=3)
        assert "\x1b[?1049h" in screen.raw, "on the other screen"
        if isinstance(ending, str):
            screen.press(ending)
            assert screen.end() == 0
        else:
            screen.signal(ending)
            assert screen.end() == 128 + ending
        assert screen.raw.rindex("\x1b[?1049l") > screen.raw.rindex("\x1b[?1049h"), "and back"
        assert screen.raw.rindex("\x1b[?25h") > screen.raw.rindex("\x1b[?25l"), "the cursor is there again"
        assert "Traceback" not in screen.text


def test_the_space_bar_looks_at_once(admin, use) -> None:
    use([("k", b"x" * 1000)])
    with Screen(admin.directory, "--namespace", admin.namespace, "top", "--interval", "3600") as screen:
        screen.wait_for("no computation in flight")
        for times in range(2, 5):
            screen.press(" ")
            screen.wait_for("no computation in flight", times=times)
        screen.press("xq")
        assert screen.end() == 0


def test_a_dumb_terminal_gets_one_picture_after_another(admin, use) -> None:
    use([("k", b"x" * 1000)])
    line = ["--namespace", admin.namespace, "top", "--interval", "0.1"]
    with Screen(admin.directory, *line, term="dumb") as screen:
        screen.wait_for("no computation in flight", times=3)
        screen.press("\x03")
        assert screen.end() == 0
        assert "\x1b" not in screen.raw


def test_it_needs_nobody_who_is_stopped(admin, use, namespace) -> None:
    user = use([("k", 1)])
    user.stop()
    poke(namespace, WRITE_LOCK, (1 << 40 | 1).to_bytes(8, "little"))  # row 0, its first incarnation
    try:
        assert re.search(r"^c +<0.1 %", admin.text("top --once --interval 0.05"), re.MULTILINE)
    finally:
        user.resume()
