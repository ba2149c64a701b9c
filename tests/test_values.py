import contextlib
import datetime
import gc
import mmap
import pickle
import struct
import threading
import weakref

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coopshm.errors import DecodeError, EncodeError
from coopshm.values import (
    ARRAY,
    BYTES,
    CUSTOM,
    FAILURE,
    JSON,
    MSGPACK,
    PICKLE,
    PICKLE_BUFFERS,
    STR,
    codec,
    view,
)

# A slow run is no mistake: a loaded machine takes longer.
untimed = settings(deadline=None)

PICKLE_CODEC = codec("pickle")


def payload(encoded):
    """What the core stores: the pieces in a row. Checks what it relies on."""
    for piece in encoded.pieces:
        if type(piece) is not bytes:
            assert type(piece) is memoryview
            assert piece.format == "B"
            assert piece.ndim == 1
            assert piece.c_contiguous
    return b"".join(encoded.pieces)


def stored(encoded):
    """The payload at the start of a page, as large payloads are aligned in the arena, and read-only."""
    data = payload(encoded)
    page = mmap.mmap(-1, max(len(data), 1))
    page[: len(data)] = data
    return memoryview(page).toreadonly()[: len(data)]


def round_trip(coder, value):
    encoded = coder.encode(value)
    return coder.decode(encoded.format, payload(encoded))


def address(array):
    return array.__array_interface__["data"][0]


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=8,
)


# ---- pickle


@untimed
@given(plain)
@example(None)
@example("\ud800")
@example(bytearray(b"x" * 5000))
@example(datetime.datetime(2026, 11, 1))
def test_a_value_comes_back(value):
    for kind in bytes, memoryview:
        encoded = PICKLE_CODEC.encode(value)
        back = PICKLE_CODEC.decode(encoded.format, kind(payload(encoded)))
        assert back == value
        assert type(back) is type(value)


@pytest.mark.parametrize(
    ("value", "format", "data"),
    [
        (b"\x00\xff", BYTES, b"\x00\xff"),
        (b"", BYTES, b""),
        ("é", STR, b"\xc3\xa9"),
        ("\ud800", STR, b"\xed\xa0\x80"),
    ],
)
def test_bytes_and_str_are_stored_as_they_are(value, format, data):
    encoded = PICKLE_CODEC.encode(value)
    assert encoded.format == format
    assert payload(encoded) == data


def test_bytes_are_not_copied_on_the_way_in():
    value = b"x" * 100
    assert PICKLE_CODEC.encode(value).pieces[0] is value


class Text(str):
    __slots__ = ()


def test_a_subclass_of_str_keeps_its_type():
    assert type(round_trip(PICKLE_CODEC, Text("x"))) is Text


@pytest.mark.parametrize(
    ("value", "format"),
    [
        (1, PICKLE),
        (np.zeros(1023, "u1"), PICKLE),
        (np.zeros(1024, "u1"), ARRAY),
        (np.zeros(1024, [("a", "u1")]), PICKLE_BUFFERS),
        ([np.zeros(10), np.zeros(1000)], PICKLE_BUFFERS),
    ],
    ids=["int", "small array", "large array", "with fields", "both"],
)
def test_only_large_buffers_are_kept_out_of_the_pickle(value, format):
    assert PICKLE_CODEC.encode(value).format == format


def test_a_large_array_is_not_copied_on_the_way_in():
    array = np.arange(1000)
    piece = PICKLE_CODEC.encode(array).pieces[-1]
    assert np.shares_memory(np.frombuffer(piece, array.dtype), array)


shapes = st.lists(st.integers(0, 9), min_size=0, max_size=3).map(tuple)
dtypes = st.sampled_from(["u1", "<f8", ">i4", "c16", "?", "S7", "U3", [("a", "i2"), ("b", "f8")]])


@untimed
@given(st.lists(st.tuples(shapes, dtypes, st.sampled_from("CF"), st.integers(1, 40)), max_size=4))
@example([((0,), "f8", "C", 1), ((5, 1, 9), "f8", "F", 40)])
def test_arrays_come_back_read_only_aligned_and_without_a_copy(specs):
    arrays = []
    for shape, dtype, order, scale in specs:
        array = np.zeros((*shape, scale), dtype, order)
        array.reshape(-1, order="A").view("u1")[...] = 0 if dtype == "U3" else 1
        arrays.append(array)
    encoded = PICKLE_CODEC.encode(arrays)
    data = stored(encoded)
    whole = np.frombuffer(data, "u1")
    for array, back in zip(arrays, PICKLE_CODEC.decode(encoded.format, data), strict=True):
        assert back.dtype == array.dtype
        assert back.shape == array.shape
        assert back.flags.f_contiguous == array.flags.f_contiguous
        assert back.tobytes() == array.tobytes()
        if array.nbytes >= 1024:
            assert not back.flags.writeable
            assert np.shares_memory(back, whole)
            assert address(back) % 64 == 0
        else:
            assert not np.shares_memory(back, whole)


@pytest.mark.parametrize(
    ("value", "buffer"), [(np.zeros(1000), bytes), (np.zeros(1000, [("a", "f8")]), bytearray)], ids=["array", "pickle"]
)
def test_a_read_only_array_cannot_be_made_writable(value, buffer):
    encoded = PICKLE_CODEC.encode(value)
    back = PICKLE_CODEC.decode(encoded.format, buffer(payload(encoded)))
    with pytest.raises(ValueError, match="read-only"):
        back[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        back.flags.writeable = True


def test_a_strided_array_comes_back_too():
    array = np.arange(10_000)[::3]
    assert np.array_equal(round_trip(PICKLE_CODEC, array), array)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(1000).astype("M8[s]"),
        np.arange(1000).astype("m8[ns]"),
        np.array(["ü", "text"] * 300),
        np.array([b"a", b"bytes"] * 300),
        np.asfortranarray(np.arange(6000.0).reshape(2, 3, 1000)),
        np.arange(6000, dtype=">i4").reshape(20, 300),
        np.zeros((1000, 2), np.complex64).T,
        np.zeros((2,) * 12),
        np.ones(1000, bool),
        np.zeros(500, np.dtype("f8", metadata={"unit": "m"})),
        np.array([{"object": 1}] * 200),
        np.zeros(1000, [("x", "f4"), ("y", "O")]),
    ],
    ids=lambda array: str(array.dtype),
)
def test_arrays_of_all_kinds_come_back(array):
    back = round_trip(PICKLE_CODEC, array)
    assert type(back) is np.ndarray
    assert (back.dtype, back.shape, back.flags.fnc) == (array.dtype, array.shape, array.flags.fnc)
    assert np.array_equal(back, array)


def test_one_array_twice_in_a_value_is_stored_once():
    array = np.arange(1000)
    encoded = PICKLE_CODEC.encode([array, array])
    assert len(payload(encoded)) < 2 * array.nbytes
    one, other = PICKLE_CODEC.decode(encoded.format, payload(encoded))
    assert one is other


class Blob:
    """Hands out its data by the protocol that NumPy uses."""

    def __init__(self, data):
        self.data = data

    def __reduce_ex__(self, protocol):
        return Blob, (pickle.PickleBuffer(self.data),)


def test_any_type_may_hand_out_buffers():
    data = bytes(range(256)) * 10
    back = round_trip(PICKLE_CODEC, [Blob(data), Blob(b"small")])
    assert type(back[0].data) is memoryview
    assert back[0].data.readonly
    assert back[0].data == data
    assert bytes(back[1].data) == b"small"


def test_a_view_with_holes_cannot_be_handed_out():
    with pytest.raises(EncodeError, match="contiguous"):
        PICKLE_CODEC.encode(Blob(memoryview(bytes(10_000))[::2]))


def test_the_payload_lives_as_long_as_the_array_over_it():
    class Tracked(mmap.mmap):
        pass

    encoded = PICKLE_CODEC.encode(np.arange(1000))
    data = payload(encoded)
    page = Tracked(-1, len(data))
    page[:] = data
    gone = weakref.ref(page)
    array = PICKLE_CODEC.decode(encoded.format, memoryview(page))
    del page
    gc.collect()
    assert gone() is not None
    assert array[999] == 999
    del array
    gc.collect()
    assert gone() is None


def test_what_pickle_cannot_do_is_an_encode_error_with_its_cause():
    with pytest.raises(EncodeError, match=r"value of type _thread\.lock: TypeError") as caught:
        PICKLE_CODEC.encode(threading.Lock())
    assert isinstance(caught.value.__cause__, TypeError)
    assert isinstance(caught.value, TypeError)


class Interrupting:
    def __reduce__(self):
        raise KeyboardInterrupt


def test_an_interrupt_is_no_encode_error():
    for serializer in "pickle", Interrupted():
        with pytest.raises(KeyboardInterrupt):
            codec(serializer).encode(Interrupting())


class Interrupted:
    def dumps(self, value):
        raise KeyboardInterrupt

    def loads(self, data):
        raise KeyboardInterrupt


def test_an_interrupt_is_no_decode_error():
    with pytest.raises(KeyboardInterrupt):
        codec(Interrupted()).decode(CUSTOM, b"")


# ---- damaged payloads


ARRAYS = payload(PICKLE_CODEC.encode([np.arange(500), np.arange(1000)]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        ARRAYS[:15],
        ARRAYS[:20],
        ARRAYS[:100],
        ARRAYS[:-1],
        ARRAYS + b"x",
        struct.pack("<IIQ", 2**32 - 1, 0, 10) + ARRAYS[16:],
        struct.pack("<IIQ", 2, 1, 10) + ARRAYS[16:],
        struct.pack("<IIQ", 2, 0, 2**64 - 1) + ARRAYS[16:],
        struct.pack("<IIQ", 3, *struct.unpack_from("<IQ", ARRAYS, 4)) + ARRAYS[16:],
        struct.pack("<IIQ", 0, 0, 0),
        struct.pack("<IIQQ", 1, 0, 0, 2**64 - 1),
        struct.pack("<IIQQ", 1, 0, 0, 0),
    ],
    ids=range(13),
)
def test_a_payload_with_wrong_lengths_is_a_decode_error(data):
    for kind in bytes, memoryview:
        with pytest.raises(DecodeError):
            PICKLE_CODEC.decode(PICKLE_BUFFERS, kind(data))


@untimed
@given(st.data())
def test_a_damaged_payload_is_a_decode_error_or_another_value(data):
    damaged = bytearray(ARRAYS)
    position = data.draw(st.integers(0, 31) | st.integers(0, len(ARRAYS) - 1))
    damaged[position] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(DecodeError):
        PICKLE_CODEC.decode(PICKLE_BUFFERS, bytes(damaged))


@untimed
@given(st.data())
def test_a_damaged_array_is_a_decode_error_or_another_array(data):
    damaged = bytearray(payload(PICKLE_CODEC.encode(np.arange(600.0).reshape(20, 30))))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, 63))] = data.draw(st.integers(0, 255))
    end = data.draw(st.sampled_from([len(damaged), len(damaged) - 1, 63, 0]))
    with contextlib.suppress(DecodeError):
        assert type(PICKLE_CODEC.decode(ARRAY, bytes(damaged[:end]))) is np.ndarray


@pytest.mark.parametrize(
    ("format", "data", "cause"),
    [
        (PICKLE, b"", EOFError),
        (PICKLE, b"\x80\x05garbage", pickle.UnpicklingError),
        (PICKLE, b"cno_such_module\nX\n.", ModuleNotFoundError),
        (PICKLE, b"ccoopshm.errors\nNo\n.", AttributeError),
        (STR, b"\xff", UnicodeDecodeError),
    ],
)
def test_whatever_unpickling_raises_is_the_cause_of_a_decode_error(format, data, cause):
    with pytest.raises(DecodeError, match="serializer pickle cannot decode") as caught:
        PICKLE_CODEC.decode(format, data)
    assert isinstance(caught.value.__cause__, cause)


# ---- views


@pytest.mark.parametrize("format", [BYTES, CUSTOM, JSON, MSGPACK])
def test_stored_bytes_have_a_read_only_view(format):
    data = bytearray(b"abc")
    whole = view(format, memoryview(data))
    assert whole.readonly
    data[0] = 0
    assert whole == b"\0bc"
    assert view(format, b"abc") == b"abc"


@pytest.mark.parametrize("format", [STR, PICKLE, PICKLE_BUFFERS, FAILURE])
def test_anything_else_has_no_view(format):
    with pytest.raises(TypeError, match='serializer = "raw"'):
        view(format, b"abc")
