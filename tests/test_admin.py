"""coopshm-admin, as a real command beside real processes that use the caches."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import coopshm
from coopshm.admin import segments, text
from coopshm.errors import OwnershipError
from tests.conftest import SHM
from tests.procs import WATCHDOG, Child

COMMAND = str(Path(sys.executable).with_name("coopshm-admin"))
LOOKING = ("list", "stats c", "keys c", "flights c")

#: Where things lie in a segment; see csrc/layout.h.
STATE, WRITE_LOCK, EPOCHS, EPOCH_BYTES, ENTRIES, VERSION = 16, 320, 512, 4192, 16, 96

Result = subprocess.CompletedProcess[str]


class Admin:
    """Runs the command in the test's namespace, in an empty directory."""

    def __init__(self, namespace: str, directory: Path) -> None:
        self.namespace, self.directory = namespace, directory

    def __call__(self, line: str, *more: str, **options: Any) -> Result:
        return self.run("--namespace", self.namespace, *line.split(), *more, **options)

    def run(self, *args: str, env: dict[str, str] | None = None, stdin: str = "") -> Result:
        return subprocess.run(
            [COMMAND, *args],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=self.directory,
            env={**os.environ, **(env or {})},
            timeout=WATCHDOG,
            check=False,
        )

    def text(self, line: str, *more: str, **options: Any) -> str:
        """What it prints; it succeeds, and has nothing to complain about."""
        done = self(line, *more, **options)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def json(self, line: str, *more: str, **options: Any) -> Any:
        """The document it prints with --json behind the command."""
        return json.loads(self.text(line, *more, "--json", **options))

    def table(self, line: str) -> list[list[str]]:
        """The rows it prints, without the header."""
        return [row.split() for row in self.text(line).splitlines()[1:]]

    def refusal(self, line: str, *more: str, code: int = 1, **options: Any) -> str:
        """What it says when it fails, with and without --json; nothing is on stdout."""
        for ending in ([], ["--json"]):
            done = self(line, *more, *ending, **options)
            assert (done.returncode, done.stdout) == (code, ""), done
            assert "Traceback" not in done.stderr
        return done.stderr


@pytest.fixture
def admin(namespace: str, tmp_path: Path) -> Admin:
    return Admin(namespace, tmp_path)


def _use(conn: Any, settings: Any, entries: list[tuple[Any, Any]]) -> str:
    """A process that uses the cache: stores the entries, and stays until it is told to end."""
    coopshm.configure(settings)
    cache = coopshm.open("c")
    for key, value in entries:
        cache.cached(key, lambda value=value: value)
    conn.send((cache.stats().entries, cache.stats().generation))
    conn.recv()
    return "ended"


@pytest.fixture
def use(settings: Callable[..., Any]) -> Callable[..., Child]:
    """Starts a process that uses cache `c`, and returns it when it has stored its entries."""

    def start(entries: list[tuple[Any, Any]], **options: Any) -> Child:
        child = Child(_use, settings(**options), entries)
        assert child.receive()[0] == len(entries)
        return child

    return start


def path_of(namespace: str, cache: str = "c") -> Path:
    return SHM / f"coopshm:{namespace}:{cache}"


def poke(namespace: str, at: int, data: bytes) -> None:
    fd = os.open(path_of(namespace), os.O_RDWR)
    assert os.pwrite(fd, data, at) == len(data)
    os.close(fd)


# ---- list, stats


def test_list_shows_the_caches_of_the_namespace(admin, use, namespace, cache) -> None:
    assert f"no caches in namespace '{namespace}'" in admin.text("list")
    assert admin.json("list") == {"namespace": namespace, "caches": []}
    cache().reset("2026-11")
    use([("k", b"x" * 100_000)])
    other = f"{namespace}-other"
    path_of(other, "foreign").write_bytes(b"")
    try:
        assert admin.table("list") == [["c", "1", "97.7", "KiB", "4.0", "MiB", "2.4", "%", '"2026-11"', "2", "2"]]
        document = admin.json("list")
        numbers = {"entries": 1, "bytes_used": 100_080, "memory_limit": 4 << 20, "generation": 2, "processes": 2}
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


# ---- keys

UNUSUAL = [
    1, True, 1.0, -0.0, 10**30, "1", b"1", None, "", (), ("a", (1, None, b"\xff")), "two\nlines\x1b[31m", "€",
    "\ud800", "long" * 5000, float("inf"), float("nan"), 16**6000,
]  # fmt: skip


def test_keys_shows_keys_of_every_type(admin, use) -> None:
    use([(key, b"v" * at) for at, key in enumerate(UNUSUAL)])
    shown = admin.json("keys c")
    assert shown["entries"] == len(UNUSUAL)
    assert [entry["value_bytes"] for entry in shown["keys"]] == list(range(len(UNUSUAL)))
    for entry, key in zip(shown["keys"][:-3], UNUSUAL, strict=False):
        again = ast.literal_eval(entry["key"])
        assert (type(again), again, repr(again)) == (type(key), key, repr(key))
    assert [entry["key"] for entry in shown["keys"][-3:-1]] == ["inf", "nan"]
    assert len(shown["keys"][-1]["key"]) == 7225
    lines = admin.text("keys c", env={"PYTHONIOENCODING": "latin-1"}).splitlines()
    assert len(lines) == 1 + len(UNUSUAL)
    assert all(line.isascii() and line.isprintable() and len(line) < 120 for line in lines)
    assert lines[2].split() == ["1", "True"]


def test_keys_of_a_large_cache_are_listed_in_order_and_may_be_limited(admin, use) -> None:
    use([(("key", at), b"") for at in range(10_000)], memory_limit="16 MiB")
    found = admin.json("keys c")["keys"]
    assert [ast.literal_eval(entry["key"]) for entry in found] == [("key", at) for at in range(10_000)]
    assert len(admin.text("keys c").splitlines()) == 10_001
    limited = admin.json("keys c --limit 2")
    assert (limited["entries"], len(limited["keys"])) == (10_000, 2)
    lines = admin.text("keys c --limit 2").splitlines()
    assert [line.split(maxsplit=1)[-1] for line in lines] == ["BYTES  KEY", "('key', 0)", "('key', 1)", "and 9998 more"]
    assert admin.text("list").splitlines()[1].split()[1] == "10000"


def test_keys_of_an_empty_cache(admin, use) -> None:
    use([])
    assert "is empty" in admin.text("keys c")
    assert admin.json("keys c")["keys"] == []


# ---- flights


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
    while c.stats().waiters == 0:
        pass
    dead.kill()
    attended, lost = sorted(admin.json("flights c")["flights"], key=lambda flight: not flight["attended"])
    assert attended.pop("age_seconds") >= 0
    assert attended == {"key": "('product', 42)", "pid": owner.pid, "waiters": 1, "attended": True}
    assert (lost["pid"], lost["waiters"], lost["attended"]) == (dead.pid, 0, False)
    assert lost["key"].startswith("'xxx")
    rows = {row[0]: row[-4:] for row in admin.table("flights c")}
    assert rows[str(owner.pid)] == ["1", "yes", "('product',", "42)"]
    assert rows[str(dead.pid)][-3:-1] == ["0", "no"]


# ---- reset


def _serve(conn: Any, settings: Any) -> None:
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
    server = Child(_serve, settings())
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


@pytest.fixture
def configured(admin: Admin) -> Path:
    """A configuration in the current directory, whose settings are not those of the segment."""
    (admin.directory / "shop.py").write_text(
        "import coopshm, pathlib\n"
        "print('imported')\n"
        "def reload(version):\n"
        "    print('reloading')\n"
        "    if version == 'broken': raise FileNotFoundError('no such source')\n"
        "    if version == 'exit': raise SystemExit(0)\n"
        "    namespace = coopshm.open('d')._attachment.namespace if version == 'look' else ''\n"
        "    pathlib.Path('seen').write_text(repr((version, namespace)))\n"
    )
    path = admin.directory / "coopshm.toml"
    path.write_text(
        "namespace = 'elsewhere'\n[caches.d]\n"
        "[caches.c]\nmemory_limit = '1 MiB'\nversion = 5\nlifetime = 'host'\non_reset = 'shop:reload'\n"
    )
    return path


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


# ---- verify, destroy


def test_verify_tells_faults_from_a_sound_segment(admin, use, namespace) -> None:
    use([("k", 1)])
    assert "is sound" in admin.text("verify c")
    assert admin.json("verify c") == {"namespace": namespace, "cache": "c", "sound": True, "faults": []}
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
    server = Child(_serve, settings(version=3))
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
        assert "'c'" in admin.refusal(line)
    assert path_of(namespace).read_bytes() == content
    admin.text("destroy c --yes")
    assert not path_of(namespace).exists()


def test_a_damaged_version_is_a_fault_of_the_segment(admin, use, namespace) -> None:
    use([("k", 1)])
    poke(namespace, EPOCHS + EPOCH_BYTES + VERSION, b"?")
    for line in ("stats c", "reset c"):
        assert "not an encoded version" in admin.refusal(line)
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


# ---- observers


def test_looking_on_keeps_no_app_cache_alive_and_changes_nothing(admin, use, namespace) -> None:
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
    assert Child(_use, {"namespace": namespace, "caches": {"c": {"memory_limit": "4 MiB"}}}, []).receive() == (0, 2)
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
            assert "held by a process that does not run" in admin.refusal(line)
    finally:
        user.resume()


# ---- what is wrong with the request


@pytest.mark.parametrize("line", [*LOOKING[1:], "reset c", "verify c", "destroy c --yes"])
def test_a_cache_without_a_segment_is_named_with_those_there_are(admin, namespace, configured, line) -> None:
    before = set(SHM.iterdir())
    assert f"namespace '{namespace}' has no cache 'c': " in admin.refusal(line)
    path_of(namespace, "a").write_bytes(b"")
    path_of(namespace, "b").write_bytes(b"")
    assert f"namespace '{namespace}' has no cache 'c': there are a, b\n" in admin.refusal(line)
    done = admin.run("--namespace", f"{namespace}-other", *line.split())
    assert "it has no caches at all; namespaces with caches are " in done.stderr
    assert namespace in done.stderr
    made = {path.name for path in set(SHM.iterdir()) - before if namespace in path.name}
    assert made == {path_of(namespace, "a").name, path_of(namespace, "b").name}


@pytest.mark.parametrize(
    "line",
    [
        "lists",
        "stats",
        "stats c d",
        "stats a:b",
        "stats ../c",
        "keys c --limit -1",
        "list --bad",
        "--namespace a:b list",
    ],
)
def test_wrong_usage_is_status_2(admin, line) -> None:
    assert "Usage: coopshm-admin" in admin.refusal(line, code=2)


def test_a_version_that_cannot_be_one_is_refused(admin, use) -> None:
    use([])
    assert "1024 are allowed" in admin.refusal("reset c --version", "x" * 2000)
    assert "lone surrogates" in admin.refusal("reset c --version", '"\\ud800"')


def test_a_wrong_configuration_is_refused(admin, use) -> None:
    use([])
    assert "no-such.toml: cannot be read" in admin.run("--config", "no-such.toml", "list").stderr
    (admin.directory / "bad.toml").write_text("namespace = [")
    done = admin.run("--config", "bad.toml", "list")
    assert (done.returncode, done.stderr.partition(":")[0]) == (1, "coopshm-admin")


def test_the_namespace_comes_from_option_environment_or_configuration(admin, use, namespace) -> None:
    use([])
    config, env = admin.directory / "x.toml", {"COOPSHM_NAMESPACE": namespace}
    config.write_text(f"namespace = '{namespace}'")
    elsewhere = {"COOPSHM_NAMESPACE": "elsewhere"}
    assert json.loads(admin.run("--config", "x.toml", "stats", "c", "--json").stdout)["namespace"] == namespace
    assert json.loads(admin.run("stats", "c", "--json", env=env).stdout)["namespace"] == namespace
    assert admin.run("--config", "x.toml", "stats", "c", env=elsewhere).returncode == 1
    assert admin("stats c", env=elsewhere).returncode == 0


def test_json_may_stand_before_the_command(admin, use) -> None:
    use([("k", 1)])
    for line in (*LOOKING, "verify c"):
        assert json.loads(admin.text(f"--json {line}")) == admin.json(line)


def test_it_is_a_module_too_and_documents_its_exit_status(admin) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "coopshm.admin", "--help"], capture_output=True, text=True, check=True, timeout=WATCHDOG
    )
    assert done.stdout == admin.run("--help").stdout
    assert "Exit status: 0 done; 1 failed" in done.stdout
    assert "Usage: coopshm-admin" in done.stdout


# ---- text


def test_sizes_ages_and_shares_are_short() -> None:
    assert [text.size(n) for n in (0, 1023, 1024, 1048575, 1 << 40, 1 << 60)] == [
        "0 B", "1023 B", "1.0 KiB", "1.0 MiB", "1.0 TiB", "1048576.0 TiB",
    ]  # fmt: skip
    assert [text.age(s) for s in (0.0042, 59.94, 61, 3661, 90000)] == [
        "4 ms", "59.9 s", "1 min 1 s", "1 h 1 min", "1 d 1 h",
    ]  # fmt: skip
    assert [text.percent(*of) for of in ((0, 10), (1, 10**6), (1, 3), (10, 10))] == [
        "0.0 %",
        "<0.1 %",
        "33.3 %",
        "100.0 %",
    ]
