"""`memoize`: one entry per call, however its arguments are passed."""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import Any

import pytest

import coopshm
from tests.conftest import clean
from tests.procs import Tally, run


@pytest.fixture
def calls(cache) -> list[Any]:
    cache()
    return []


def test_the_same_call_is_one_entry_however_it_is_written(calls) -> None:
    @coopshm.memoize("c")
    def add(a: int, b: int = 2) -> int:
        calls.append((a, b))
        return a + b

    assert [add(1), add(1, 2), add(a=1), add(b=2, a=1), add(1, b=2)] == [3] * 5
    assert calls == [(1, 2)]
    assert add(1, 3) == 4
    assert calls == [(1, 2), (1, 3)]
    assert coopshm.stats("c").computations == 2


def test_all_kinds_of_parameters(calls) -> None:
    @coopshm.memoize("c")
    def call(a: Any, /, b: Any = 0, *rest: Any, c: Any = 1, **more: Any) -> Any:
        calls.append(1)
        return (a, b, rest, c, tuple(sorted(more.items())))

    arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((1,), {}), ((1, 2), {}), ((1, 2, 3), {}), ((1, 2, (3,)), {}), ((1,), {"c": 2}), ((1,), {"x": 1, "y": 2}),
        ((True,), {}), ((1.0,), {}), (("1",), {}), ((1,), {"d": 2}), ((1, 0, ("d", 2)), {}),
    ]  # fmt: skip
    for _ in range(2):
        for args, kwargs in arguments:
            assert call(*args, **kwargs) == call.__wrapped__(*args, **kwargs)  # type: ignore[attr-defined]
    assert coopshm.stats("c").computations == len(arguments)
    assert call(1, y=2, x=1) == call(1, x=1, y=2)
    assert coopshm.stats("c").computations == len(arguments)


def test_two_functions_do_not_share_entries(calls) -> None:
    def one(x: int) -> str:
        return "one"

    def two(x: int) -> str:
        return "two"

    first, second = coopshm.memoize("c")(one), coopshm.memoize("c")(two)
    assert (first(1), second(1), first(1), second(1)) == ("one", "two", "one", "two")


def test_functions_that_a_function_makes_share_their_results(calls) -> None:
    """Their name is what other processes know them by: what they close over does not count."""

    def make(factor: int) -> Any:
        @coopshm.memoize("c")
        def times(x: int) -> int:
            return factor * x

        return times

    assert (make(2)(1), make(3)(1)) == (2, 2)


def test_it_looks_like_the_function(calls) -> None:
    def documented(x: int) -> int:
        """What it does."""
        return x

    decorated = coopshm.memoize("c")(documented)
    assert inspect.signature(decorated) == inspect.signature(documented)
    assert decorated.__doc__ == "What it does."
    assert decorated.__name__ == "documented"  # type: ignore[attr-defined]
    assert decorated.__wrapped__ is documented  # type: ignore[attr-defined]
    assert decorated.cache_key(5) == (f"{__name__}.{documented.__qualname__}", 5)
    assert "documented" in repr(decorated)
    assert decorated(5) == 5
    assert coopshm.open("c").get(decorated.cache_key(5)) == 5


def test_methods_say_what_stands_for_self(calls) -> None:
    class Shop:
        def __init__(self, id: int) -> None:
            self.id = id

        @coopshm.memoize("c", key=lambda self, item: (self.id, item))
        def price(self, item: str) -> str:
            calls.append(item)
            return f"{item} of {self.id}"

        @coopshm.memoize("c")
        def wrong(self) -> None: ...

        @staticmethod
        @coopshm.memoize("c")
        def double(x: int) -> int:
            return 2 * x

        @classmethod
        @coopshm.memoize("c", key=lambda cls, x: (cls.__name__, x))
        def named(cls, x: int) -> tuple[str, int]:
            return cls.__name__, x

        @classmethod
        @coopshm.memoize("c", key=lambda cls, x: (cls.__name__, x))
        async def anamed(cls, x: int) -> tuple[str, int]:
            return cls.__name__, x

    class Branch(Shop): ...

    a, b = Shop(1), Shop(2)
    assert [a.price("tea"), b.price("tea"), Shop(1).price("tea"), a.price(item="tea")] == [
        "tea of 1", "tea of 2", "tea of 1", "tea of 1",
    ]  # fmt: skip
    assert calls == ["tea", "tea"]
    assert a.double(4) == Shop.double(4) == 8
    assert [a.named(1), Shop.named(1), Branch.named(x=1)] == [("Shop", 1), ("Shop", 1), ("Branch", 1)]
    assert [asyncio.run(kind.anamed(1)) for kind in (Shop, Branch, Branch(3))] == [("Shop", 1), *[("Branch", 1)] * 2]
    with pytest.raises(coopshm.InvalidKeyError, match="Shop"):
        a.wrong()


def test_wrong_calls_are_type_errors_and_exceptions_are_the_functions(calls) -> None:
    @coopshm.memoize("c")
    def divide(a: int, b: int) -> float:
        return a / b

    for _ in range(2):
        with pytest.raises(TypeError, match="missing a required argument"):
            divide(1)  # type: ignore[call-arg]
        with pytest.raises(ZeroDivisionError):
            divide(1, 0)
    with pytest.raises(coopshm.InvalidKeyError):
        divide([], 1)  # type: ignore[arg-type]
    with pytest.raises(coopshm.ConfigError):
        coopshm.memoize("not/a name")
    with pytest.raises(TypeError, match=r'write @coopshm.memoize\("NAME"\)'):
        coopshm.memoize(len)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="decorates functions"):
        coopshm.memoize("c")(functools.partial(len))
    with pytest.raises(TypeError, match="none of its own"):  # two would share their results
        coopshm.memoize("c")(lambda x: x)
    for kind in (classmethod, staticmethod):
        with pytest.raises(TypeError, match=f"below @{kind.__name__}"):
            coopshm.memoize("c")(kind(len))


def test_an_unknown_cache_is_named_at_the_first_call(calls) -> None:
    @coopshm.memoize("unknown")
    def decorated() -> None: ...

    with pytest.raises(coopshm.UnknownCacheError, match="unknown"):
        decorated()


@pytest.mark.parametrize("is_async", [False, True])
def test_a_decorated_function_may_be_decorated(settings, is_async) -> None:
    """Attributes that the inner one has, and hands on as functions do, are not taken for the outer one's own."""
    settings = settings()
    settings["caches"]["other"] = {}
    coopshm.configure(settings)

    def double(x: int) -> int:
        return 2 * x

    async def adouble(x: int) -> int:
        return 2 * x

    inner: Any = coopshm.memoize("c", key=lambda x: ("inner", x))(adouble if is_async else double)
    inner.mark = "kept"
    outer: Any = coopshm.memoize("other", key=lambda x: ("outer", x))(inner)
    assert (asyncio.run(outer(2)) if is_async else outer(2)) == 4
    assert coopshm.open("c").keys() == [inner.cache_key(2)] != coopshm.open("other").keys() == [outer.cache_key(2)]
    assert outer.__wrapped__ is inner
    assert outer.mark == "kept"


def test_a_reset_is_seen_by_the_next_call(calls) -> None:
    @coopshm.memoize("c")
    def value() -> int:
        calls.append(1)
        return len(calls)

    assert [value(), value()] == [1, 1]
    coopshm.reset("c")
    assert [value(), value()] == [2, 2]


_tally: list[Tally] = []


@coopshm.memoize("c")
def _square(x: int) -> int:
    _tally[0].add()
    return x * x


def _squares(index: int, settings: Any, tally: Tally) -> list[int]:
    coopshm.configure(settings)
    _tally[:] = [tally]
    return [_square(x) for x in range(20)]


def test_processes_compute_once(settings, cache, tally) -> None:
    c = cache()
    assert run(8, _squares, settings(), tally) == [[x * x for x in range(20)]] * 8
    assert len(tally) == 20
    assert clean(c)


def test_coroutine_functions(calls) -> None:
    @coopshm.memoize("c")
    async def load(x: int, y: int = 0) -> int:
        calls.append(x)
        await asyncio.sleep(0)
        return x + y

    assert inspect.iscoroutinefunction(load)

    async def main() -> list[int]:
        return await asyncio.gather(*(load(1) for _ in range(50)), load(x=1), load(1, 0))

    assert asyncio.run(main()) == [1] * 52
    assert calls == [1]
    assert coopshm.open("c").get(load.cache_key(1)) == 1
