"""reset."""

from __future__ import annotations

import json
from typing import Any

import pytest

import coopshm
from tests.procs import Child


def serve(conn: Any, settings: Any) -> None:
    """Answers keys with the version of the cache, computing it where it is not stored."""
    coopshm.configure(settings)
    while (key := conn.recv()) is not None:
        conn.send((coopshm.cached("c", key, lambda: coopshm.version("c")), coopshm.stats("c").memory_limit))


@pytest.mark.parametrize(
    ("argument", "version"),
    [(None, 2), ("null", 2), ("7", 7), ("1.0", 1.0), ("2026-11", "2026-11"), ('"7"', "7"), ("", ""), ("NaN", "NaN"),
     ('{"b": [true, null], "a": "\\u00fc"}', {"a": "ü", "b": [True, None]}), ("{broken", "{broken")],
)  # fmt: skip
def test_reset_makes_every_process_compute_anew(admin, settings, cache, argument, version) -> None:
    c = cache()
    server = Child(serve, settings())
    server.send("k")
    assert server.receive() == (1, 4 << 20)
    more = [] if argument is None else ["--version", argument]
    place = {"namespace": admin.namespace, "cache": "c"}
    done = {"old": 1, "new": version, "changed": True, "callback": False}
    assert admin.json("reset c", *more) == {**place, **done}
    server.send("k")
    assert server.receive() == (version, 4 << 20)
    assert c.stats().resets == 1


def test_reset_says_which_version_there_was_and_is(admin, use) -> None:
    use([("k", 1)])
    assert 'version 1 -> "x" (no on_reset callback)' in admin.text("reset c --version x")
    assert 'has version "x" already' in admin.text("reset c --version x")
    done = admin.json("reset c --version x")
    assert (done["old"], done["new"], done["changed"]) == ("x", "x", False)
    assert admin.json("stats c")["resets"] == 1


def test_reset_runs_the_callback_of_the_configuration_first(admin, use, configured) -> None:
    use([("k", 1)])
    done = admin("reset c")
    assert done.returncode == 0
    assert "version 1 -> 2 (after the on_reset callback)" in done.stdout
    assert done.stderr == "imported\nreloading\n"
    assert (admin.directory / "seen").read_text() == "(2, '')"
    done = admin("reset c --json --version look", env={"COOPSHM_CONFIG": "/nowhere"})
    assert done.returncode == 1  # the variable comes before ./coopshm.toml
    configured = configured.rename(admin.directory / "other.toml")
    done = admin.run(
        "--config", str(configured), "--namespace", admin.namespace, *"--json reset c --version look".split()
    )
    assert (json.loads(done.stdout)["callback"], json.loads(done.stdout)["new"]) == (True, "look")
    # The callback sees the configuration and the namespace that the command was given.
    assert (admin.directory / "seen").read_text() == repr(("look", admin.namespace))


@pytest.mark.parametrize("version", ["broken", "exit"])
def test_a_callback_that_fails_leaves_the_cache_as_it_is(admin, use, configured, version) -> None:
    use([("k", 1)])
    before = admin.json("list")
    done = admin("reset c --json --version", version)
    assert (done.returncode, done.stdout) == (1, "")
    message = done.stderr.splitlines()[-1]
    assert message.startswith("coopshm-admin: the on_reset callback 'shop:reload' raised ")
    assert message.endswith("; nothing was reset")
    assert admin.json("list") == before


def test_reset_takes_the_segment_as_it_is(admin, use, cache, configured) -> None:
    user = use([("k", 1)], version=3, lifetime="host")
    assert admin.json("list")["caches"][0]["version"] == 3
    done = admin("--json reset c")
    assert (json.loads(done.stdout)["old"], json.loads(done.stdout)["new"]) == (3, 4)
    assert admin.json("stats c")["memory_limit"] == 4 << 20
    # The version of *that* configuration has not become the one that the segment was last configured with.
    user.send("end")
    assert user.result() == "ended"
    assert cache(version=3, lifetime="host").version() == 4
