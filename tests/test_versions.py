import datetime
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopshm.errors import ConfigError
from coopshm.versions import VERSION_BYTES_MAX, decode_version, encode_version

# A slow run is no mistake: a loaded machine takes longer.
untimed = settings(deadline=None)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
versions = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("version", "encoded"),
    [
        (None, b"null"),
        (1, b"1"),
        (True, b"true"),
        (1.0, b"1.0"),
        ("2026-11", b'"2026-11"'),
        ("é", b'"\\u00e9"'),
        ({"b": [1, 2], "a": {}}, b'{"a":{},"b":[1,2]}'),
    ],
)
def test_the_encoding_is_canonical_json(version, encoded):
    assert encode_version(version) == encoded


@untimed
@given(versions)
def test_decoding_gives_the_version_back(version):
    back = decode_version(encode_version(version))
    assert back == version
    assert json.dumps(back, sort_keys=True) == json.dumps(version, sort_keys=True)  # tells 1, 1.0 and True apart


def test_the_order_of_keys_does_not_matter():
    assert encode_version({"a": 1, "b": 2}) == encode_version({"b": 2, "a": 1})


def test_one_is_not_true():
    assert len({encode_version(version) for version in (1, True, 1.0, "1", [1])}) == 5


def test_a_tuple_counts_as_a_list():
    assert encode_version((1, (2,))) == encode_version([1, [2]])
    assert decode_version(encode_version((1,))) == [1]


def circular():
    version = []
    version.append(version)
    return version


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (math.nan, "finite"),
        ([math.inf], r"version\[0\].*finite"),
        (-math.inf, "finite"),
        ({1: 2}, "keys of dicts are str"),
        ({"a": {None: 2}}, r"version\.a: None.*keys of dicts"),
        (b"x", "not bytes"),
        ({"a": [{1}]}, r"version\.a\[0\].*not set"),
        ("\ud800", "surrogates"),
        ({"\udfff": 1}, "surrogates"),
        (datetime.date(2026, 11, 1), "quotes"),
        (datetime.datetime(2026, 11, 1), "quotes"),
        (datetime.time(1), "quotes"),
        (circular(), "levels"),
        ("x" * VERSION_BYTES_MAX, "1026 bytes.*digest"),
        (10**5000, "not allowed"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_cannot_say_exactly_is_refused(version, message):
    with pytest.raises(ConfigError, match=message) as caught:
        encode_version(version)
    assert str(caught.value).startswith("version")
    assert isinstance(caught.value, ValueError)


def test_the_longest_version_is_taken():
    version = "x" * (VERSION_BYTES_MAX - 2)
    assert decode_version(encode_version(version)) == version


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" 1",
        b"1 ",
        b"01",
        b"1e0",
        b"NaN",
        b"1e999",
        b'{"b":1,"a":1}',
        b'{"a":1,"a":2}',
        '"é"'.encode(),
        b"\xff",
        b'"\\ud800"',
        b"[" * 1024,
        b"[" * 100_000,
        b"[" * 40 + b"]" * 40,
        b'"' + b"x" * 1023 + b'"',
    ],
    ids=lambda data: ascii(data)[:16],
)
def test_anything_but_the_canonical_form_is_a_value_error(data):
    with pytest.raises(ValueError, match="not an encoded version"):
        decode_version(data)


@untimed
@given(st.binary() | st.text('[]{}",:01e.-tru ', max_size=12).map(str.encode))
def test_whatever_can_be_decoded_is_the_encoding_of_that_version(data):
    try:
        version = decode_version(data)
    except ValueError:
        return
    assert encode_version(version) == data
