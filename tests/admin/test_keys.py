"""keys."""

from __future__ import annotations

import ast

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
    assert lines[2].split() == ["1", "bytes", "True"]


def test_keys_of_a_large_cache_are_listed_in_order_and_may_be_limited(admin, use) -> None:
    use([(("key", at), b"") for at in range(10_000)], memory_limit="16 MiB")
    found = admin.json("keys c")["keys"]
    assert [ast.literal_eval(entry["key"]) for entry in found] == [("key", at) for at in range(10_000)]
    assert len(admin.text("keys c").splitlines()) == 10_001
    limited = admin.json("keys c --limit 2")
    assert (limited["entries"], len(limited["keys"])) == (10_000, 2)
    lines = admin.text("keys c --limit 2").splitlines()
    assert [line.split(maxsplit=1)[-1] for line in lines] == [
        "BYTES  FORMAT  KEY",
        "bytes   ('key', 0)",
        "bytes   ('key', 1)",
        "and 9998 more",
    ]
    assert admin.text("list").splitlines()[1].split()[1] == "10,000"


def test_keys_of_an_empty_cache(admin, use) -> None:
    use([])
    assert "is empty" in admin.text("keys c")
    assert admin.json("keys c")["keys"] == []
