"""doctor: each examination, over the files of a host that the test makes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from coopshm.admin.doctor import memory, system
from coopshm.admin.doctor.finding import ERROR, NOTE, OK, WARNING, Finding
from coopshm.admin.doctor.host import Host, Memory
from coopshm.admin.doctor.memory import Need
from coopshm.objects import Place

MiB = 1 << 20


@pytest.fixture
def host(tmp_path: Path) -> Callable[..., Host]:
    """Makes a host of files: their paths, and what is in them."""

    def make(files: dict[str, str]) -> Host:
        for path, text in files.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return Host(str(tmp_path))

    return make


def levels(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    found = list(findings)
    assert all(finding.remedy for finding in found if finding.fault), "each fault has a remedy"
    return [(finding.check, finding.level) for finding in found]


# ---- /dev/shm

MOUNTS = """\
22 1 0:20 / / rw - ext4 /dev/vda rw
23 22 0:21 / /dev rw - tmpfs tmpfs rw
24 23 0:22 / /dev/shm {options} shared:7 - {type} shm rw,size=65536k
25 23 0:22 / /dev/shm\\040two rw - ext4 none rw
"""


@pytest.mark.parametrize(
    ("type", "options", "level"),
    [("tmpfs", "rw,nosuid", OK), ("tmpfs", "ro", ERROR), ("overlay", "rw", ERROR), ("ramfs", "rw", WARNING)],
)
def test_dev_shm_must_be_a_tmpfs_that_can_be_written(host, type, options, level) -> None:
    findings = memory.check_mount(host({"proc/self/mountinfo": MOUNTS.format(type=type, options=options)}))
    assert levels(findings)[0] == ("shm-mount", level)


def test_no_mode_is_blamed_for_a_dev_shm_that_is_read_only(host) -> None:
    findings = memory.check_mount(host({"proc/self/mountinfo": MOUNTS.format(type="tmpfs", options="ro")}))
    assert levels(findings) == [("shm-mount", ERROR)]


def test_what_is_mounted_is_found_by_the_longest_path(host) -> None:
    there = host({"proc/self/mountinfo": MOUNTS.format(type="tmpfs", options="rw")})
    assert [there.mount_of(path).point for path in ("/dev/shm", "/dev/shm/x", "/dev/shmx", "/dev/shm two", "/x")] == [
        "/dev/shm", "/dev/shm", "/dev", "/dev/shm two", "/",
    ]  # fmt: skip
    assert host({"proc/self/mountinfo": "nonsense\n - \n"}).mount_of("/dev/shm") is None
    assert levels(memory.check_mount(host({"proc/self/mountinfo": ""})))[0] == ("shm-mount", NOTE)


def test_dev_shm_must_be_there_and_protect_objects_from_other_users(host, tmp_path) -> None:
    assert levels(memory.check_mount(host({}), str(tmp_path / "missing"))) == [("shm-mount", ERROR)]
    file = tmp_path / "file"
    file.write_text("")
    assert levels(memory.check_mount(host({}), str(file))) == [("shm-mount", ERROR)]
    shm = tmp_path / "shm"
    shm.mkdir()
    for mode, level in ((0o777, ERROR), (0o1777, OK), (0o700, OK)):
        shm.chmod(mode)
        assert levels(memory.check_mount(host({}), str(shm)))[1] == ("shm-access", level)


def test_what_the_caches_may_take_is_held_against_what_there_is(host, monkeypatch) -> None:
    blocks = {"f_blocks": 1000, "f_bavail": 800, "f_frsize": MiB, "f_files": 100, "f_favail": 50}

    def size(needs: list[tuple[int, int]], **other: int) -> list[tuple[str, str]]:
        stat = type("Stat", (), {**blocks, **other})
        monkeypatch.setattr(os, "statvfs", lambda path: stat)
        places = {Place("n", str(at)): Need(now * MiB, full * MiB) for at, (now, full) in enumerate(needs)}
        return levels(memory.check_size(host({"proc/meminfo": "MemTotal: 4096000 kB\nSwapTotal: 0 kB\n"}), places))

    assert size([(100, 500), (100, 500)]) == [("shm-size", OK)]
    assert size([(100, 500), (100, 501)]) == [("shm-size", WARNING)]
    assert size([(0, 500), (0, 301)]) == [("shm-size", WARNING)], "others have taken the rest"
    assert size([(0, 9000)], f_blocks=0) == [("shm-size", OK), ("memory", WARNING)], "a tmpfs without a limit"
    assert size([], f_favail=0) == [("shm-size", OK), ("shm-inodes", ERROR)]


def test_the_default_of_containers_is_recognised(host, monkeypatch) -> None:
    stat = type("Stat", (), {"f_blocks": 64, "f_bavail": 64, "f_frsize": MiB, "f_files": 0, "f_favail": 0})
    monkeypatch.setattr(os, "statvfs", lambda path: stat)
    (finding,) = memory.check_size(host({}), {Place("n", "c"): Need(0, 67 * MiB)})
    assert "--shm-size=74m" in finding.remedy
    assert "emptyDir" in finding.remedy


# ---- cgroups

V2 = {
    "proc/self/cgroup": "0::/system.slice/shop.service\n",
    "sys/fs/cgroup/memory.max": "max\n",
    "sys/fs/cgroup/system.slice/memory.max": f"{512 * MiB}\n",
    "sys/fs/cgroup/system.slice/shop.service/memory.max": "max\n",
}
V1 = {
    "proc/self/cgroup": "5:cpu,memory:/docker/abc\n1:name=systemd:/\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
    "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": str(512 * MiB),
}


@pytest.mark.parametrize("files", [V2, V1], ids=["v2", "v1"])
@pytest.mark.parametrize(("need", "level"), [(511, OK), (512, WARNING)])
def test_the_tightest_memory_cgroup_counts(host, files, need, level) -> None:
    there = host(files)
    assert there.cgroup().limit == 512 * MiB
    assert levels(memory.check_cgroup(there, {Place("n", "c"): Need(0, need * MiB)}, {})) == [("cgroup-memory", level)]


def test_the_cgroups_of_the_processes_count_each_once(host) -> None:
    server = {"proc/7/cgroup": "0::/pod", "proc/8/cgroup": "0::/pod", "sys/fs/cgroup/pod/memory.max": f"{100 * MiB}"}
    findings = list(memory.check_cgroup(host(server), {Place("n", "c"): Need(0, 200 * MiB)}, {7: "c", 8: "c", 9: "c"}))
    assert levels(findings) == [("cgroup-memory", WARNING)]
    assert "process 7 (c)" in findings[0].text
    assert host({"proc/self/cgroup": "strange"}).cgroup() is None
    assert host(server).cgroup(7) == Memory("/pod", 100 * MiB)
    assert levels(memory.check_cgroup(host({}), {}, {})) == [("cgroup-memory", OK)]


# ---- logind

USER, SYSTEM = 54321, 123
BOOTED = {"run/systemd/system/x": ""}


ETC, RUN, LIB = "etc/systemd/logind.conf", "run/systemd/logind.conf.d", "lib/systemd/logind.conf.d"
YES, NO = "[Login]\nRemoveIPC=yes\n", "[Login]\n RemoveIPC = no\n"


@pytest.mark.parametrize(
    ("files", "removes", "source"),
    [
        ({}, True, "the default"),
        ({ETC: "[Login]\n#RemoveIPC=no\n"}, True, "the default"),
        ({ETC: NO}, False, f"/{ETC}"),
        ({ETC: "[Other]\nRemoveIPC=no\n"}, True, "the default"),
        ({f"usr/{LIB}/1.conf": NO}, False, f"/usr/{LIB}/1.conf"),
        ({"usr/lib/systemd/logind.conf": NO, ETC: ""}, True, "the default"),
        ({ETC: NO, f"{RUN}/9.conf": YES}, True, f"/{RUN}/9.conf"),
        ({f"{ETC}.d/9.conf": "", f"{RUN}/9.conf": NO}, True, "the default"),  # of one name, /etc's counts
        ({f"{LIB}/1.conf": NO, f"{LIB}/2.txt": YES}, False, f"/{LIB}/1.conf"),
    ],
)
def test_remove_ipc_is_read_as_systemd_does(host, files, removes, source) -> None:
    assert host(files).removes_ipc() == (removes, source)


def test_users_whose_objects_systemd_removes_are_named(host, monkeypatch) -> None:
    monkeypatch.setattr(system, "user_name", lambda uid: f"user{uid}")
    assert levels(system.check_logind(host({}), [USER])) == [("remove-ipc", OK)], "no systemd"
    found = list(system.check_logind(host(BOOTED), [0, SYSTEM, USER, USER]))
    assert levels(found) == [("remove-ipc", WARNING)]
    assert found[0].subject == f"uid {USER}"
    assert f"enable-linger user{USER}" in found[0].remedy
    assert levels(system.check_logind(host(BOOTED), [0, SYSTEM])) == [("remove-ipc", OK)]
    assert levels(system.check_logind(host({"etc/login.defs": f"SYS_UID_MAX\t{USER}\n"}), [USER])) == [
        ("remove-ipc", OK)
    ]
    (Path(host({})._root) / "etc/login.defs").unlink()
    lingering = host({f"var/lib/systemd/linger/user{USER}": ""})
    assert levels(system.check_logind(lingering, [USER])) == [("remove-ipc", OK), ("remove-ipc", OK)]
    assert levels(system.check_logind(host({ETC: NO}), [USER])) == [("remove-ipc", OK)]


# ---- kernel, libc, files, namespaces


def test_the_kernel_is_tried_out() -> None:
    assert levels(system.check_kernel()) == [("kernel", OK)]
    assert levels(system.check_kernel(lambda: False)) == [("kernel", ERROR)]


@pytest.mark.parametrize(
    ("libc", "level"), [("glibc 2.29", ERROR), ("glibc 2.30", OK), ("glibc 3.0", OK), ("no glibc", OK)]
)
def test_libc_must_be_new_enough(libc, level) -> None:
    assert levels(system.check_runtime(libc)) == [("libc", level), ("python", OK)]
    assert levels(system.check_runtime())[0] == ("libc", OK)


def test_descriptors_must_suffice_here_and_in_the_processes(host) -> None:
    limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files       10      4096      files\n"
    there = host(
        {"proc/7/limits": limits, "proc/7/fd/0": "", "proc/7/fd/1": "", "proc/7/fd/2": "", "proc/8/limits": ""}
    )
    assert levels(system.check_files(there, 1, {7: "c", 8: "c", 9: "c"})) == [
        ("open-files", OK),
        ("open-files", WARNING),
    ]
    assert levels(system.check_files(there, 1 << 30, {})) == [("open-files", WARNING)]


def test_numbers_of_processes_may_be_of_another_namespace(host, tmp_path) -> None:
    assert levels(system.check_namespaces(host({}), {})) == [("proc", ERROR)]
    there = host({"proc/self/fd/0": "", "proc/7/stat": "7 (a b) T 1"})
    assert levels(system.check_namespaces(there, {7: "c"})) == [("proc", OK), ("pid-namespace", OK)]
    assert levels(system.check_namespaces(there, {7: "c", 8: "c"})) == [("proc", OK), ("pid-namespace", NOTE)]
    (tmp_path / "proc/self/ns").mkdir()
    (tmp_path / "proc/self/ns/pid").symlink_to("pid:[4026532999]")
    assert levels(system.check_namespaces(there, {})) == [("proc", OK), ("pid-namespace", NOTE)]
    assert (there.is_stopped(7), there.is_stopped(8)) == (True, False)


def test_every_check_is_documented() -> None:
    root = Path(memory.__file__).parent
    found = {name for file in root.glob("*.py") for name in re.findall(r'Finding\("([a-z-]+)"', file.read_text())}
    documented = (Path(__file__).parents[2] / "docs/operating.md").read_text()
    assert len(found) > 20
    assert [name for name in sorted(found) if f"`{name}`" not in documented] == []
