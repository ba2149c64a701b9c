import collections
import datetime
import enum
import math
import os
import struct
import subprocess
import sys
import uuid

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coopshm.errors import InvalidKeyError
from coopshm.keys import MAX_DEPTH, MAX_KEY_BYTES, decode_key, encode_key, preview

# A slow run is no mistake: a loaded machine takes longer.
untimed = settings(deadline=None)

scalars = (
    st.text(st.characters(exclude_categories=[]))  # surrogates too
    | st.binary()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.booleans()
    | st.none()
)
keys = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=12)


def identity(key):
    """A key such that == means: the same types and the same value, floats by their bits."""
    if type(key) is tuple:
        return ("tuple", tuple(map(identity, key)))
    if type(key) is float:
        return ("float", "nan" if math.isnan(key) else struct.pack(">d", key))
    return (type(key).__name__, key)


GOLDEN = [
    ("", "73"),
    ("product:42", "73" + b"product:42".hex()),
    ("é€😀", "73c3a9e282acf09f9880"),
    ("\ud800", "73eda080"),
    ("\ud83d\ude00", "73eda0bdedb880"),
    (b"", "62"),
    (b"\x00\xff", "6200ff"),
    (0, "6930"),
    (1, "6931"),
    (-1, "692d31"),
    (255, "696666"),
    (-(2**64), "692d" + b"10000000000000000".hex()),
    (0.0, "640000000000000000"),
    (-0.0, "648000000000000000"),
    (1.0, "643ff0000000000000"),
    (float("inf"), "647ff0000000000000"),
    (float("nan"), "647ff8000000000000"),
    (True, "74"),
    (False, "66"),
    (None, "6e"),
    ((), "28"),
    ((1,), "2800026931"),
    (("a", 42), "2800027361" + "0003693261"),
    (("a", "bc"), "280002736100037362" + "63"),
    (("ab", "c"), "280003736162" + "00027363"),
    (((),), "28000128"),
    ((None, (True, b"x")), "2800016e" + "0008" + "28000174" + "00026278"),
    (("x" * 300,), "28012d73" + "78" * 300),
]


@pytest.mark.parametrize(("key", "encoded"), GOLDEN, ids=lambda value: ascii(value)[:20])
def test_the_format_is_the_documented_one(key, encoded):
    assert encode_key(key).hex() == encoded
    assert identity(decode_key(bytes.fromhex(encoded))) == identity(key)


@untimed
@given(keys)
@example("\udfff")
@example((1, True, 1.0, "1", b"1"))
def test_decoding_gives_the_key_back(key):
    back = decode_key(encode_key(key))
    assert identity(back) == identity(key)


@untimed
@given(keys, keys)
@example(1, True)
@example(0.0, -0.0)
@example((1,), 1)
@example(("a", "bc"), ("ab", "c"))
@example((), "")
def test_different_keys_have_different_encodings(one, other):
    assert (encode_key(one) == encode_key(other)) == (identity(one) == identity(other))


@untimed
@given(st.lists(keys, min_size=2, max_size=5))
def test_the_order_of_the_items_counts(items):
    backwards = items[::-1]
    same = list(map(identity, items)) == list(map(identity, backwards))
    assert (encode_key(tuple(items)) == encode_key(tuple(backwards))) == same


def test_one_true_and_their_spellings_are_five_keys():
    assert len({encode_key(key) for key in (1, True, 1.0, "1", b"1")}) == 5


def test_all_nans_are_one_key():
    nans = [struct.unpack(">d", bytes.fromhex(bits))[0] for bits in ("7ff8000000000000", "fff8000000000001")]
    assert len({encode_key(nan) for nan in nans}) == 1


def test_integers_may_have_more_digits_than_python_converts():
    number = -(7**20000)
    assert decode_key(encode_key(number)) == number
    assert decode_key(encode_key((number,))) == (number,)


def test_another_process_encodes_the_same(tmp_path):
    key = ("p", 1, 2.5, None, True, b"x", ("y",), "z")
    program = f"from coopshm.keys import encode_key; print(encode_key({key!r}).hex())"
    for seed in "1", "2":
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        result = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert result.stdout.strip() == encode_key(key).hex()


# ---- what is refused


class Level(enum.IntEnum):
    HIGH = 3


class Colour(str, enum.Enum):
    RED = "red"


class Name(str):
    __slots__ = ()


Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("key", "name", "hint"),
    [
        ([1], "list", "tuple(...)"),
        ({1}, "set", "tuple(sorted(...))"),
        (frozenset([1]), "frozenset", "tuple(sorted(...))"),
        ({"a": 1}, "dict", "items()"),
        (bytearray(b"x"), "bytearray", "bytes(...)"),
        (memoryview(b"x"), "memoryview", "bytes(...)"),
        (1j, "complex", "str(...)"),
        (object(), "object", "str(...)"),
        (Level.HIGH, "Level", ".value"),
        (Colour.RED, "Colour", ".value"),
        (Name("x"), "Name", "str(...)"),
        (Point(1, 2), "Point", "tuple(...)"),
        (np.int64(1), "numpy.int64", ".tolist()"),
        (np.float64(1), "numpy.float64", ".tolist()"),
        (np.str_("x"), "numpy.str", ".tolist()"),
        (np.bool_(True), "numpy.bool", ".tolist()"),
        (datetime.date(2026, 1, 1), "datetime.date", ".isoformat()"),
        (uuid.UUID(int=1), "uuid.UUID", "str(...)"),
        (ValueError, "type", "str(...)"),
    ],
    ids=lambda value: value if type(value) is str else type(value).__name__,
)
def test_another_type_is_refused_with_a_hint(key, name, hint):
    with pytest.raises(InvalidKeyError) as caught:
        encode_key(key)
    assert name in str(caught.value)
    assert hint in str(caught.value)


def test_another_type_in_a_tuple_is_refused_with_its_position():
    with pytest.raises(InvalidKeyError, match=r"list \(its item \[1\]\[0\]\)"):
        encode_key(("a", ([1], 2)))


def test_a_key_of_a_type_without_repr_is_refused_all_the_same():
    class Bad:
        def __repr__(self):
            raise RuntimeError("no")

    with pytest.raises(InvalidKeyError, match="whose repr"):
        encode_key(("a", Bad()))


LONGEST = MAX_KEY_BYTES - 1  # beside the tag


@pytest.mark.parametrize(
    "key",
    ["x" * LONGEST, b"x" * LONGEST, 16**LONGEST - 1, ("x" * (LONGEST - 3),), ("xxx",) * 10921 + ("xxxxx",)],
    ids=["str", "bytes", "int", "str in a tuple", "tuple"],
)
def test_the_longest_keys_are_taken(key):
    data = encode_key(key)
    assert len(data) == MAX_KEY_BYTES
    assert decode_key(data) == key


@pytest.mark.parametrize(
    "key",
    [
        "x" * (LONGEST + 1),
        "é" * 40000,
        b"x" * (LONGEST + 1),
        16**LONGEST,
        ("x" * (LONGEST - 2),),
        ("x" * 100_000,),
        ("x" * 40_000, "y" * 40_000),
        (None,) * (LONGEST // 3 + 1),
        ((None,) * 1_000_000,),
    ],
    ids=["str", "utf8", "bytes", "int", "item", "long item", "two items", "tuple", "inner tuple"],
)
def test_longer_keys_are_refused_with_a_hint(key):
    with pytest.raises(InvalidKeyError, match="sha256") as caught:
        encode_key(key)
    assert len(str(caught.value)) < 400


def nested(levels):
    key = ()
    for _ in range(levels - 1):
        key = (key,)
    return key


def test_tuples_nest_as_deep_as_documented():
    assert decode_key(encode_key(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
    with pytest.raises(InvalidKeyError, match="levels"):
        encode_key(nested(MAX_DEPTH + 1))


def test_a_hostile_depth_is_refused():
    data = b"("
    for _ in range(MAX_DEPTH):
        data = b"(" + len(data).to_bytes(2, "big") + data
    with pytest.raises(ValueError, match="levels"):
        decode_key(data)
    for _ in range(10_000):
        data = b"(" + (len(data) % 65536).to_bytes(2, "big") + data
    with pytest.raises(ValueError, match="encoded key"):
        decode_key(data[:MAX_KEY_BYTES])


# ---- decoding what encode_key never returned


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"S1",
        b"n1",
        b"t1",
        b"f\x00",
        b"i",
        b"i-",
        b"i01",
        b"i-0",
        b"i+1",
        b"iA",
        b"i 1",
        b"i1_0",
        b"i0x1",
        b"i1\n",
        b"i\xd9\xa1",  # an Arabic digit
        b"s\xff",
        b"s\xc0\x80",  # an overlong form
        b"d",
        b"d" + bytes(7),
        b"d" + bytes(9),
        b"d" + bytes.fromhex("7ff8000000000001"),
        b"d" + bytes.fromhex("fff8000000000000"),
        b"(\x00",
        b"(\x00\x00",
        b"(\x00\x01",
        b"(\x00\x03i1",
        b"(\x00\x01i",
        b"(\x00\x02i1\x00",
        b"b" * (MAX_KEY_BYTES + 1),
    ],
    ids=lambda data: ascii(data[:10]),
)
def test_malformed_bytes_are_a_value_error(data):
    with pytest.raises(ValueError, match=r".") as caught:
        decode_key(data)
    assert len(str(caught.value)) < 300
    assert isinstance(preview(data), str)


tagged = st.builds(lambda tag, rest: tag + rest, st.sampled_from([b"s", b"b", b"i", b"d", b"("]), st.binary())


@untimed
@given(st.binary() | tagged)
def test_whatever_can_be_decoded_is_the_encoding_of_that_key(data):
    try:
        key = decode_key(data)
    except ValueError:
        return
    assert encode_key(key) == data


@untimed
@given(keys, st.data())
def test_a_damaged_encoding_never_raises_anything_but_value_error(key, data):
    encoded = bytearray(encode_key(key))
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] = data.draw(st.integers(0, 255))
    try:
        back = decode_key(bytes(encoded))
    except ValueError:
        return
    assert encode_key(back) == bytes(encoded)


def test_a_view_is_decoded_too():
    assert decode_key(memoryview(b"(\x00\x02sa")) == ("a",)


# ---- previews


@pytest.mark.parametrize("key", [key for key, _ in GOLDEN], ids=lambda value: ascii(value)[:20])
def test_a_preview_of_a_whole_key_is_its_repr(key):
    assert preview(encode_key(key), 1000) == repr(key)
    assert preview(encode_key(key), 1000, len(encode_key(key))) == repr(key)


@pytest.mark.parametrize(
    ("key", "length", "shown"),
    [
        ("abcdef", 4, "'abc'..."),
        ("aé", 3, "'a'..."),
        ("😀😀", 8, "'😀'..."),
        (b"abcdef", 4, "b'abc'..."),
        (0xABCDEF, 4, "0xabc..."),
        (-0xABCDEF, 4, "-0xab..."),
        (("product", 42, "abc"), 14, "('product', ..."),
        (("product", 42, "abc"), 20, "('product', 42, 'a'..."),
        (("product", ("abc", "def")), 20, "('product', ('abc', ..."),
        (("a",), 1, "(..."),
        ((1, 2), 6, "(1, ..."),
    ],
    ids=str,
)
def test_a_preview_of_the_first_bytes_shows_what_is_known(key, length, shown):
    data = encode_key(key)
    assert preview(data[:length], 80, len(data)) == shown


def test_a_tuple_that_was_cut_is_seen_to_be_cut_without_its_length():
    assert preview(encode_key(("product", "x" * 200))[:20]) == "('product', 'xxxxxx'..."


@untimed
@given(keys, st.integers(0, 40), st.integers(0, 100))
def test_a_preview_has_at_most_its_limit_and_never_raises(key, length, limit):
    data = encode_key(key)
    assert len(preview(data[:length], limit, len(data))) <= max(limit, 5)
    assert len(preview(data[:length], limit)) <= max(limit, 5)


@untimed
@given(st.binary() | tagged)
def test_a_preview_of_any_bytes_never_raises(data):
    assert isinstance(preview(data, 80, len(data) + 1), str)


def test_a_preview_of_what_is_no_key_shows_the_bytes():
    assert preview(b"\x07\x08") == "<unreadable key 0708>"
