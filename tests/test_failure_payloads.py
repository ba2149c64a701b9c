"""Exceptions as bytes (coopshm/failures.py); what callers and waiters see of them is in test_failures.py."""

import copy
import pickle
import sys
import traceback

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopshm.errors import ComputeError, CycleError, DecodeError
from coopshm.failures import RemoteTraceback, decode_failure, encode_failure

# A slow run is no mistake: a loaded machine takes longer.
untimed = settings(deadline=None)

ORIGIN = "raised in process 4711, waited for by this call"
HEAD = 20


def raised(exc):
    """`exc` with a traceback that goes through this function."""
    try:
        raise exc
    except Exception as caught:
        return caught


def carried(exc):
    return decode_failure(encode_failure(exc, ORIGIN))


class WithStateError(Exception):
    def __init__(self, code, *, detail=None):
        super().__init__(code)
        self.code = code
        self.detail = detail


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("no"),
        KeyError("key"),
        OSError(2, "No such file", "x"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
        WithStateError(5, detail={"a": 1}),
        CycleError("a waits for a", ("a", "a")),
        StopIteration(3),
        Exception(),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_an_exception_arrives_as_what_it_was(exc):
    back = carried(raised(exc))
    assert type(back) is type(exc)
    assert str(back) == str(exc)
    assert back.args == exc.args
    state = {name: value for name, value in vars(back).items() if name != "__notes__"}
    assert state == vars(exc)


def test_its_cause_is_the_traceback_where_it_was_raised():
    back = carried(raised(ValueError("no")))
    assert type(back.__cause__) is RemoteTraceback
    assert "in raised\n    raise exc\nValueError: no\n" in str(back.__cause__)
    shown = "".join(traceback.format_exception(back))
    assert "in raised" in shown
    assert shown.rstrip().endswith(ORIGIN if sys.version_info >= (3, 11) else "ValueError: no")


def test_the_traceback_has_the_whole_chain():
    def chained():
        try:
            raise KeyError("first")
        except KeyError as exc:
            raise ValueError("second") from exc

    with pytest.raises(ValueError, match="second") as caught:
        chained()
    text = str(carried(caught.value).__cause__)
    assert "KeyError: 'first'" in text
    assert "ValueError: second" in text


def test_the_origin_is_noted():
    back = carried(ValueError("no"))
    if sys.version_info >= (3, 11):
        assert back.__notes__ == [ORIGIN]
    else:
        assert ORIGIN in str(back.__cause__)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="expected: notes came with Python 3.11")
def test_notes_of_the_original_are_kept():
    exc = ValueError("no")
    exc.add_note("mine")
    assert carried(exc).__notes__ == ["mine", ORIGIN]
    assert exc.__notes__ == ["mine"]


def test_the_original_is_left_as_it_is():
    exc = raised(WithStateError(5))
    before = (exc.args, copy.copy(vars(exc)), exc.__cause__, exc.__context__, exc.__traceback__)
    encode_failure(exc, ORIGIN)
    assert (exc.args, vars(exc), exc.__cause__, exc.__context__, exc.__traceback__) == before


# ---- what cannot be carried over


class NeedsTwoError(Exception):
    """Its pickle cannot be unpickled: args has one item, __init__ takes two."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class UnpicklesToTextError(Exception):
    def __reduce__(self):
        return str, ("not an exception",)


class UnpicklesToAnotherError(Exception):
    def __reduce__(self):
        return ValueError, ("another",)


class UnpicklableError(Exception):
    def __reduce__(self):
        raise RuntimeError("no")


def local_class():
    class LocalError(Exception):
        pass

    return LocalError("boom")


def with_lambda():
    exc = WithStateError(5)
    exc.detail = lambda: None
    return exc


@pytest.mark.parametrize(
    "exc",
    [
        NeedsTwoError(1, 2),
        UnpicklesToTextError("x"),
        UnpicklesToAnotherError("x"),
        UnpicklableError("x"),
        local_class(),
        with_lambda(),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_one_that_does_not_survive_pickling_arrives_as_text(exc):
    back = carried(raised(exc))
    assert type(back) is ComputeError
    assert type(exc).__qualname__ in back.type_name
    assert back.type_name in str(back)
    assert str(exc) in str(back)
    assert ORIGIN in str(back)
    assert "in raised" in back.text
    assert "in raised" in str(back.__cause__)
    again = pickle.loads(pickle.dumps(back))
    assert again.text == back.text


def test_one_whose_class_is_missing_here_arrives_as_text(monkeypatch):
    data = encode_failure(raised(WithStateError(5)), ORIGIN)
    monkeypatch.delattr(sys.modules[__name__], "WithStateError")
    back = decode_failure(data)
    assert type(back) is ComputeError
    assert "WithStateError: 5" in str(back)


def test_one_that_unpickles_to_something_else_here_arrives_as_text(monkeypatch):
    data = encode_failure(WithStateError(5), ORIGIN)
    monkeypatch.setattr(sys.modules[__name__], "WithStateError", lambda *args: "text")
    assert type(decode_failure(data)) is ComputeError


class BadTextError(Exception):
    def __str__(self):
        raise RuntimeError("no")


def test_one_whose_str_fails_arrives_all_the_same():
    assert type(carried(raised(BadTextError()))) is BadTextError


def test_one_whose_traceback_cannot_be_formatted_arrives_all_the_same(monkeypatch):
    def broken(*args, **kwargs):
        raise RecursionError

    monkeypatch.setattr(traceback, "format_exception", broken)
    back = carried(raised(ValueError("no")))
    assert type(back) is ValueError
    assert "ValueError: no\n(formatting its traceback raised RecursionError)" in str(back.__cause__)


class SealedError(Exception):
    def __setattr__(self, name, value):
        raise AttributeError(name)


def test_one_that_takes_no_attributes_arrives_all_the_same():
    back = carried(raised(SealedError(5)))
    assert type(back) is SealedError
    assert back.args == (5,)
    assert type(back.__cause__) is RemoteTraceback


def test_a_long_text_is_cut_in_the_middle():
    back = carried(raised(ValueError("first" + "é" * 100_000 + "last")))
    text = str(back.__cause__)
    assert len(text.encode()) < 33 * 1024
    assert "Traceback (most recent call last)" in text
    assert "[...]" in text
    assert text.endswith('last\n"""')


def test_a_deep_recursion_arrives():
    def recurse():
        recurse()

    with pytest.raises(RecursionError) as caught:
        recurse()
    assert type(carried(caught.value)) is RecursionError


def test_one_with_a_large_value_arrives_as_text():
    data = encode_failure(ValueError(b"x" * 1_100_000), ORIGIN)
    assert len(data) < 40_000
    assert type(decode_failure(data)) is ComputeError
    assert type(carried(ValueError(b"x" * 1_000_000))) is ValueError


def test_text_with_lone_surrogates_arrives():
    assert str(carried(ValueError("\ud800"))) == "\ud800"
    assert "\\ud800" in str(carried(UnpicklableError("\ud800")))


def test_an_interrupt_while_pickling_is_not_held_back():
    class InterruptingError(Exception):
        def __reduce__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_failure(InterruptingError(), ORIGIN)


# ---- damaged payloads


def test_a_view_is_decoded_too():
    assert type(decode_failure(memoryview(encode_failure(ValueError(), ORIGIN)))) is ValueError


@pytest.mark.parametrize("cut", [0, HEAD - 1, HEAD, -1])
def test_a_payload_that_was_cut_is_a_decode_error(cut):
    data = encode_failure(ValueError("no"), ORIGIN)
    with pytest.raises(DecodeError):
        decode_failure(data[:cut])
    with pytest.raises(DecodeError):
        decode_failure(data + b"x")


@untimed
@given(st.integers(0, HEAD - 1), st.integers(1, 255))
def test_a_damaged_length_is_a_decode_error(position, change):
    data = bytearray(encode_failure(ValueError("no"), ORIGIN))
    data[position] ^= change
    with pytest.raises(DecodeError):
        decode_failure(bytes(data))


@untimed
@given(st.integers(HEAD, 200), st.integers(1, 255))
def test_damaged_contents_still_give_an_exception(position, change):
    data = bytearray(encode_failure(ValueError("no"), ORIGIN))
    pickled = int.from_bytes(data[:4], "little")
    data[HEAD + (position - HEAD) % pickled] ^= change
    assert isinstance(decode_failure(bytes(data)), Exception)
