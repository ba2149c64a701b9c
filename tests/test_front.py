"""The way of a hit, in C: the same keys as keys.py, the same exactness as the rest, and nothing leaks."""

from __future__ import annotations

import gc
import re
import signal
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as fewer
from hypothesis import strategies as st

import coopshm
from coopshm import _segment, keys
from coopshm._front import Front, encode_key
from tests.conftest import clean

_SCALARS = st.one_of(st.text(), st.binary(), st.integers(), st.floats(), st.booleans(), st.none())
_KEYS = st.recursive(_SCALARS, lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=12)


def _fail() -> Any:
    pytest.fail("stored values are not computed")


# ---- keys


@fewer(max_examples=1000)
@given(_KEYS)
def test_a_key_is_encoded_as_keys_py_says_or_left_to_it(key) -> None:
    assert encode_key(key) in (keys.encode_key(key), None)


@pytest.mark.parametrize(
    "key",
    ["", "text", "ü€😀", b"", b"\0\xff", 0, 1, -1, 15, 16, -255, 2**63 - 1, -(2**63), True, False, None, (),
     ("product", 42), ("a", (b"b", (None, (True,)))), "x" * 500],
)  # fmt: skip
def test_ordinary_keys_are_encoded_in_c(key) -> None:
    assert encode_key(key) == keys.encode_key(key)


class _Text(str):
    __slots__ = ()


@pytest.mark.parametrize("key", ["\ud800", 2**63, 1.5, "x" * 512, (((((1,),),),),), _Text("s"), ["list"], (1.0,)])
def test_other_keys_are_left_to_python(key) -> None:
    assert encode_key(key) is None


def test_keys_that_python_takes_for_equal_stay_apart_inside_tuples_too(cache) -> None:
    c = cache()
    alike: list[Any] = [
        (1, "a"), (True, "a"), (1.0, "a"), ((1,), 0), ((True,), 0), ((1,), False), ((1,), 0.0), ((1,), -0.0),
        (0.0,), (-0.0,), (None,), (), ((),), 0.0, -0.0, 0, False, None,
    ]  # fmt: skip
    for _ in range(4):
        for n, key in enumerate(alike):
            assert c.cached(key, lambda n=n: n) == n
    assert c.stats().computations == len(alike)


def test_keys_of_other_types_are_refused_and_their_code_does_not_run(cache) -> None:
    class Odd:
        def __hash__(self) -> int:
            raise AssertionError("it was hashed")

    c = cache()
    for key in (Odd(), (1, Odd()), [1], _Text("subclass"), (_Text("subclass"),)):
        with pytest.raises(coopshm.InvalidKeyError):
            c.cached(key, _fail)


def _nested(value: object, levels: int) -> tuple[object, ...]:
    nested: tuple[object, ...] = (value,)
    for _ in range(levels):
        nested = (nested,)
    return nested


def test_a_key_whose_levels_would_take_more_stack_than_there_is_is_refused(cache) -> None:
    c = cache()
    c.cached("hot", lambda: "v")

    @coopshm.memoize("c")
    def function(key: Any) -> Any:
        return key

    key = _nested("k", 500_000)
    for ask in (lambda: c.cached(key, _fail), lambda: coopshm.cached("c", key, _fail), lambda: function(key)):
        with pytest.raises(coopshm.InvalidKeyError, match="levels"):
            ask()


def test_a_value_whose_levels_would_take_more_stack_than_there_is_is_returned(cache) -> None:
    class Serializer:
        @staticmethod
        def dumps(value: Any) -> bytes:
            return b"nested"

        @staticmethod
        def loads(data: bytes) -> Any:
            return _nested("v", 500_000)

    c = cache(serializer=Serializer())
    for _ in range(3):
        value: Any = c.cached("k", lambda: _nested("v", 500_000))
        for _ in range(500_001):
            (value,) = value
        assert value == "v"
    assert c.stats().computations == 1


# ---- arguments


def test_wrong_arguments_are_type_errors(cache) -> None:
    c = cache()
    for wrong in (lambda: c.cached("k"), lambda: c.cached("k", _fail, 1), lambda: coopshm.cached("c", "k")):
        with pytest.raises(TypeError, match="takes a"):
            wrong()
    with pytest.raises(coopshm.UnknownCacheError):
        coopshm.cached("unknown", "k", _fail)
    with pytest.raises((TypeError, coopshm.ConfigError)):
        coopshm.cached(["unhashable"], "k", _fail)  # type: ignore[arg-type]


def test_a_front_that_was_never_attached_asks_python() -> None:
    class Bare(Front):
        def _cached(self, key: object, fn: Any) -> object:
            return "asked"

    assert Bare(lambda format, payload: payload, None, 1, 100).cached("k", _fail) == "asked"


# ---- exactness


def _between_look_up_and_copy(c: coopshm.Cache, act: Any) -> Any:
    """Have `act` run each time the way of a hit has found an entry, before it copies it."""
    lib, ffi = _segment.lib, _segment.ffi
    segment = c._attachment.segment

    def find(handle: Any, key: Any, size: int) -> int:
        found = int(lib.csm_find(handle, key, size))
        if found:
            act()
        return found

    callback = ffi.callback("int64_t(void *, char *, size_t)", find)
    segment.addresses = (int(ffi.cast("uintptr_t", callback)), *segment.addresses[1:])
    c._arrive(*c._attachment.seen)
    return callback


@pytest.mark.parametrize("value", [b"old" * 100, "old" * 100, {"old": 1}])
def test_a_reset_between_look_up_and_copy(cache, value) -> None:
    c = cache(hot_objects=False)
    c.cached("k", lambda: value)
    resets: list[int] = []

    def reset_once() -> None:
        if not resets:
            resets.append(1)
            c.reset()
            c.cached("other", lambda: b"x" * 300)  # lies where the old one lay

    keep = _between_look_up_and_copy(c, reset_once)
    assert c.cached("k", lambda: "new") == "new"
    assert resets
    del keep


def test_a_reset_while_decoding(cache) -> None:
    class Serializer:
        resets = 0

        @staticmethod
        def dumps(value: Any) -> bytes:
            return str(value).encode()

        def loads(self, data: bytes) -> Any:
            if data == b"old" and not self.resets:
                self.resets += 1
                c.reset()
            return data.decode()

    c = cache(serializer=Serializer())
    c.cached("k", lambda: "old")
    c._enter(c.stats().generation, c._hot.tables, {}, {})  # as a process to which it is not hot
    assert c.cached("k", lambda: "new") == "new"


def test_a_reset_in_the_middle_of_a_hit_that_looks_after_the_segment(cache, monkeypatch) -> None:
    """One in some thousand hits runs Python code. What it found is old when a reset returned meanwhile."""
    c = cache()
    c.cached("k", lambda: "old")
    look, resets = type(c)._look, []

    def look_and_reset(self: Any) -> None:
        look(self)
        if not resets:
            resets.append(self.reset())

    monkeypatch.setattr(type(c), "_look", look_and_reset)
    for _ in range(10_000):
        value = c.cached("k", lambda: "new")
        assert value == ("new" if resets else "old")
        if resets:
            break
    assert resets


def test_a_value_found_in_the_last_generation_is_not_kept_in_the_next(cache) -> None:
    c = cache()
    c.cached("k", lambda: "old")
    late = c._hot.tables
    c.reset()
    assert c.cached("k", lambda: "new") == "new"
    c._keep(late, "k", "old", 3)  # by a thread that was preempted in between
    assert c.cached("k", _fail) == "new"


# ---- what decoders raise


@pytest.mark.parametrize("value", ["", "text", "ü€😀", "lone \ud800", "x" * 5000, {"a": 1}, [None, 1.5], 10**30])
def test_values_come_back_from_c_as_from_the_codec(cache, value) -> None:
    c = cache(hot_objects=False)
    for _ in range(3):
        assert c.cached("k", lambda: value) == value
    assert c.stats().hits == 2


def _reduced() -> Any:
    raise Undecodable.error


class Undecodable:
    error: BaseException = ValueError("damaged")

    def __reduce__(self) -> Any:
        return _reduced, ()


def test_what_unpickling_raises(cache, monkeypatch) -> None:
    c = cache()
    c.cached("k", Undecodable)
    assert c.cached("k", lambda: "computed") == "computed"
    assert c.stats().bypasses["decode"] == 1
    monkeypatch.setattr(Undecodable, "error", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        c.cached("k", _fail)
    assert clean(c)


class _Decoder:
    error: BaseException | None = None

    @staticmethod
    def dumps(value: Any) -> bytes:
        return str(value).encode()

    @classmethod
    def loads(cls, data: bytes) -> Any:
        if cls.error is not None:
            raise cls.error
        return [data]


def test_what_a_signal_handler_raises_in_a_decoder_is_raised(cache, monkeypatch) -> None:
    c = cache(serializer=_Decoder)
    c.cached("k", lambda: ["v"])
    monkeypatch.setattr(_Decoder, "error", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        c.cached("k", _fail)
    monkeypatch.setattr(_Decoder, "error", ValueError("damaged"))
    assert c.cached("k", lambda: "computed") == "computed"
    assert c.stats().bypasses["decode"] == 1
    monkeypatch.setattr(_Decoder, "error", None)
    assert c.cached("k", _fail) == [b"['v']"]
    assert clean(c)


def test_signals_during_hits(cache) -> None:
    """Handlers run between hits, and what they raise comes out of the call that they interrupt."""
    c = cache()
    c.cached("k", lambda: {"a": list(range(50))})
    hits = 0

    def ring(*_: Any) -> None:
        raise KeyboardInterrupt

    def hit_for_ever() -> None:
        nonlocal hits
        while True:
            assert c.cached("k", _fail)["a"][-1] == 49
            hits += 1

    old = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    try:
        with pytest.raises(KeyboardInterrupt):
            hit_for_ever()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert hits
    assert clean(c)


# ---- references


def test_hits_leak_no_references(cache) -> None:
    c = cache()
    key, hot_key, tuple_key = "stored", "hot", ("tuple", 1)
    c.cached(key, lambda: [1])
    c.cached(hot_key, lambda: "hot value")
    c.cached(tuple_key, lambda: "tuple value")
    value = c.cached(hot_key, _fail)

    def counts() -> list[int]:
        found = [*map(sys.getrefcount, (key, hot_key, tuple_key, value, c, c._hot.tables, _fail, coopshm.DecodeError))]
        gc.collect()
        return [*found, len(gc.get_objects())]

    def hits() -> None:
        for _ in range(1000):
            c.cached(key, _fail)
            c.cached(hot_key, _fail)
            c.cached(tuple_key, _fail)
            coopshm.cached("c", hot_key, _fail)
            c.cached(key, _fail, timeout=1.5, on_timeout="compute")
            coopshm.cached("c", hot_key, _fail, timeout=2, on_timeout="raise")
            with pytest.raises(coopshm.ConfigError):
                c.cached(hot_key, _fail, timeout=-1)
            with pytest.raises(TypeError):
                c.cached(hot_key, _fail, time=1)
            with pytest.raises(coopshm.InvalidKeyError):
                c.cached([], _fail)

    hits()
    before = counts()
    hits()
    after = counts()
    assert all(abs(a - b) < 100 for a, b in zip(before, after, strict=True)), (before, after)


def test_a_cache_that_nobody_refers_to_is_collected(settings) -> None:
    coopshm.configure(settings())
    c = coopshm.open("c")
    c.cached("k", lambda: "v")
    gone = weakref.ref(c)
    segment = c._attachment.segment
    coopshm.configure({})
    del c
    gc.collect()
    assert gone() is None
    assert segment.describe().processes == 1, "the segment itself is still held, here"


def test_the_c_code_uses_nothing_that_headers_of_later_pythons_mean_otherwise() -> None:
    """What Python 3.13 builds for the stable ABI runs on 3.11, which refuses a format with "#" from its headers. (What
    returns None, the compiler looks after: see front.h.)"""
    sources = sorted((Path(__file__).parents[1] / "csrc" / "python").glob("*.[ch]"))
    assert len(sources) > 5
    for path in sources:
        code = re.sub(r"/\*.*?\*/|^#.*?$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
        assert re.findall(r'"[^"\n]*#[^"\n]*"', code) == [], path.name
