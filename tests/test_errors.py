import pickle

import pytest

from coopshm import errors
from coopshm.errors import (
    ComputeError,
    ConfigError,
    CoopshmError,
    CycleError,
    EncodeError,
    InvalidKeyError,
    ResetError,
    SegmentError,
    UnknownCacheError,
    WaitTimeout,
    shorten,
    shorten_text,
    type_name,
)

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, CoopshmError)]


def test_all_errors_are_listed_and_form_one_tree():
    assert len(CLASSES) == 16
    assert {cls.__name__ for cls in CLASSES} <= set(errors.__all__)


@pytest.mark.parametrize(
    ("cls", "also"),
    [
        (ConfigError, ValueError),
        (UnknownCacheError, KeyError),
        (InvalidKeyError, TypeError),
        (CycleError, RuntimeError),
        (ResetError, RuntimeError),
        (EncodeError, TypeError),
        (WaitTimeout, TimeoutError),
    ],
)
def test_an_error_is_also_the_standard_error_for_its_mistake(cls, also):
    assert issubclass(cls, also)


@pytest.mark.parametrize("name", ["LayoutError", "OwnershipError", "NoSpaceError", "BusyError", "CorruptError"])
def test_what_is_wrong_with_a_segment_is_a_segment_error(name):
    assert issubclass(getattr(errors, name), SegmentError)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_survives_pickling(cls, protocol):
    back = pickle.loads(pickle.dumps(cls('it\'s "so"'), protocol))
    assert type(back) is cls
    assert str(back) == 'it\'s "so"'
    assert back.args == ('it\'s "so"',)


def test_attributes_survive_pickling():
    cycle = pickle.loads(pickle.dumps(CycleError("a waits for b", ("a", ("b", 1), "a"))))
    assert cycle.chain == ("a", ("b", 1), "a")
    compute = pickle.loads(pickle.dumps(ComputeError("boom", "shop.Boom", "Traceback ...")))
    assert (compute.type_name, compute.text) == ("shop.Boom", "Traceback ...")


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_docstring_says_what_the_error_means(cls):
    assert cls.__doc__
    assert cls.__doc__ != Exception.__doc__


def test_the_message_of_an_unknown_cache_is_not_quoted():
    assert str(UnknownCacheError("no cache 'x'")) == "no cache 'x'"


def test_shorten_keeps_both_ends_of_a_long_repr():
    text = shorten("a" * 100 + "z" * 100, 20)
    assert len(text) == 20
    assert text.startswith("'aaa")
    assert "..." in text
    assert text.endswith("zzz'")


def test_shorten_leaves_a_short_repr_alone():
    assert shorten(("a", 1)) == "('a', 1)"
    assert shorten("x" * 78) == repr("x" * 78)
    assert len(shorten("x" * 79)) == 80


@pytest.mark.parametrize("limit", range(-1, 12))
def test_shorten_never_exceeds_its_limit_of_at_least_five(limit):
    assert len(shorten_text("abcdefghijklmnopqrst", limit)) == max(limit, 5)


def test_shorten_survives_a_failing_repr():
    class Bad:
        def __repr__(self):
            raise RuntimeError("no")

    assert shorten(Bad()) == "<Bad object, whose repr() fails>"


def test_type_name_has_the_module_unless_builtin():
    assert type_name(int) == "int"
    assert type_name(CycleError) == "coopshm.errors.CycleError"
