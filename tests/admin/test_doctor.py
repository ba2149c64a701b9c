"""doctor, on a /dev/shm of its own: what it finds of real caches, and that it leaves them as they are."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import coopshm
from tests.admin.command import COMMAND, LAYOUT, WRITE_LOCK, command_of, poke
from tests.conftest import SHM
from tests.namespaces import mount_namespaces, pid_namespaces, with_small_shm
from tests.procs import Child, reap_all

ALIEN = 65534
NAMESPACE = "doc"
CONFIG = """
namespace = "doc"
[caches.c]
memory_limit = "4 MiB"
[caches.kept]
memory_limit = "1 MiB"
lifetime = "host"
"""
OBJECT = SHM / f"coopshm:{NAMESPACE}:c"

Findings = list[dict[str, str]]


def _attached(conn: Any, settings: Any, cache: str, values: int) -> str:
    coopshm.configure(settings)
    opened = coopshm.open(cache)
    for at in range(values):
        opened.cached(at, lambda: b"x" * 100_000)
    conn.send("attached")
    conn.recv()
    opened.cached("again", lambda: "again")
    conn.send("called")
    conn.recv()
    return "ended"


def start(cache: str = "c", values: int = 1, settings: Any = None) -> Child:
    """A process that uses a cache; sent anything, it calls, and then it ends."""
    child = Child(_attached, settings or "coopshm.toml", cache, values)
    assert child.receive() == "attached"
    return child


def end(child: Child) -> None:
    child.send("call")
    assert child.receive() == "called"
    child.send("end")
    assert child.result() == "ended"


def examine(*options: str, uid: int = 0) -> tuple[int, Findings]:
    """The exit status, and what was found; /dev/shm is as it was."""

    def state() -> object:
        return {path.name: (path.lstat().st_blocks, path.lstat().st_uid) for path in SHM.iterdir()}

    before = state()
    done = subprocess.run(
        [*command_of(uid), "--json", *options, "doctor"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert state() == before
    document = json.loads(done.stdout)
    assert document["sound"] == (done.returncode == 0)
    return done.returncode, document["findings"]


def faults(findings: Findings) -> list[tuple[str, str]]:
    found = [finding for finding in findings if finding["level"] in ("error", "warning")]
    assert all(finding["remedy"] for finding in found)
    return [(finding["check"], finding["level"]) for finding in found]


def of(check: str, findings: Findings) -> list[dict[str, str]]:
    return [finding for finding in findings if finding["check"] == check]


# ---- scenes; each is run in a mount namespace, with a configuration in the current directory


def all_is_well() -> None:
    child, kept = start(), start("kept")
    end(kept)
    code, findings = examine()
    assert (code, faults(findings)) == (0, [])
    assert of("leftover", findings)[0]["text"].startswith('no process uses it now; lifetime = "host"')
    assert {finding["check"] for finding in findings} >= {
        "config", "shm-mount", "shm-access", "shm-size", "cgroup-memory", "kernel", "libc", "python", "open-files",
        "remove-ipc", "proc", "pid-namespace", "cache", "leftover",
    }  # fmt: skip
    end(child)
    code, findings = examine()
    assert code == 0
    assert any("starts cold" in note["text"] for note in of("leftover", findings) if note["level"] == "note")


def too_small_a_dev_shm() -> None:
    Path("coopshm.toml").write_text("[caches.c]\n")
    code, findings = examine()
    assert (code, faults(findings)) == (1, [("shm-size", "warning")])
    assert "--shm-size=" in of("shm-size", findings)[0]["remedy"]


def space_that_others_take() -> None:
    (SHM / "ballast").write_bytes(bytes(60 << 20))
    assert faults(examine()[1]) == [("shm-size", "warning")]
    (SHM / "ballast").write_bytes(bytes(os.statvfs(SHM).f_bavail * 4096 + (60 << 20)))
    assert os.statvfs(SHM).f_bavail == 0
    assert faults(examine()[1]) == [("shm-size", "warning")]


def a_full_dev_shm_beside_a_cache() -> None:
    child = start()
    (SHM / "ballast").write_bytes(bytes(os.statvfs(SHM).f_bavail * 4096))
    assert os.statvfs(SHM).f_bavail == 0
    assert ("shm-size", "warning") in faults(examine()[1])
    assert os.statvfs(SHM).f_bavail == 0
    child.kill()


def a_read_only_dev_shm() -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(SHM)], check=True)
    assert ("shm-mount", "error") in faults(examine()[1])


def a_full_cache() -> None:
    child = start(values=50)
    assert faults(examine()[1]) == [("full", "warning")]
    end(child)


def a_leftover_of_another_deployment() -> None:
    old = {"namespace": "release-1", "caches": {"c": {"memory_limit": "1 MiB"}, "d": {"memory_limit": "1 MiB"}}}
    ended, running = start("c", settings=old), start("d", settings=old)
    ended.kill()
    code, findings = examine()
    assert (code, faults(findings)) == (1, [("leftover", "warning")])
    remedy = of("leftover", findings)[0]["remedy"]
    assert remedy == "coopshm-admin --namespace release-1 destroy c"
    subprocess.run([COMMAND, *remedy.split()[1:], "--yes"], check=True, stdout=subprocess.DEVNULL)
    assert examine()[0] == 0
    end(running)


def another_layout() -> None:
    child = start()
    poke(NAMESPACE, LAYOUT, b"\x63")
    assert faults(examine()[1]) == [("layout", "error")]
    child.kill()
    assert faults(examine()[1]) == [("layout", "warning")]


def damage() -> None:
    child = start()
    poke(NAMESPACE, 64, b"\xff" * 64)
    assert faults(examine()[1]) == [("damaged", "error")]
    child.kill()


def no_segment_at_all() -> None:
    OBJECT.write_bytes(b"")
    OBJECT.chmod(0o600)
    assert of("unfinished", examine()[1])[0]["level"] == "note"
    OBJECT.unlink()
    OBJECT.symlink_to("/etc/passwd")
    assert faults(examine()[1]) == [("owner", "error")]


def modes_and_owners() -> None:
    child = start()
    OBJECT.chmod(0o666)
    assert faults(examine()[1]) == [("mode", "error")]
    OBJECT.chmod(0o660)
    assert faults(examine()[1]) == [("mode", "warning")]
    OBJECT.chmod(0o600)
    Path("coopshm.toml").write_text(CONFIG.replace("[caches.kept]", f"user = {ALIEN}\n[caches.kept]"))
    assert faults(examine()[1]) == [("owner", "error")]
    child.kill()


def another_users_eyes() -> None:
    child = start()
    code, findings = examine(uid=ALIEN)
    assert faults(findings) == [("owner", "error")], "whoever runs as that user is refused"
    Path("coopshm.toml").write_text("")
    code, findings = examine("--namespace", "other", uid=ALIEN)
    assert (code, faults(findings)) == (0, [])
    assert "only that user and root can look into it" in of("owner", findings)[0]["text"]
    child.kill()


def a_stopped_process() -> None:
    child = start()
    child.stop()
    code, findings = examine()
    assert (code, of("stopped", findings)[0]["level"]) == (0, "note")
    poke(NAMESPACE, WRITE_LOCK, (1 << 40 | 1).to_bytes(8, "little"))  # row 0, its first incarnation
    code, findings = examine()
    assert (code, faults(findings)) == (1, [("stopped", "warning")])
    assert f"kill -CONT {child.pid}" in of("stopped", findings)[0]["remedy"]
    child.kill()


def other_settings() -> None:
    child = start()
    Path("coopshm.toml").write_text(CONFIG.replace("4 MiB", "5 MiB"))
    assert faults(examine()[1]) == [("settings", "warning")]
    child.kill()


def an_object_that_was_removed() -> None:
    child = start()
    OBJECT.unlink()
    code, findings = examine()
    assert (code, faults(findings)) == (1, [("removed", "warning")])
    assert str(child.pid) in of("removed", findings)[0]["text"]
    child.kill()
    child = start()
    subprocess.run([COMMAND, "destroy", "c", "--yes"], check=True, stdout=subprocess.DEVNULL)
    assert of("removed", examine()[1])[0]["level"] == "note", "it says so itself"
    child.send("call")
    assert child.receive() == "called"
    assert of("removed", examine()[1]) == []
    child.kill()


def a_wrong_configuration() -> None:
    Path("coopshm.toml").write_text("[caches.c]\nlifetime = 'x'")
    assert faults(examine()[1]) == [("config", "error")]


SCENES: list[Callable[[], None]] = [
    all_is_well,
    too_small_a_dev_shm,
    space_that_others_take,
    a_full_dev_shm_beside_a_cache,
    a_read_only_dev_shm,
    a_full_cache,
    a_leftover_of_another_deployment,
    another_layout,
    damage,
    no_segment_at_all,
    modes_and_owners,
    another_users_eyes,
    a_stopped_process,
    other_settings,
    an_object_that_was_removed,
    a_wrong_configuration,
]


def play(scene: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        os.chmod(directory, 0o755)  # for another user's eyes
        Path("coopshm.toml").write_text(CONFIG)
        try:
            globals()[scene]()
        finally:
            reap_all()
    print("played")


@mount_namespaces
@pid_namespaces
@pytest.mark.parametrize("scene", [scene.__name__ for scene in SCENES])
def test_doctor(scene: str) -> None:
    assert with_small_shm("64m", play, scene) == "played\n"


def test_people_read_the_most_urgent_first(admin, use) -> None:
    use([("k", 1)])
    (admin.directory / "coopshm.toml").write_text("[caches.c]\nmemory_limit = '1 GB'\nlifetime = 1\n")
    done = admin("doctor")
    assert (done.returncode, done.stderr) == (1, "")
    first, remedy, *_, last = done.stdout.splitlines()
    assert first.startswith("error    config: ")
    assert remedy == "         -> coopshm-admin config check shows all mistakes"
    assert last.endswith("found")
    quiet = admin("doctor -q").stdout
    assert quiet.startswith(first)
    assert "\nok " not in quiet
