"""get: one value, decoded where that is harmless."""

from __future__ import annotations

import datetime
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coopshm
from coopshm.admin.entries import parse_key
from tests.admin.command import FAILED, NOTHING, USAGE, path_of
from tests.admin.test_keys import UNUSUAL
from tests.procs import Child

ALIEN = 65534


class Trap:
    """What whoever unpickles it is made to do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


class Dumped:
    """A serializer of the application."""

    @staticmethod
    def dumps(value: object) -> bytes:
        return f"<{value}>".encode()

    @staticmethod
    def loads(data: bytes) -> str:
        return data.decode()[1:-1]


@pytest.mark.parametrize("key", UNUSUAL[:-1], ids=lambda key: repr(key)[:20])
def test_a_key_is_written_as_it_is_listed(key) -> None:
    again = parse_key(repr(key))
    assert (type(again), repr(again)) == (type(key), repr(key))


@pytest.mark.parametrize("text", ["index", "a b", "2026-11", "1is", "f(x)", "[1]", "{}", "1j", "", "'open", " 42"])
def test_what_is_no_literal_of_a_key_is_a_string(text) -> None:
    assert parse_key(text) == text


def test_get_prints_values_as_python_does(admin, use) -> None:
    entries = {
        "str": "a\x1b[31m\nb€", b"k": b"\0\xff", ("product", 42): {"price": 1.5}, -1: None, 2: list(range(5000)),
        "date": datetime.date(2026, 1, 1), "array": np.arange(100_000), "large": b"x" * (5 << 20),
    }  # fmt: skip
    use(list(entries.items()), memory_limit="64 MiB")
    assert admin.text("get c str") == "'a\\x1b[31m\\nb€'\n"
    assert admin.text("get c", "b'k'") == "b'\\x00\\xff'\n"
    assert admin.text("get c", "('product', 42)") == "{'price': 1.5}\n"
    assert admin.text("get c -1") == "None\n"
    assert admin.text("get c date") == "datetime.date(2026, 1, 1)\n"
    assert admin.text("get c array").startswith("array([    0,     1,")
    assert admin.text("get c 2 --limit 0") == f"{entries[2]}\n"
    shortened = admin("get c 2")
    assert shortened.stdout == f"{str(entries[2])[:10_000]}\n"
    assert "more characters are not shown" in shortened.stderr
    document = admin.json("get c 2")
    assert document.pop("value") == str(entries[2])
    assert document == {
        "namespace": admin.namespace, "cache": "c", "key": "2", "format": "pickle", "decoded": True, "why_not": None,
        "type": "list", "value_bytes": len(pickle.dumps(entries[2], 5)),
    }  # fmt: skip
    done = admin.binary("get c --raw large")
    assert done == entries["large"]


def test_get_says_what_there_is_not(admin, use) -> None:
    use([("42", "string"), (("a", 1), b"")])
    assert "has no value of the key 42; it has one of the string '42'" in admin.refusal("get c 42", code=NOTHING)
    assert admin.text("get c --text 42") == admin.text("get c '42'") == "'string'\n"
    assert "the key 'nothing'\n" in admin.refusal("get c nothing", code=NOTHING)
    assert "exclude each other" in admin("get c --raw --json 42").stderr
    assert "65535 bytes" in admin.refusal("get c", "x" * 70_000, code=USAGE)


def test_a_look_is_not_counted_and_leaves_no_row(admin, use) -> None:
    use([("k", b"x" * (5 << 20))], memory_limit="16 MiB")
    before = admin.json("stats c")
    admin.text("get c k --limit 0")
    admin.text("keys c")
    assert admin.json("stats c") == before


def test_what_cannot_be_decoded_is_said(admin, use) -> None:
    use([("k", Dumped())])  # of a class that this command can import only in the right directory
    done = admin("get c k", env={"PYTHONPATH": "/nowhere"})
    assert (done.returncode, done.stdout) == (FAILED, "")
    assert "No module named 'tests'; --raw writes its bytes" in done.stderr


def _fill(conn: Any, settings: Any, trap: str, mode: int) -> None:
    coopshm.configure(settings)
    cache = coopshm.open("c")
    cache.cached("trap", lambda: Trap(Path(trap)))
    cache.cached("string", lambda: "harmless")
    cache.cached("array", lambda: np.arange(1000))
    os.chmod(path_of(settings["namespace"]), mode)
    conn.send("ready")
    conn.recv()


@pytest.mark.skipif(os.geteuid() != 0, reason="expected: only root can look at another user's cache")
@pytest.mark.parametrize(("owner", "mode"), [(ALIEN, 0o600), (0, 0o660)])
def test_root_runs_nobodys_code_by_looking(admin, settings, tmp_path, owner, mode) -> None:
    trap = tmp_path / "sprung"
    Child(_fill, settings(user=owner), str(trap), mode).receive()
    done = admin("get c trap")
    assert (done.returncode, done.stderr) == (0, "")
    first, dump, *_, last = done.stdout.splitlines()
    assert first.startswith("pickle, ")
    assert dump.startswith("00000000  80 05")
    assert "not decoded: it is a pickle, and " in last
    document = admin.json("get c trap")
    assert (document["decoded"], document["value"]) == (False, None)
    assert "--trust decodes it" in document["why_not"]
    assert admin.text("get c string") == "'harmless'\n"
    assert admin.text("get c array").startswith("array(")
    assert len(admin.json("keys c")["keys"]) == 3
    assert not trap.exists()
    admin.text("get c trap --trust")
    assert trap.exists()


def test_the_applications_serializer_is_used_if_it_is_trusted(admin, use, namespace) -> None:
    use([("k", "value")], serializer="tests.admin.test_get:Dumped")
    assert "not decoded: the application's own serializer" in admin.text("get c k")
    assert "does not say which serializer" in admin.refusal("get c k --trust")
    (admin.directory / "dumped.py").write_text("import json\ndef dumps(value): ...\ndef loads(data): return [data]\n")
    (admin.directory / "coopshm.toml").write_text("[caches.c]\nserializer = 'dumped:__name__'")
    assert "must have the methods" in admin.refusal("get c k --trust", code=FAILED)
    (admin.directory / "serializers.py").write_text("import dumped as d\n")
    (admin.directory / "coopshm.toml").write_text("[caches.c]\nserializer = 'serializers:d'")
    assert admin.text("get c k --trust") == "[b'<value>']\n"


@pytest.mark.parametrize("serializer", ["json", "msgpack", "raw"])
def test_other_serializers_need_no_configuration(admin, use, serializer) -> None:
    value = b"bytes" if serializer == "raw" else {"a": [1, None]}
    use([("k", value)], serializer=serializer)
    assert admin.text("get c k") == f"{value}\n"
    assert admin.json("keys c")["keys"][0]["format"] == {"raw": "bytes"}.get(serializer, serializer)


def test_keys_are_filtered_sorted_and_limited(admin, use) -> None:
    entries = [("b", b"x" * 3), ("ab", b"x" * 9), (("a", 1), b"x"), (b"abc", b"xx"), (("item", "a"), b""), (7, b"xxxx")]
    use(entries)

    def shown(options: str) -> str:
        return " ".join(entry["key"] for entry in admin.json(f"keys c {options}")["keys"])

    assert shown("--prefix a") == "'ab' ('a', 1) b'abc'"
    assert shown("--match a") == "'ab' ('a', 1) b'abc' ('item', 'a')"
    assert shown("--regex ^.a.$ --reverse") == ""
    assert shown("--regex ^.ab") == "'ab'"
    assert shown("--regex 'a --match b") == "'ab' b'abc'"
    assert shown("--sort size") == "'ab' 7 'b' b'abc' ('a', 1) ('item', 'a')"
    assert shown("--sort size --limit 2") == "'ab' 7"
    assert shown("--sort size --reverse --limit 2") == "('item', 'a') ('a', 1)"
    assert shown("--sort key --limit 3") == "'ab' 'b' ('a', 1)"
    assert shown("--reverse --limit 1") == "7"
    document = admin.json("keys c --match a --limit 1")
    assert (document["entries"], document["matching"], len(document["keys"])) == (6, 4, 1)
    assert admin.json("keys c --sort size --limit 0")["matching"] == 6
    assert "none of them like that" in admin.text("keys c --match nothing")
    assert "is no regular expression" in admin.refusal("keys c --regex (", code=USAGE)
