"""Root and another user's cache: it can be looked at and reset, and stays that user's; nobody else can."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import coopshm
from tests.admin.command import DENIED, LOOKING, command_of, path_of
from tests.conftest import SHM
from tests.procs import WATCHDOG, Child

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="expected: only root can look at another user's cache")

ALIEN, STRANGER = 65534, 54321


def _use(conn: Any, settings: Any, uid: int) -> None:
    """A process of another user: its cache, and what it gets from it."""
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    coopshm.configure(settings)
    while (key := conn.recv()) is not None:
        conn.send((coopshm.cached("c", key, lambda: "computed"), coopshm.version("c")))


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that all users may use."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o777)
        yield Path(directory)


@pytest.fixture(params=[ALIEN, STRANGER], ids=["nobody", "without a name"])
def user(settings, request, place, admin) -> Child:
    admin.directory = place
    child = Child(_use, settings(), request.param)
    child.uid = request.param  # type: ignore[attr-defined]
    child.send("k")
    assert child.receive() == ("computed", 1)
    return child


def owners(namespace: str) -> dict[str, tuple[int, int]]:
    """Whose what is in /dev/shm is, and its mode."""
    return {path.name: (path.stat().st_uid, path.stat().st_mode) for path in SHM.glob(f"*{namespace}*")}


def test_root_looks_and_leaves_everything_as_it_is(admin, user, namespace) -> None:
    before = owners(namespace), path_of(namespace).stat().st_blocks
    assert len(before[0]) == 1
    for line in (*LOOKING, "top --once --interval 0.05"):
        admin.text(line)
    assert admin.text("get c k") == "'computed'\n"
    assert admin("doctor").stderr == ""
    assert (owners(namespace), path_of(namespace).stat().st_blocks) == before
    assert list(admin.directory.iterdir()) == []


def test_root_resets_and_the_user_computes_anew(admin, user, namespace) -> None:
    before = owners(namespace)
    assert admin.json("reset c --version x")["changed"]
    assert "is sound" in admin.text("verify c")
    user.send("k")
    assert user.receive() == ("computed", "x")
    assert owners(namespace) == before
    admin.text("destroy c --yes")
    user.send("k")
    assert user.receive() == ("computed", 1)
    assert owners(namespace) == before, "the user's own new one"


def test_the_callback_runs_as_the_user(admin, user, namespace) -> None:
    (admin.directory / "shop.py").write_text(
        "import os, pathlib\n"
        "def reload(version): pathlib.Path('seen').write_text(f'{os.getresuid()} {os.getgroups()} {version}')\n"
    )
    (admin.directory / "coopshm.toml").write_text("[caches.c]\non_reset = 'shop:reload'\n")
    assert "version 1 -> 2 (after the on_reset callback)" in admin.text("reset c")
    seen = admin.directory / "seen"
    uid = user.uid
    assert seen.stat().st_uid == uid
    groups = [] if uid == STRANGER else os.getgrouplist("nobody", pwd.getpwnam("nobody").pw_gid)
    assert seen.read_text() == f"{(uid, uid, uid)} {groups} 2"
    assert "version 2 -> 3 (no on_reset callback)" in admin.text("reset c --no-callback")
    assert seen.read_text().endswith(" 2")
    user.send("k")
    assert user.receive() == ("computed", 3)


def test_others_are_refused(admin, user, namespace) -> None:
    other = ALIEN if user.uid == STRANGER else STRANGER
    for line in (*LOOKING[1:], "reset c", "verify c", "destroy c --yes"):
        done = subprocess.run(
            [*command_of(other), "--namespace", namespace, *line.split()],
            cwd=admin.directory,
            capture_output=True,
            text=True,
            timeout=WATCHDOG,
            check=False,
        )
        assert (done.returncode, done.stdout) == (DENIED, ""), done
        assert f"uid {user.uid})" in done.stderr or f"belongs to uid {user.uid} " in done.stderr, "whom to ask"
    assert owners(namespace)[f"coopshm:{namespace}:c"][0] == user.uid
