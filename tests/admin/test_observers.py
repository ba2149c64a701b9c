"""Looking on: nobody notices it, and it works beside whatever is wrong."""

from __future__ import annotations

import subprocess

from tests.admin.command import BUSY, COMMAND, LOOKING, WRITE_LOCK, poke
from tests.admin.conftest import use_cache
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
