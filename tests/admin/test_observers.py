"""Looking on: nobody notices it, and it works beside whatever is wrong."""

from __future__ import annotations

import os
import subprocess

from tests.admin.command import BUSY, COMMAND, LOOKING, WRITE_LOCK, poke
from tests.admin.conftest import use_cache
from tests.conftest import SHM
from tests.namespaces import mount_namespaces, pid_namespaces, with_small_shm
from tests.procs import WATCHDOG, Child


def test_looking_on_keeps_no_app_cache_alive_and_changes_nothing(admin, use, settings, namespace) -> None:
    user = use([("k", 1)], lifetime="app")
    # It waits for an answer, attached.
    asking = subprocess.Popen(
        [COMMAND, "--namespace", namespace, "destroy", "c"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=admin.directory,
    )
    assert asking.stderr is not None
    while not asking.stderr.read(1).endswith(b"?"):
        assert asking.poll() is None
    user.send("end")
    assert user.result() == "ended"
    for line in LOOKING:
        admin.text(line)
    left = admin.json("stats c")
    assert (left["processes"], left["entries"], left["generation"]) == (0, 1, 1)
    assert Child(use_cache, settings(), []).receive() == (0, 2)
    _, _ = asking.communicate(b"n\n", WATCHDOG)
    assert asking.returncode == 1


def test_looking_on_does_not_need_the_write_lock(admin, use, namespace) -> None:
    user = use([("k", 1)])
    user.stop()
    poke(namespace, WRITE_LOCK, (1 << 40 | 1).to_bytes(8, "little"))  # row 0, its first incarnation
    try:
        for line in LOOKING:
            admin.text(line)
        for line in ("verify c", "reset c", "destroy c -y"):
            assert "held by a process that does not run" in admin.refusal(line, code=BUSY)
    finally:
        user.resume()


def look_on_a_full_dev_shm() -> None:
    child = Child(use_cache, {"namespace": "full", "caches": {"c": {"memory_limit": "4 MiB"}}}, [("k", b"x" * 100_000)])
    assert child.receive() == (1, 1)
    with (SHM / "ballast").open("wb", buffering=0) as ballast:
        os.posix_fallocate(ballast.fileno(), 0, os.statvfs(SHM).f_bavail * os.statvfs(SHM).f_frsize)
    assert os.statvfs(SHM).f_bavail == 0
    before = sorted((path.name, path.stat().st_blocks) for path in SHM.iterdir())
    for line in (*LOOKING, "get c k --raw", "top --once --interval 0.05", "list --all"):
        subprocess.run([COMMAND, "--namespace", "full", *line.split()], check=True, capture_output=True)
    assert sorted((path.name, path.stat().st_blocks) for path in SHM.iterdir()) == before
    child.kill()
    print("looked")


@mount_namespaces
@pid_namespaces
def test_looking_on_takes_no_page_of_a_full_dev_shm() -> None:
    assert with_small_shm("64m", look_on_a_full_dev_shm) == "looked\n"
