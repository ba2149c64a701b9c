"""The serializers beside pickle, which test_values.py holds."""

import ctypes
import dataclasses
import json
import pickle
import sys

import numpy as np
import pytest

from coopshm.errors import ConfigError, DecodeError, EncodeError
from coopshm.values import (
    BYTES,
    CUSTOM,
    FAILURE,
    JSON,
    MSGPACK,
    PICKLE,
    PICKLE_BUFFERS,
    STR,
    codec,
)
from tests.test_values import payload, round_trip


@pytest.mark.parametrize("serializer", ["pickle", "raw", "json", "msgpack", pickle], ids=str)
def test_an_entry_of_another_serializer_is_a_decode_error(serializer):
    coder = codec(serializer)
    own = {
        "pickle": {BYTES, STR, PICKLE, PICKLE_BUFFERS},
        "raw": {BYTES},
        "json": {JSON},
        "msgpack": {MSGPACK},
    }.get(serializer if isinstance(serializer, str) else "", {CUSTOM})
    for format in {0, BYTES, STR, PICKLE, PICKLE_BUFFERS, CUSTOM, JSON, MSGPACK, FAILURE, 255} - own:
        with pytest.raises(DecodeError, match=f"format {format}.*same serializer"):
            coder.decode(format, b"1")


# ---- raw


@pytest.mark.parametrize(
    "value",
    [
        b"abc",
        b"",
        bytearray(b"abc"),
        bytearray(),
        memoryview(b"abc"),
        memoryview(b""),
        memoryview(np.arange(6).reshape(2, 3)),
        memoryview(np.zeros((0, 3))),
        memoryview(np.zeros(3, [("a", "i2"), ("b", "f8")])),
        memoryview(ctypes.c_double(1.5)),
    ],
    ids=range(10),
)
def test_raw_takes_bytes_and_gives_bytes(value):
    back = round_trip(codec("raw"), value)
    assert type(back) is bytes
    assert back == bytes(value)


def released():
    whole = memoryview(b"abc")
    whole.release()
    return whole


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("abc", "not str"),
        (1, "not int"),
        (None, "not NoneType"),
        (np.zeros(3), "not numpy.ndarray"),
        (memoryview(b"abcdef")[::2], r"C-contiguous, use bytes"),
        (memoryview(np.zeros((3, 3), order="F")), r"C-contiguous, use bytes"),
        (released(), "memoryview"),
    ],
    ids=range(7),
)
def test_raw_refuses_anything_else(value, message):
    with pytest.raises(EncodeError, match=message):
        codec("raw").encode(value)


def test_raw_does_not_copy_on_the_way_in():
    value = bytearray(b"abc")
    piece = codec("raw").encode(value).pieces[0]
    value[0] = 0
    assert bytes(piece) == b"\0bc"


# ---- json, msgpack, and your own


@pytest.mark.parametrize(("serializer", "format"), [("json", JSON), ("msgpack", MSGPACK)])
def test_json_and_msgpack_store_what_they_are_called(serializer, format):
    value = {"a": [1, 2.5, None, True, "é"], "b": {}}
    encoded = codec(serializer).encode(value)
    assert encoded.format == format
    assert codec(serializer).decode(format, payload(encoded)) == value
    assert codec(serializer).decode(format, memoryview(payload(encoded))) == value
    assert round_trip(codec(serializer), (1, 2)) == [1, 2]


def test_json_is_json():
    assert json.loads(payload(codec("json").encode({"a": [1]}))) == {"a": [1]}


@pytest.mark.parametrize("serializer", ["json", "msgpack"])
def test_what_json_or_msgpack_cannot_do_is_an_error_with_its_cause(serializer):
    with pytest.raises(EncodeError, match=f"serializer {serializer} cannot encode.*object") as caught:
        codec(serializer).encode(object())
    assert isinstance(caught.value.__cause__, TypeError)
    with pytest.raises(DecodeError, match=f"serializer {serializer} cannot decode") as caught:
        codec(serializer).decode(JSON if serializer == "json" else MSGPACK, b"\xc1")
    assert isinstance(caught.value.__cause__, ValueError)


@dataclasses.dataclass
class Own:
    result: object
    seen: list = dataclasses.field(default_factory=list)

    def dumps(self, value):
        return self.result

    def loads(self, data):
        self.seen.append(data)
        return data


@pytest.mark.parametrize("result", [b"abc", bytearray(b"abc"), memoryview(b"abc"), np.frombuffer(b"abc", "u1")])
def test_an_own_serializer_may_return_any_bytes(result):
    encoded = codec(Own(result)).encode(None)
    assert encoded.format == CUSTOM
    assert payload(encoded) == b"abc"


def test_an_own_serializer_always_gets_bytes():
    own = Own(None)
    for data in b"abc", memoryview(b"abc"):
        assert codec(own).decode(CUSTOM, data) == b"abc"
    assert [type(data) for data in own.seen] == [bytes, bytes]


@pytest.mark.parametrize("result", ["abc", None, 1, memoryview(b"abcdef")[::2]], ids=range(4))
def test_an_own_serializer_that_returns_something_else_is_an_encode_error(result):
    with pytest.raises(EncodeError, match="needs bytes or a C-contiguous view"):
        codec(Own(result)).encode(None)


def test_a_serializer_may_be_named_by_a_reference():
    assert round_trip(codec("marshal:loads.__self__"), [1, 2]) == [1, 2]


@pytest.mark.parametrize(
    ("serializer", "message"),
    [
        ("pickel", "use pickle, raw, json, msgpack"),
        ("no_such_module:x", "importing"),
        ("json:JSONEncoder", "dumps and loads"),
        (object(), "dumps and loads"),
        (None, "dumps and loads"),
    ],
    ids=range(5),
)
def test_what_is_no_serializer_is_a_config_error(serializer, message):
    with pytest.raises(ConfigError, match=message):
        codec(serializer)


def test_msgpack_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "msgspec", None)
    with pytest.raises(ConfigError, match=r"coopshm\[msgpack\]"):
        codec("msgpack")
