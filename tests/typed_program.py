"""A user's program with every public name. `make types` checks it as strictly as it can be; test_typed_program.py runs
it, so that what the types say is what happens."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import coopshm

if TYPE_CHECKING:
    from typing_extensions import assert_type
else:

    def assert_type(value: object, _kind: object) -> object:
        return value


def perhaps() -> str | coopshm.NoCache[str]:
    return coopshm.NoCache("x")


async def body() -> bytes:
    return b"body"


async def perhaps_body() -> bytes | coopshm.NoCache[bytes]:
    return coopshm.NoCache(b"body")


@coopshm.memoize("pages")
def product(number: int, lang: str = "en") -> str:
    return f"{number} {lang}"


@coopshm.memoize("pages", timeout=60, on_timeout="raise")
async def later(number: int) -> str:
    return str(number)


@coopshm.memoize("pages")
def unstored(number: int) -> str | coopshm.NoCache[str]:
    return coopshm.NoCache(str(number))


@coopshm.memoize("pages")
def nothing() -> int | None:
    return None


def key_of(shop: Shop, number: int) -> int:
    return number


class Shop:
    @coopshm.memoize("pages", key=key_of)
    def price(self, number: int) -> float:
        return number / 100

    @coopshm.memoize("pages", key=key_of)
    async def stock(self, number: int) -> int:
        return number

    @staticmethod
    @coopshm.memoize("pages")
    def vat(percent: int) -> float:
        return percent / 100


def functions() -> None:
    assert assert_type(coopshm.cached("pages", ("a", 1), lambda: 3), int) == 3
    assert assert_type(coopshm.cached("pages", "b", perhaps, timeout=60.0, on_timeout="compute"), str) == "x"
    assert assert_type(product(1, lang="de"), str) == "1 de"
    assert assert_type(product.cache_key(1), "tuple[object, ...]")[1:] == (1, "en")
    assert product.__wrapped__(1) == "1 en"
    assert assert_type(unstored(1), str) == "1"
    assert assert_type(nothing(), "int | None") is None
    made: coopshm.Memoized[[int, str], str] = product
    assert made(2, "de") == "2 de"
    product("1")  # type: ignore[arg-type]
    product(1, language="de") if TYPE_CHECKING else None  # type: ignore[call-arg]


def methods() -> None:
    shop = Shop()
    assert assert_type(shop.price(150), float) == 1.5
    assert assert_type(Shop.price(shop, 150), float) == 1.5
    assert Shop.price.cache_key(shop, 150)[1] == 150
    assert assert_type(Shop.vat(19), float) == 0.19


async def coroutines() -> None:
    assert assert_type(await coopshm.acached("pages", "c", body), bytes) == b"body"
    assert assert_type(await coopshm.acached("pages", "d", perhaps_body, timeout=60), bytes) == b"body"
    assert assert_type(await later(3), str) == "3"
    assert assert_type(await Shop().stock(4), int) == 4
    assert assert_type(await coopshm.open("pages").acached("c", body), bytes) == b"body"


def resets() -> None:
    seen: list[object] = []
    coopshm.on_reset("pages", seen.append)
    assert assert_type(coopshm.reset("pages"), object) == 2
    assert coopshm.reset("pages", version="2026-11") == assert_type(coopshm.version("pages"), object)
    report = assert_type(coopshm.reset("pages", wait=0.0), coopshm.ResetReport)
    nodes: tuple[coopshm.NodeReset, ...] = report.nodes
    assert (assert_type(report.complete, bool), report.version, nodes) == (True, 1, ())
    coopshm.cached("pages", "after", lambda: None)
    assert seen[-1] == 1


def a_cache() -> None:
    cache = assert_type(coopshm.open("pages"), coopshm.Cache)
    assert assert_type(cache.cached("list", lambda: [1]), "list[int]") == [1]
    assert assert_type(cache.get("list"), object) == [1]
    cache.cached("bytes", lambda: b"x")
    view = assert_type(cache.view("bytes"), "memoryview | None")
    assert view is not None
    assert bytes(view) == b"x"
    view.release()
    assert assert_type(cache.keys(), "list[object]") == ["after", "list", "bytes"]
    assert assert_type(cache.verify(), "list[str]") == []
    stats = assert_type(coopshm.stats("pages"), coopshm.Stats)
    times: coopshm.Histogram = stats.compute
    assert times.count == stats.computations
    cache.destroy()


ERRORS: tuple[type[coopshm.CoopshmError], ...] = (
    coopshm.BusyError,
    coopshm.ComputeError,
    coopshm.ConfigError,
    coopshm.CorruptError,
    coopshm.CycleError,
    coopshm.DecodeError,
    coopshm.EncodeError,
    coopshm.InvalidKeyError,
    coopshm.LayoutError,
    coopshm.NoSpaceError,
    coopshm.OwnershipError,
    coopshm.ResetError,
    coopshm.SegmentError,
    coopshm.UnknownCacheError,
    coopshm.WaitTimeout,
)


def errors() -> None:
    with pytest.raises(ERRORS, match=r"did you mean 'pages'\?"):
        coopshm.open("page")
    with pytest.raises(coopshm.ConfigError, match="cannot be read"):
        coopshm.configure(Path("nowhere.toml"))


def main(namespace: str) -> None:
    coopshm.configure({"namespace": namespace, "caches": {"pages": {"memory_limit": "1 MiB"}}})
    functions()
    methods()
    asyncio.run(coroutines())
    resets()
    errors()
    a_cache()
