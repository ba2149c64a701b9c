"""Every command beside a live gunicorn: computations under way, its workers at work, and then its end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.admin.command import NOTHING, Admin
from tests.admin.screen import Screen
from tests.procs import until
from tests.servers.client import Crowd
from tests.servers.gate import Gate
from tests.servers.gunicorn import Gthread
from tests.servers.site import Site


@pytest.fixture
def site(tmp_path: Path, namespace: str) -> Iterator[Site]:
    with Gate() as gate:
        yield Site(tmp_path, namespace, gate)


@pytest.fixture
def shell(site: Site, admin: Admin, monkeypatch: pytest.MonkeyPatch) -> Admin:
    """The command in the server's directory, with its environment: as an operator would have it."""
    for name, value in site.environment().items():
        monkeypatch.setenv(name, value)
    admin.directory = site.directory
    return admin


def test_all_commands_beside_a_running_server(site, shell, namespace) -> None:
    with Gthread(site) as server:
        for key in ("a", "b", "c"):
            assert server.get(f"/value/pages/{key}").good
        # Two clients want what is held; one computes, the other waits.
        crowd = Crowd(server.port)
        crowd.ask("/value/pages/held", 2)
        held = site.gate.next()
        until(lambda: site.observe().waiters + len(site.asking("held")) >= 2)

        (pages,) = shell.json("list")["caches"]
        assert (pages["cache"], pages["entries"], pages["error"]) == ("pages", 3, None)
        assert 1 <= pages["processes"] <= 1 + server.workers, "the master may have it, too"
        stats = shell.json("stats pages")
        assert (stats["entries"], stats["computations"], stats["flights"], stats["version"]) == (3, 4, 1, 1)
        assert {entry["key"] for entry in shell.json("keys pages")["keys"]} == {"'a'", "'b'", "'c'"}
        assert "'key': 'a'" in shell.text("get pages a")
        assert shell.json("get pages a")["type"] == "dict"
        (flight,) = shell.json("flights pages")["flights"]
        assert (flight["key"], flight["pid"], flight["attended"]) == ("'held'", held.pid, True)
        assert held.pid in server.processes()
        assert str(held.pid) in shell.text("flights pages")

        top = json.loads(shell.text("--json top --once --interval 0.2"))["caches"][0]
        assert top["flights"][0]["pid"] == held.pid
        assert {slow["key"] for slow in top["slowest"]} == {"'a'", "'b'", "'c'"}
        with Screen(shell.directory, "--namespace", namespace, "top", "--interval", "0.1") as screen:
            screen.wait_for("1 computation in flight")
            screen.wait_for("'held'")
            screen.press("q")
            assert screen.end() == 0

        assert shell.json("verify pages")["sound"]
        assert shell.json("verify pages --no-lock")["sound"]
        found = json.loads(shell("doctor --json").stdout)["findings"]
        mine = [finding for finding in found if namespace in finding["subject"]]
        assert [(finding["check"], finding["level"]) for finding in mine] == [("cache", "ok")]
        assert set(shell.json("config check")["caches"]) == {"pages", "kept"}

        # The reset runs the application's callback, and the held computation is done again.
        reset = shell.json("reset pages --version 2")
        assert (reset["old"], reset["new"], reset["callback"]) == (1, 2, True)
        held.release()
        again = site.gate.next()
        assert again.version == 2
        again.release()
        assert {reply.body["version"] for reply in crowd.replies()} == {2}
        assert shell.json("stats pages")["resets"] == 1

        assert shell.json("destroy pages --yes")["destroyed"]
        assert shell("stats pages").returncode == NOTHING
        assert server.get("/value/pages/a").good
        (anew,) = shell.json("list")["caches"]
        assert (anew["entries"], anew["version"]) == (1, 1), "the configured version, in a new segment"

    # The server is gone; what it left is looked at all the same.
    assert shell.json("list")["caches"][0]["processes"] == 0
    found = json.loads(shell("doctor --json").stdout)["findings"]
    assert [
        finding["level"] for finding in found if finding["check"] == "leftover" and namespace in finding["subject"]
    ] == ["note"]


def test_looking_does_not_keep_a_worker_from_anything(site, shell, namespace) -> None:
    """Every look again and again, while clients ask and the cache is reset: the server's replies are right."""
    with Gthread(site) as server:
        assert server.get("/value/pages/a").good
        with Screen(shell.directory, "--namespace", namespace, "top", "--interval", "0.05") as screen:
            for version in range(2, 6):
                assert server.post("/reset/pages").body["version"] == version
                for line in ("stats pages", "keys pages", "flights pages", "list"):
                    shell.text(line)
                for _ in range(server.workers * 2):
                    assert server.get("/value/pages/a").body["version"] == version
                screen.wait_for(f"  {version}")
            screen.press("q")
            assert screen.end() == 0
        assert shell.json("stats pages")["computations"] == 5
    assert os.listdir(site.directory)
