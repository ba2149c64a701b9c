"""Many entries: every key is found, every value right, the accounting exact. Keys stay typed all the way."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import pytest

import coopshm
from tests.conftest import clean
from tests.procs import run

MIB = 1024 * 1024


def _value(n: int) -> Any:
    size = random.Random(n).choice([0, 1, 7, 60, 300, 2000, 4095, 4096, 5000])
    digest = hashlib.sha256(str(n).encode()).digest()
    data = (digest * (size // 32 + 1))[:size]
    return data if n % 3 else {"n": n, "data": data}


def _key(n: int) -> Any:
    return [n, f"key-{n}", ("tuple", n, None), str(n).encode(), n + 0.5][n % 5]


def _read_all(index: int, settings: Any, n: int) -> int:
    coopshm.configure(settings)
    c = coopshm.open("c")
    for i in range(index, n, 2):
        assert c.cached(_key(i), lambda: pytest.fail("stored")) == _value(i)
    return len(c.keys())


def test_a_hundred_thousand_entries_of_mixed_sizes(settings, cache) -> None:
    n = 100_000
    options = {"memory_limit": "256 MiB", "max_items": n}
    c = cache(**options)
    for i in range(n):
        c.cached(_key(i), lambda i=i: _value(i))
    stats = c.stats()
    assert stats.entries == n
    assert stats.bytes_used <= stats.memory_limit
    assert set(map(repr, c.keys())) == {repr(_key(i)) for i in range(n)}
    assert run(2, _read_all, settings(**options), n) == [n, n]
    assert stats.misses == n
    assert clean(c), "verify recounts every byte"


def test_keys_are_typed(cache) -> None:
    c = cache()
    keys: list[Any] = [
        1,
        True,
        1.0,
        "1",
        b"1",
        (1,),
        (True,),
        None,
        "None",
        (),
        "",
        b"",
        0,
        False,
        0.0,
        -0.0,
        ("1", b"1"),
    ]
    for n, key in enumerate(keys):
        assert c.cached(key, lambda n=n: n) == n
    for n, key in enumerate(keys):
        assert c.get(key) == n
    assert list(map(repr, c.keys())) == list(map(repr, keys)), "in the order of storing"
    c.reset()
    assert c.keys() == []


@pytest.mark.parametrize("size", [0, 1, 15, 16, 4095, 4096, 65536, 3 * MIB, 4 * MIB, 9 * MIB])
def test_values_of_every_size_come_back(cache, size) -> None:
    c = cache(memory_limit="32 MiB")
    data = random.Random(size).randbytes(size)
    assert c.cached("bytes", lambda: data) == data
    assert c.cached("bytes", lambda: pytest.fail("stored")) == data
    assert c.cached("pickled", lambda: [data, size]) == [data, size]
    assert c.cached("pickled", lambda: pytest.fail("stored")) == [data, size]
    assert c.view("bytes") == data
    assert clean(c)


def test_keys_of_the_largest_size(cache) -> None:
    c = cache()
    longest = "k" * 65_534
    assert c.cached(longest, lambda: 1) == 1
    assert c.cached(longest, lambda: 2) == 1
    with pytest.raises(coopshm.InvalidKeyError):
        c.cached("k" * 65_535, lambda: 1)
    assert c.keys() == [longest]


def test_the_raw_serializer_takes_bytes_only(cache) -> None:
    c = cache(serializer="raw")
    assert c.cached("k", lambda: bytearray(b"raw")) == b"raw"
    assert c.cached("k", lambda: b"") == b"raw"
    assert c.view("k") == b"raw"
    assert c.cached("text", lambda: "str") == "str", "returned, and not stored"
    assert c.get("text") is None
    assert c.stats().bypasses["encode"] == 1


class Gone:
    """A class that a deploy removes."""


def test_an_entry_that_cannot_be_decoded_is_computed_anew(cache, monkeypatch) -> None:
    c = cache()
    c.cached("k", Gone)
    monkeypatch.delattr("tests.test_entries.Gone")
    assert c.cached("k", lambda: "new") == "new"
    assert c.stats().bypasses["decode"] == 1
    with pytest.raises(coopshm.DecodeError):
        c.get("k")
