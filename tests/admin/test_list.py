"""list, stats, flights."""

from __future__ import annotations

import json
from typing import Any

import coopshm
from tests.admin.command import path_of
from tests.procs import Child, until


def test_list_shows_the_caches_of_the_namespace(admin, use, namespace, cache) -> None:
    assert f"no caches in namespace '{namespace}'" in admin.text("list")
    assert admin.json("list") == {"namespace": namespace, "caches": []}
    cache().reset("2026-11")
    use([("k", b"x" * 100_000)])
    other = f"{namespace}-other"
    path_of(other, "foreign").write_bytes(b"")
    try:
        assert admin.table("list") == [
            ["c", "1", "97.7", "KiB", "4.0", "MiB", "2.4", "%", "0.0", "%", '"2026-11"', "2", "2"]
        ]
        document = admin.json("list")
        numbers = {
            "entries": 1,
            "bytes_used": 100_080,
            "memory_limit": 4 << 20,
            "generation": 2,
            "processes": 2,
            "hit_ratio": 0.0,
        }
        others = {"namespace": namespace, "cache": "c", "version": "2026-11", "error": None}
        assert document == {"namespace": namespace, "caches": [{**numbers, **others}]}
        everywhere = json.loads(admin.run("list", "--all", "--json").stdout)["caches"]
        assert document["caches"][0] in everywhere
        assert [found["cache"] for found in everywhere if found["namespace"] == other] == ["foreign"]
        assert f"{other}  foreign" in " ".join(admin.run("list", "--all").stdout.split(" "))
    finally:
        path_of(other, "foreign").unlink()


def test_list_tells_why_a_segment_cannot_be_read_and_lists_the_others(admin, use, namespace) -> None:
    use([("k", 1)])
    path_of(namespace, "alien").write_bytes(b"\xff" * 8192)
    path_of(namespace, "link").symlink_to("/etc/passwd")
    path_of(namespace, "not a name").write_bytes(b"")
    done = admin("list")
    assert done.returncode == 0
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:]] == [["alien", "-"], ["c", "1"], ["link", "-"]]
    assert "'alien'" in done.stderr
    assert "symbolic link" in done.stderr
    alien, c, _ = admin.json("list")["caches"]
    assert alien["entries"] is None
    assert "another version of coopshm" in alien["error"]
    assert c["error"] is None


def test_stats_shows_everything_that_is_counted(admin, use) -> None:
    use([(key, b"x" * 2000) for key in range(5)])
    document = admin.json("stats c")
    assert set(document) == {"namespace", "cache", *coopshm.Stats._fields} - {"name"}
    assert (document["entries"], document["computations"], document["processes"]) == (5, 5, 1)
    assert document["bypasses"]["full"] == 0
    rows = {row[0]: row[1:] for row in admin.table("stats c")}
    assert rows["entries"] == ["5"]
    assert rows["memory"] == ["limit", "4.0", "MiB", "(4194304", "bytes)"]
    assert rows["bypasses"] == ["none"]


def _compute(conn: Any, settings: Any, key: Any) -> None:
    coopshm.configure(settings)
    coopshm.cached("c", key, lambda: (conn.send("computing"), conn.recv())[1])


def test_flights_shows_who_computes_what_for_whom(admin, settings, cache) -> None:
    c = cache()
    assert "no computation" in admin.text("flights c")
    assert admin.json("flights c")["flights"] == []
    owner, dead = Child(_compute, settings(), ("product", 42)), Child(_compute, settings(), "x" * 200)
    assert owner.receive() == dead.receive() == "computing"
    Child(_compute, settings(), ("product", 42))
    until(lambda: c.stats().waiters > 0)
    dead.kill()
    attended, lost = sorted(admin.json("flights c")["flights"], key=lambda flight: not flight["attended"])
    assert attended.pop("age_seconds") >= 0
    assert attended == {"key": "('product', 42)", "pid": owner.pid, "waiters": 1, "attended": True}
    assert (lost["pid"], lost["waiters"], lost["attended"]) == (dead.pid, 0, False)
    assert lost["key"].startswith("'xxx")
    rows = {row[0]: row[-4:] for row in admin.table("flights c")}
    assert rows[str(owner.pid)] == ["1", "yes", "('product',", "42)"]
    assert rows[str(dead.pid)][-3:-1] == ["0", "no"]


def test_a_cache_that_never_had_a_sidecar_is_in_no_cluster(admin, use, namespace) -> None:
    use([], version=7)
    assert admin.text("reset c --version 8").count("\n") == 1
    assert admin.text("cluster c") == (
        f"cache 'c' in namespace '{namespace}': version 8; in no cluster: it never had a sidecar\n"
    )
    document = admin.json("cluster c")
    assert (document["node"], document["sidecar"], document["nodes"]) == (None, None, [])
