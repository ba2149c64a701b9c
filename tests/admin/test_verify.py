"""verify."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from coopshm.admin import segments
from coopshm.errors import OwnershipError
from tests.admin.command import ENTRIES, EPOCH_BYTES, EPOCHS, LOOKING, UNUSABLE, VERSION, path_of, poke
from tests.admin.test_reset import serve
from tests.procs import Child


def test_verify_tells_faults_from_a_sound_segment(admin, use, namespace) -> None:
    use([("k", 1)])
    assert "is sound" in admin.text("verify c")
    assert admin.json("verify c") == {"namespace": namespace, "cache": "c", "locked": True, "sound": True, "faults": []}
    poke(namespace, EPOCHS + EPOCH_BYTES + ENTRIES, (2).to_bytes(8, "little"))
    done = admin("verify c")
    assert (done.returncode, done.stderr) == (1, "")
    assert "has 2 faults:\nlog 1: names slot" in done.stdout
    done = admin("verify c --json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert (document["sound"], len(document["faults"])) == (False, 2)


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_destroy_asks_and_takes_no_for_an_answer(admin, use, namespace, answer) -> None:
    use([("k", 1)])
    for line in ("destroy c", "destroy c --json"):
        done = admin(line, stdin=answer)
        assert (done.returncode, done.stdout) == (1, "")
        assert "(1 entry, 1 process)? [y/N]" in done.stderr
    assert admin.json("stats c")["entries"] == 1


def test_destroy_removes_the_segment_and_its_users_go_on_with_a_new_one(admin, settings, namespace) -> None:
    server = Child(serve, settings(version=3))
    server.send("k")
    assert server.receive()[0] == 3
    assert "was destroyed" in admin("destroy c", stdin="y\n").stdout
    assert not path_of(namespace).exists()
    server.send("other")
    assert server.receive()[0] == 3
    assert admin.json("keys c")["keys"][0]["key"] == "'other'"
    assert admin.json("destroy c --yes") == {"namespace": namespace, "cache": "c", "destroyed": True}
    assert not path_of(namespace).exists()


@pytest.mark.parametrize("content", [b"", bytes(8192), b"\xff" * 8192, b"short"])
def test_what_is_no_segment_is_refused_left_alone_and_can_be_destroyed(admin, namespace, content) -> None:
    path_of(namespace).write_bytes(content)
    for line in (*LOOKING[1:], "reset c", "verify c"):
        assert "'c'" in admin.refusal(line, code=UNUSABLE)
    assert path_of(namespace).read_bytes() == content
    admin.text("destroy c --yes")
    assert not path_of(namespace).exists()


def test_a_damaged_version_is_a_fault_of_the_segment(admin, use, namespace) -> None:
    use([("k", 1)])
    poke(namespace, EPOCHS + EPOCH_BYTES + VERSION, b"?")
    for line in ("stats c", "reset c"):
        assert "not an encoded version" in admin.refusal(line, code=UNUSABLE)
    assert "not an encoded version" in admin.json("list")["caches"][0]["error"]
    assert len(admin.json("keys c")["keys"]) == 1
    admin.text("reset c --version 2")
    assert admin.json("stats c")["version"] == 2, "a reset to a version that is named mends it"


def _check_as_nobody(_conn: Any, namespace: str) -> str:
    os.seteuid(65534)
    with pytest.raises(OwnershipError) as caught:
        segments.check_removable(segments.Place(namespace, "c"))
    return str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="expected: only root can be another user")
def test_destroy_begins_only_if_it_can_end(use, namespace) -> None:
    use([("k", 1)])
    assert "only its owner (uid 0) and root" in Child(_check_as_nobody, namespace).result()
