"""`engine` in [cluster]: what can be said of it, and what cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from coopshm import config as configuration
from coopshm.cluster import settings as cluster_settings
from coopshm.cluster import trust
from coopshm.errors import ConfigError

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    made = {}
    key = Ed25519PrivateKey.generate()
    contents = {
        "secret": SECRET.encode(), "short": b"x", "password": b"of the engine\n", "open": SECRET.encode(),
        "watch": b"of the Sentinels\n", "two": f"{SECRET}\n\n{SECRET[::-1]}\n".encode(),
        "empty": b"", "bytes": b"\xff" * 40,
        "cert": trust._certificate(key, key, is_authority=True).public_bytes(Encoding.PEM),
        "key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "locked": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")),
    }  # fmt: skip
    for name, data in contents.items():
        path = tmp_path / name
        path.write_bytes(data)
        path.chmod(0o644 if name == "open" else 0o600)
        made[name] = str(path)
    return made


def parsed(**table: Any) -> Any:
    return cluster_settings.parse(configuration.load({"namespace": "shop", "caches": {"c": {}}, "cluster": table}))


def test_an_engine_takes_an_address_and_a_secret(files: dict[str, str]) -> None:
    settings = parsed(engine="redis://user@cache:7000/2", secret_file=files["secret"], name="web1", lease_timeout=2)
    config = settings.engine
    assert (config.name, config.namespace, config.lease_timeout, config.lease_ttl) == ("web1", "shop", 2.0, 10.0)
    assert (config.secret, config.replicate) == (SECRET.encode(), "on_demand")
    assert (config.address.hosts, config.address.database, config.address.user) == ((("cache", 7000),), 2, "user")
    assert SECRET not in repr(config)


def test_everything_can_be_said(files: dict[str, str]) -> None:
    config = parsed(
        engine="rediss+sentinel://shop@s1,s2:7,[::1]:8/service/1",
        engine_password_file=files["password"],
        engine_sentinel_user="watcher",
        engine_sentinel_password_file=files["watch"],
        engine_ca=files["cert"],
        engine_cert=files["cert"],
        engine_key=files["key"],
        secret_file=files["secret"],
        namespace="shops",
        replicate="all",
        lease_ttl=3,
        engine_max_bytes="2 GiB",
        compress_above="8 KiB",
    ).engine
    assert config.address.hosts == (("s1", 26379), ("s2", 7), ("::1", 8))
    assert (config.address.service, config.address.database) == ("service", 1)
    assert (config.address.user, config.address.password) == ("shop", "of the engine")
    assert (config.address.sentinel_user, config.address.sentinel_password) == ("watcher", "of the Sentinels")
    assert config.tls == (files["cert"], files["cert"], files["key"])
    assert (config.namespace, config.replicate, config.lease_ttl) == ("shops", "all", 3.0)
    assert (config.bytes_max, config.compress_above) == (2 << 30, 8192)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"secret_file": None}, "secret_file: is missing"),
        ({"secret_file": "short"}, "secret_file: .* too short"),
        ({"secret_file": "open"}, "secret_file: .*chmod 600"),
        ({"secret_file": "/nowhere"}, "secret_file: .*cannot be read"),
        ({"engine": 5}, "cluster.engine"),
        ({"engine": "http://cache"}, "cluster.engine: it begins with none of redis://"),
        ({"engine": "redis://a:²"}, "no host:port"),
        ({"engine": "redis://a/²"}, "the database is a number"),
        ({"engine": "redis://a,b"}, "one host only"),
        ({"engine": "redis+sentinel://a"}, "which service"),
        ({"engine": "redis+cluster://a/1"}, "too much of a path"),
        ({"engine": "redis://a/x"}, "the database is a number"),
        ({"engine": "unix://a/b"}, "unix:///path"),
        ({"listen": "127.0.0.1:1"}, "cluster.listen: not together"),
        ({"nodes": ["a:1"]}, "cluster.nodes: not together"),
        ({"tls_cert": "/c"}, "cluster.tls_cert: not together"),
        ({"replicate": "some"}, "cluster.replicate"),
        ({"lease_ttl": 0}, "cluster.lease_ttl"),
        ({"engine_max_bytes": "much"}, "cluster.engine_max_bytes"),
        ({"compress_above": 1.5}, "cluster.compress_above"),
        ({"engine_ca": "open"}, "for rediss"),
        ({"engine": "rediss://a", "engine_cert": "open"}, "go together"),
        ({"engine": "redis://u:p@a", "engine_password_file": "password"}, "say either"),
        ({"engine_password_file": "open"}, "chmod 600"),
        ({"engine_password_file": 5}, "cluster.engine_password_file"),
        ({"engine_password_file": "empty"}, "cluster.engine_password_file: .* is empty"),
        ({"engine_password_file": "bytes"}, "cluster.engine_password_file: .* is not UTF-8"),
        ({"tls_names": ["a"]}, "cluster.tls_names: not together"),
        ({"engine": "rediss://a", "engine_ca": "secret"}, "cluster.engine_ca: .* has no certificates"),
        ({"engine": "rediss://a", "engine_cert": "cert", "engine_key": "secret"}, "cluster.engine_cert, engine_key: "),
        ({"engine": "rediss://a", "engine_cert": "cert", "engine_key": "locked"}, "engine_key: the key is encrypted"),
        ({"engine_sentinel_password_file": "watch"}, r"for redis\+sentinel"),
        ({"engine_sentinel_user": "watcher"}, r"for redis\+sentinel"),
        ({"engine": "redis+sentinel://s/x", "engine_sentinel_user": "watcher"}, "goes with engine_sentinel_password"),
        ({"engine": "redis+sentinel://s/x", "engine_sentinel_user": 5}, "cluster.engine_sentinel_user"),
        ({"engine": "redis+sentinel://s/x", "engine_sentinel_password_file": "open"}, "chmod 600"),
    ],
)
def test_what_is_not_allowed_is_named(files: dict[str, str], table: dict[str, Any], message: str) -> None:
    said = {"engine": "redis://cache", "secret_file": "secret", **table}
    said = {key: files.get(value, value) if isinstance(value, str) else value for key, value in said.items()}
    with pytest.raises(ConfigError, match=message):
        parsed(**{key: value for key, value in said.items() if value is not None})


def test_a_password_is_in_no_message(files: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(engine="redis://user:hush@a:port", secret_file=files["secret"])
    assert "hush" not in str(caught.value)


def test_of_several_secrets_the_first_is_to_be_used(files: dict[str, str]) -> None:
    config = parsed(engine="redis://cache", secret_file=files["two"]).engine
    assert (config.secret, config.others) == (SECRET.encode(), (SECRET[::-1].encode(),))
    assert SECRET[::-1] not in repr(config)


def test_settings_of_an_engine_need_one() -> None:
    with pytest.raises(ConfigError, match=r"cluster\.replicate: is for nodes that meet"):
        parsed(replicate="all")
