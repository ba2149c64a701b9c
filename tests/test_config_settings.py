import math
import pickle

import pytest

from coopshm.config import (
    MAX_ITEMS_MAX,
    MEMORY_LIMIT_MAX,
    MEMORY_LIMIT_MIN,
    CacheConfig,
    parse_size,
    segment_name,
)
from coopshm.errors import ConfigError
from tests.test_config import MIB, refusal, refusal_of

# ---- names


@pytest.mark.parametrize("name", ["a", "A_1", "0", "_x", "a.b-c", "x" * 100])
def test_names_become_part_of_a_segment_name(name):
    assert segment_name("shop", name) == f"/coopshm:shop:{name}"
    assert segment_name(name, "shop") == f"/coopshm:{name}:shop"


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".a", "-a", "a/b", "a:b", "a b", "a\n", "é", "\u0661", "a\0", "x" * 101, None, 1]
)
def test_other_names_are_refused(name):
    with pytest.raises(ConfigError, match="1 to 100"):
        segment_name("shop", name)
    with pytest.raises(ConfigError, match="namespace"):
        segment_name(name, "shop")
    with pytest.raises(ConfigError, match="cache name"):
        CacheConfig(name)


# ---- sizes


@pytest.mark.parametrize(
    ("size", "number"),
    [
        (0, 0),
        (65536, 65536),
        ("65536", 65536),
        ("10 B", 10),
        ("1 KB", 1000),
        ("2MB", 2_000_000),
        ("3 GB", 3 * 10**9),
        ("1TB", 10**12),
        ("512 KiB", 512 * 1024),
        ("64 MiB", 64 * MIB),
        ("64MiB", 64 * MIB),
        (" 64  mib ", 64 * MIB),
        ("1 GiB", 1024**3),
        ("1 TiB", 1024**4),
        ("1 kB", 1000),
    ],
)
def test_a_size_is_bytes_or_has_a_unit(size, number):
    assert parse_size(size) == number


@pytest.mark.parametrize("size", ["64 M", "64K", "1g", "1 t"])
def test_an_ambiguous_unit_is_refused_with_both_readings(size):
    unit = size[-1].upper()
    with pytest.raises(ConfigError, match=f"{unit}iB.*1024.*{unit}B.*1000"):
        parse_size(size)


@pytest.mark.parametrize(
    "size",
    [
        *(True, False, -1, 1.5, 64.0, None, b"64 MiB", [1]),
        *("", "MiB", "-1 MiB", "1.5 GiB", "1_000", "1 XB", "1 MiB x", "\u0661 MiB", "9" * 5000),
    ],
    ids=lambda size: ascii(size)[:12],
)
def test_anything_else_is_no_size(size):
    with pytest.raises(ConfigError, match=r"here: .*whole number"):
        parse_size(size, "here")


def test_memory_limit_has_bounds():
    for limit in MEMORY_LIMIT_MIN, MEMORY_LIMIT_MAX:
        assert CacheConfig("a", limit).memory_limit == limit
    assert "64 KiB to 1 TiB" in refusal_of("memory_limit", MEMORY_LIMIT_MIN - 1)
    assert "'256' is not allowed: 64 KiB to 1 TiB; without a unit it is bytes" in refusal_of("memory_limit", "256")
    assert "64 KiB to 1 TiB" in refusal_of("memory_limit", MEMORY_LIMIT_MAX + 1)
    refusal_of("memory_limit", True)
    refusal_of("memory_limit", "1 M")


def test_max_items_follows_the_memory_limit():
    assert CacheConfig("a", "64 KiB").max_items == 1024
    assert CacheConfig("a", "1 GiB").max_items == 1024 * 1024
    assert CacheConfig("a", "1 TiB").max_items == 2**30
    assert CacheConfig("a", "1 GiB", 1).max_items == 1
    assert CacheConfig("a", "1 GiB", MAX_ITEMS_MAX).max_items == MAX_ITEMS_MAX


@pytest.mark.parametrize("value", [0, -1, True, "5", 5.0, MAX_ITEMS_MAX + 1])
def test_max_items_has_bounds(value):
    assert "from 1 to 2147483648" in refusal_of("max_items", value)


# ---- the other settings


def test_a_version_is_kept_as_json_says_it():
    assert CacheConfig("a", version=(1, {"b": (2,)})).version == [1, {"b": [2]}]
    assert refusal_of("version", {"a": {1}}).startswith("<mapping>: caches.example.version.a: {1}")
    refusal_of("version", float("nan"))
    assert "1024" in refusal_of("version", "x" * 2000)


def test_a_date_as_version_is_refused_with_a_hint(tmp_path):
    path = tmp_path / "shop.toml"
    path.write_text("[caches.example]\nversion = 2026-11-01\n")
    assert "put the date in quotes" in refusal(path)


def test_on_reset_is_a_reference_or_a_callable():
    assert CacheConfig("a", on_reset=print).on_reset is print
    assert CacheConfig("a", on_reset="shop.data:Loader.reload").on_reset == "shop.data:Loader.reload"
    for value in (
        "shop.data",
        "shop.data:",
        ":reload",
        "shop data:x",
        "shop..data:x",
        "a:b:c",
        "a:b()",
        "a:1b",
    ):
        assert "package.module:function" in refusal_of("on_reset", value)
    assert "callable" in refusal_of("on_reset", 1)


class Reverse:
    def dumps(self, value):
        return bytes(reversed(value))

    def loads(self, data):
        return bytes(reversed(data))


def test_a_serializer_is_a_name_a_reference_or_an_object():
    for value in "pickle", "raw", "json", "msgpack", "shop.codecs:fast", Reverse(), pickle:
        assert CacheConfig("a", serializer=value).serializer is value
    assert "did you mean 'pickle'?" in refusal_of("serializer", "pickel")
    assert "dumps and loads" in refusal_of("serializer", object())
    assert "dumps and loads" in refusal_of("serializer", None)


def test_lifetime_is_app_or_host():
    assert CacheConfig("a", lifetime="host").lifetime == "host"
    for value in "App", None, 1, ["app"]:
        assert '"app" or "host"' in refusal_of("lifetime", value)


def test_hot_objects_is_a_bool_or_share():
    for value in True, False, "share":
        assert CacheConfig("a", hot_objects=value).hot_objects is value
    for value in 1, 0, None, "all", "true":
        assert '"share"' in refusal_of("hot_objects", value)


def test_timeout_is_a_number_of_seconds():
    for value in 0, 2, 0.25, math.inf:
        assert CacheConfig("a", timeout=value).timeout == value
    for value in -1, math.nan, True, "2 s", ["x"]:
        assert "a number of seconds" in refusal_of("timeout", value)
    for value in "raise", "compute":
        assert CacheConfig("a", on_timeout=value).on_timeout == value
    for value in None, True, "wait":
        assert '"raise" or "compute"' in refusal_of("on_timeout", value)


@pytest.mark.parametrize("setting", ["user", "group"])
def test_user_and_group_are_names_or_numbers(setting):
    for value in "www-data", 0, 33, 2**32 - 2:
        assert getattr(CacheConfig("a", **{setting: value}), setting) == value
    for value in "", " ", "a\n", True, -1, 2**32 - 1, 1.0, ["x"]:
        assert "a name or a number" in refusal_of(setting, value)


@pytest.mark.parametrize("mode", [0o600, "0600", "600", "0o600"])
def test_mode_is_octal(mode):
    assert CacheConfig("a", mode=mode).mode == 0o600


@pytest.mark.parametrize("mode", [0o660, "0660", "660", "0o660"])
def test_a_mode_for_a_group_needs_the_group(mode):
    assert CacheConfig("a", mode=mode, group="www").mode == 0o660
    assert "`group` is not set" in refusal_of("mode", mode)


@pytest.mark.parametrize("mode", [0o666, "0606", 0o602, "0777", 0o604])
def test_a_mode_for_others_is_refused_with_the_reason(mode):
    assert "anyone could change the values" in refusal_of("mode", mode, group="www")


@pytest.mark.parametrize(
    "mode",
    [0, 0o400, 0o700, 0o640, 0o620, 0o670, 0o1600, "0640", "rw-------", "", "0800", True, None, 384.0, -1],
)
def test_any_other_mode_is_refused(mode):
    assert '"0600"' in refusal_of("mode", mode, group="www")


def test_a_mode_in_decimal_is_refused_with_what_it_means():
    assert "600, which is 0o1130, is not allowed" in refusal_of("mode", 600)
    assert "caches.example.mode: '0666' is not allowed: nobody but" in refusal_of("mode", "0666")
    assert 'write mode = "0600"' in refusal_of("mode", "0660"), "TOML has no numbers that begin with 0"
