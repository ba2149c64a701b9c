import copy
import pathlib
import pickle

import pytest

from coopshm.config import (
    CacheConfig,
    load,
    resolve_callable,
    resolve_object,
)
from coopshm.errors import ConfigError, UnknownCacheError

MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """No test sees a configuration that it did not make."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COOPSHM_CONFIG", raising=False)
    monkeypatch.delenv("COOPSHM_NAMESPACE", raising=False)


def refusal(source):
    with pytest.raises(ConfigError) as caught:
        load(source)
    return str(caught.value)


def refusal_of(setting, value, **others):
    message = refusal({"caches": {"example": {setting: value, **others}}})
    assert message.startswith(f"<mapping>: caches.example.{setting}")
    return message


# ---- what is read


def test_a_mapping_is_taken_as_it_is():
    config = load({"namespace": "shop", "caches": {"example": {"memory_limit": "1 MiB", "version": 3}}})
    assert config.namespace == "shop"
    assert config.source == "<mapping>"
    assert not config.implicit
    assert config.cluster is None
    example = config.cache("example")
    assert example.name == "example"
    assert example.memory_limit == MIB
    assert example.version == 3


def test_a_cache_without_settings_has_the_documented_defaults():
    example = load({"caches": {"example": {}}}).cache("example")
    assert example == CacheConfig(
        name="example",
        memory_limit=64 * MIB,
        max_items=65536,
        version=None,
        on_reset=None,
        serializer="pickle",
        lifetime="app",
        hot_objects=True,
        timeout=None,
        on_timeout="raise",
        user=None,
        group=None,
        mode=0o600,
    )


FILE = """
namespace = "shop"
[caches.example]
memory_limit = "64 MiB"
max_items = 5000
version = { release = [1, 2] }
on_reset = "shop.data:reload"
serializer = "msgpack"
lifetime = "host"
hot_objects = "share"
timeout = 2
on_timeout = "compute"
user = "www-data"
group = 33
mode = "0660"
[caches."with.dot"]
[cluster]
listen = "0.0.0.0:7411"
nodes = ["web1:7411", "web2:7411"]
"""


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_a_file_is_read_as_toml(tmp_path, kind):
    path = tmp_path / "shop.toml"
    path.write_text(FILE)
    config = load(kind(path))
    assert config.source == str(path)
    assert config.namespace == "shop"
    assert sorted(config.caches) == ["example", "with.dot"]
    assert config.cluster == {"listen": "0.0.0.0:7411", "nodes": ["web1:7411", "web2:7411"]}
    assert config.cache("example") == CacheConfig(
        "example",
        64 * MIB,
        5000,
        {"release": [1, 2]},
        "shop.data:reload",
        "msgpack",
        "host",
        "share",
        2.0,
        "compute",
        "www-data",
        33,
        0o660,
    )


def test_the_environment_names_a_file(tmp_path, monkeypatch):
    path = tmp_path / "shop.toml"
    path.write_text('namespace = "from-environment"')
    (tmp_path / "coopshm.toml").write_text('namespace = "from-directory"')
    monkeypatch.setenv("COOPSHM_CONFIG", str(path))
    config = load()
    assert config.namespace == "from-environment"
    assert config.source == f"<$COOPSHM_CONFIG: {path}>"


def test_the_file_of_the_current_directory_is_found(tmp_path, monkeypatch):
    (tmp_path / "coopshm.toml").write_text('namespace = "from-directory"')
    monkeypatch.setenv("COOPSHM_CONFIG", "")  # as good as unset
    config = load()
    assert config.namespace == "from-directory"
    assert config.source == str(tmp_path / "coopshm.toml")
    assert not config.implicit


def test_without_any_configuration_each_name_is_a_cache():
    config = load()
    assert config.implicit
    assert config.namespace == "default"
    assert config.cache("anything") == CacheConfig("anything")
    with pytest.raises(ConfigError, match="cache name: 'a/b'"):
        config.cache("a/b")


def test_an_empty_configuration_is_one_nevertheless():
    config = load({})
    assert not config.implicit
    with pytest.raises(UnknownCacheError, match=r"no \[caches\.NAME\] table"):
        config.cache("example")


def test_an_unknown_cache_is_an_error_that_lists_the_known_ones(tmp_path):
    path = tmp_path / "shop.toml"
    path.write_text("[caches.products]\n[caches.prices]\n")
    with pytest.raises(UnknownCacheError) as caught:
        load(path).cache("product")
    message = str(caught.value)
    assert message.startswith(f"{path} has no cache 'product'")
    assert "did you mean 'products'?" in message
    assert "prices, products" in message
    assert isinstance(caught.value, KeyError)


@pytest.mark.parametrize("source", [{"namespace": "a"}, None])
def test_the_environment_overrides_the_namespace(monkeypatch, source):
    monkeypatch.setenv("COOPSHM_NAMESPACE", "release-7")
    assert load(source).namespace == "release-7"
    monkeypatch.setenv("COOPSHM_NAMESPACE", "")
    assert load(source).namespace == ("a" if source else "default")
    monkeypatch.setenv("COOPSHM_NAMESPACE", "a:b")
    assert refusal(source).startswith("$COOPSHM_NAMESPACE: 'a:b'")


def test_a_configuration_cannot_be_changed():
    config = load({"caches": {"example": {}}, "cluster": {}})
    with pytest.raises(AttributeError):
        config.namespace = "x"
    with pytest.raises(AttributeError):
        config.cache("example").mode = 0o666
    with pytest.raises(AttributeError):
        config.cache("example").new = 1
    with pytest.raises(TypeError):
        config.caches["x"] = CacheConfig("x")
    with pytest.raises(TypeError):
        config.cluster["x"] = 1


def test_the_settings_of_a_cache_survive_pickling_and_copying():
    example = CacheConfig("example", "1 MiB", version=[1], serializer="raw")
    assert pickle.loads(pickle.dumps(example)) == example
    assert copy.deepcopy(example) == example


# ---- sources that cannot be read


def test_a_missing_file_is_named(tmp_path, monkeypatch):
    assert refusal(tmp_path / "no.toml") == f"{tmp_path}/no.toml: cannot be read: No such file or directory"
    monkeypatch.setenv("COOPSHM_CONFIG", "no.toml")
    assert refusal(None).startswith("<$COOPSHM_CONFIG: no.toml>: cannot be read")
    assert "directory" in refusal(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"namespace = ", b"a = 1\na = 2", b'namespace = "\xff"', b"a = " + b"[" * 100_000],
    ids=range(4),
)
def test_a_file_that_is_no_toml_is_named(tmp_path, content):
    path = tmp_path / "coopshm.toml"
    path.write_bytes(content)
    assert refusal(None).startswith(f"{path}: is not valid TOML: ")


@pytest.mark.parametrize("source", [1, b"coopshm.toml", ["caches"], object()])
def test_another_source_is_refused(source):
    assert "path of a TOML file" in refusal(source)


# ---- the shape of it


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"cashes": {}}, "cashes: there is no such setting, did you mean 'caches'?"),
        ({"xyz": 1}, "xyz: there is no such setting; known are namespace, caches, cluster"),
        ({1: 1}, "1: there is no such setting; known are namespace, caches, cluster"),
        ({"caches": []}, "caches: [] is not allowed: it must be a table"),
        ({"caches": {"a": 1}}, "caches.a: 1 is not allowed: it must be a table"),
        ({"caches": {"a/b": {}}}, "cache name: 'a/b' is not allowed"),
        ({"caches": {1: {}}}, "cache name: 1 is not allowed"),
        (
            {"caches": {"a": {"memory": 1}}},
            "caches.a.memory: there is no such setting, did you mean 'memory_l",
        ),
        ({"caches": {"a": {"name": "b"}}}, "caches.a.name: there is no such setting"),
        ({"caches": {"a": {"b": {}}}}, "a cache name with a dot needs quotes"),
        ({"caches": {"a.b": {"mode": 1}}}, "caches.'a.b'.mode: "),
        ({"cluster": 1}, "cluster: 1 is not allowed: it must be a table"),
        ({"namespace": 1}, "namespace: 1 is not allowed"),
        ({"namespace": ""}, "namespace: '' is not allowed"),
    ],
)
def test_a_mistake_in_the_shape_is_named_with_its_place(source, message):
    found = refusal(source)
    assert found.startswith("<mapping>: ")
    assert message in found


def test_a_mistake_in_a_file_is_named_with_the_file(tmp_path):
    path = tmp_path / "shop.toml"
    path.write_text("[caches.example]\nmemory_limit = 5\n")
    assert refusal(path).startswith(f"{path}: caches.example.memory_limit: 5 is not allowed: 64 KiB to 1 TiB")


# ---- references


def test_a_reference_is_resolved(tmp_path, monkeypatch):
    (tmp_path / "shop_data_1.py").write_text(
        "class Loader:\n    @staticmethod\n    def reload(version): return version\nnumber = 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve_callable("shop_data_1:Loader.reload")(5) == 5
    assert resolve_callable(print) is print
    assert resolve_object("shop_data_1:number") == 1
    with pytest.raises(ConfigError, match=r"on_reset: 'shop_data_1:number'.*callable, not int"):
        resolve_callable("shop_data_1:number")
    with pytest.raises(ConfigError, match=r"has no 'Loader\.relaod', did you mean 'reload'"):
        resolve_callable("shop_data_1:Loader.relaod")


def test_a_reference_that_cannot_be_resolved_says_why(tmp_path, monkeypatch):
    (tmp_path / "shop_data_2.py").write_text("raise RuntimeError('no database')")
    (tmp_path / "shop_data_3.py").write_text("import no_such_module_either")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="RuntimeError: no database") as caught:
        resolve_callable("shop_data_2:x", "caches.a.on_reset")
    assert str(caught.value).startswith("caches.a.on_reset: ")
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(ConfigError, match="no_such_module_either"):
        resolve_callable("shop_data_3:x")
    with pytest.raises(ConfigError, match=r"importing 'no_such_module\.sub' raised ModuleNotFoundError"):
        resolve_callable("no_such_module.sub:x")
    with pytest.raises(ConfigError, match=r"package\.module:function"):
        resolve_callable("shop.data")
