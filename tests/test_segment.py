"""The object in /dev/shm: whose it is, what it holds, and one clear error for each thing that can be wrong with it."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import coopshm
from coopshm import _codes, _segment
from tests.conftest import SHM, clean
from tests.procs import Child, run

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="expected: only root can give a file to another user")


def _path(settings: Any) -> Path:
    return SHM / f"coopshm:{settings()['namespace']}:c"


def _session(settings: Any) -> Any:
    return Child(_touch, settings).result()


def _touch(_: Any, settings: Any) -> Any:
    coopshm.configure(settings)
    return coopshm.cached("c", "k", lambda: "v")


def test_a_segment_is_for_its_owner_only(settings, cache) -> None:
    previous = os.umask(0)
    try:
        cache()
    finally:
        os.umask(previous)
    assert _path(settings).stat().st_mode & 0o777 == 0o600


def test_the_umask_takes_nothing_from_the_configured_mode(settings, cache) -> None:
    cache(mode="0660", group=os.getegid())
    assert _path(settings).stat().st_mode & 0o777 == 0o660


@root_only
def test_another_users_object_is_refused(settings, namespace) -> None:
    path = _path(settings)
    path.touch(0o600)
    os.chown(path, 12345, 12345)
    coopshm.configure(settings())
    with pytest.raises(coopshm.OwnershipError, match=r"uid 12345.*namespace"):
        coopshm.open("c")
    assert path.stat().st_size == 0, "and left alone"


@root_only
def test_an_object_of_the_configured_user_is_accepted(settings, namespace) -> None:
    coopshm.configure(settings(user=65534))
    assert coopshm.cached("c", "k", lambda: 1) == 1
    first = coopshm.open("c")
    assert _path(settings).stat().st_uid == 65534
    coopshm.configure(settings(user=65534))
    assert coopshm.cached("c", "k", lambda: 2) == 1
    assert coopshm.open("c") is not first


def test_a_mode_that_lets_others_in_is_refused(settings, cache) -> None:
    cache()
    os.chmod(_path(settings), 0o666)
    coopshm.configure(settings())
    with pytest.raises(coopshm.OwnershipError, match="0666"):
        coopshm.open("c")


def test_a_symbolic_link_is_refused(settings, namespace, tmp_path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    _path(settings).symlink_to(target)
    coopshm.configure(settings())
    with pytest.raises(coopshm.SegmentError, match="symbolic link"):
        coopshm.open("c")
    assert target.read_bytes() == b"precious"


def test_an_unknown_user_is_named(settings, namespace) -> None:
    coopshm.configure(settings(user="no-such-user"))
    with pytest.raises(coopshm.ConfigError, match="no-such-user"):
        coopshm.open("c")
    assert not _path(settings).exists()


def _poke(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


LAYOUT, GEOMETRY = 8, 64  # where things lie in a segment; see csrc/layout.h


@pytest.mark.parametrize(
    ("at", "data", "error"),
    [
        (0, b"NOTOURS!", coopshm.LayoutError),
        (LAYOUT, struct.pack("<I", 99), coopshm.LayoutError),
        (LAYOUT + 4, struct.pack("<I", 99), coopshm.LayoutError),
        (GEOMETRY, struct.pack("<Q", 1 << 60), coopshm.CorruptError),
        (GEOMETRY + 8, struct.pack("<Q", 12), coopshm.CorruptError),
    ],
)
def test_a_segment_of_another_layout_or_damaged_is_refused_while_in_use_and_replaced_when_not(
    settings, namespace, at, data, error
) -> None:
    holder = Child(_hold, settings())
    assert holder.receive() == "open"
    _poke(_path(settings), at, data)
    coopshm.configure(settings())
    with pytest.raises(error, match="in use"):
        coopshm.open("c")
    holder.kill()
    assert coopshm.cached("c", "k", lambda: "anew") == "anew"
    assert clean(coopshm.open("c"))


def _hold(conn: Any, settings: Any) -> None:
    coopshm.configure(settings)
    coopshm.open("c")
    conn.send("open")
    conn.recv()


def test_a_truncated_segment_is_replaced(settings, namespace) -> None:
    _session(settings())
    os.truncate(_path(settings), 100_000)
    assert _session(settings(lifetime="host")) == "v"
    _session(settings())
    os.truncate(_path(settings), 7)
    assert _session(settings(lifetime="host")) == "v"


def test_a_blank_object_left_by_a_dead_creator_is_initialised(settings, namespace) -> None:
    path = _path(settings)
    path.touch(0o600)
    assert _session(settings()) == "v"
    path.unlink()
    with path.open("wb") as file:
        file.truncate(1 << 20)  # died after sizing it
    path.chmod(0o600)
    assert _session(settings()) == "v"


def _create(_: int, settings: Any) -> Any:
    coopshm.configure(settings)
    created = coopshm.open("c")._attachment.segment.created
    return created, coopshm.cached("c", "k", os.getpid)


def test_concurrent_first_attachers_make_one_segment(settings, namespace) -> None:
    for _ in range(10):
        answers = run(16, _create, settings(lifetime="host"))
        assert sum(created for created, _ in answers) == 1
        assert len({value for _, value in answers}) == 1
        coopshm.configure(settings())
        coopshm.open("c").destroy()


@pytest.fixture
def small_shm(tmp_path: Path) -> Any:
    """Runs a program with a /dev/shm of its own, of `size`."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("expected: mount namespaces are not allowed here")

    def run_in(size: str, program: str) -> subprocess.CompletedProcess[str]:
        script = tmp_path / "program.py"
        script.write_text(program)
        command = f"mount -t tmpfs -o size={size},mode=1777 tmpfs /dev/shm && exec {sys.executable} {script}"
        if size == "none":
            command = f"mount -t tmpfs -o size=4k tmpfs /dev && exec {sys.executable} {script}"
        return subprocess.run(["unshare", "-m", "sh", "-c", command], capture_output=True, text=True, check=False)

    return run_in


def test_a_dev_shm_too_small_for_the_index_is_an_error_that_says_so(small_shm) -> None:
    done = small_shm(
        "256k",
        "import coopshm, os\n"
        "try: coopshm.cached('c', 'k', lambda: 1)\n"
        "except coopshm.NoSpaceError as exc: print(exc)\n"
        "print(os.listdir('/dev/shm'))\n",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "enlarge it" in done.stdout
    assert done.stdout.endswith("[]\n"), "nothing is left behind"


def test_a_missing_dev_shm_is_an_error_that_says_so(small_shm) -> None:
    done = small_shm(
        "none",
        "import coopshm\ntry: coopshm.cached('c', 'k', lambda: 1)\nexcept coopshm.NoSpaceError as exc: print(exc)\n",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "/dev/shm" in done.stdout
    assert "mount" in done.stdout


def test_a_dev_shm_that_fills_up_means_full_and_never_a_signal(small_shm) -> None:
    done = small_shm(
        "16m",
        "import coopshm, logging, sys\n"
        "logging.basicConfig(stream=sys.stdout, format='%(message)s', level='WARNING')\n"
        "coopshm.configure({'caches': {'c': {'memory_limit': '64 MiB', 'max_items': 2000}}})\n"
        "values = [coopshm.cached('c', n, lambda: bytes([n % 256]) * 50_000) for n in range(1000)]\n"
        "assert values == [bytes([n % 256]) * 50_000 for n in range(1000)]\n"
        "c = coopshm.open('c'); s = c.stats()\n"
        "assert 200 < s.entries < 330, s\n"
        "assert s.bypasses['no_space'] > 0, s\n"
        "assert all(c.cached(n, lambda: 0) == values[n] for n in range(200))\n"
        "assert c.verify() == []\n"
        "c.reset(); assert c.cached('after', lambda: b'x' * 50_000) and c.get('after')\n"
        "print('sound')\n",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("/dev/shm is full") == 1
    assert done.stdout.endswith("sound\n")


def test_a_foreign_process_is_counted_by_the_lock_it_holds(settings, cache) -> None:
    c = cache()
    holder = Child(_hold, settings())
    assert holder.receive() == "open"
    assert c.stats().processes == 2
    holder.kill()
    assert c.stats().processes == 1


def test_import_pulls_in_only_what_the_hot_path_needs() -> None:
    program = (
        "import sys; before = set(sys.modules); import coopshm; new = set(sys.modules) - before\n"
        "heavy = {'json', 'tomllib', 'asyncio', 'click', 'difflib', 'inspect', 'multiprocessing', 'subprocess'}\n"
        "heavy |= {'dataclasses', 'rich', 'numpy', 'msgspec', 'socket', 'ssl'}\n"
        "print(sorted(heavy & new))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_codes_of_the_core_have_an_error_each() -> None:
    for code, error in {
        _segment.lib.CSM_BUSY: coopshm.BusyError,
        _segment.lib.CSM_NO_ROW: coopshm.BusyError,
        _segment.lib.CSM_NO_SPACE: coopshm.NoSpaceError,
        _segment.lib.CSM_LAYOUT: coopshm.LayoutError,
        _segment.lib.CSM_CORRUPT: coopshm.CorruptError,
        _segment.lib.CSM_SYSTEM: coopshm.SegmentError,
    }.items():
        with pytest.raises(error, match="cache 'x'"):
            _codes.check(code, "cache 'x'")
