"""`coopshm-sidecar`, the process: two of them, each with a /dev/shm of its own; its signals, its word to the service
manager, its configuration."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
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

import coopshm
from coopshm import config as configuration
from coopshm.cluster import settings as cluster_settings
from coopshm.cluster import trust
from coopshm.cluster.sidecar import notify
from coopshm.errors import ConfigError
from tests.namespaces import Inside, mount_namespaces
from tests.procs import WATCHDOG, until

from .engines import RedisServer, needs_redis
from .peers_world import PORT, address

SECRET = "0123456789abcdef0123456789abcdef"


def write_config(path: Path, name: str, listen: str, nodes: list[str], **more: str) -> Path:
    secret = path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    lines = [
        'namespace = "shop"',
        "[caches.c]",
        'memory_limit = "4 MiB"',
        "version = 1",
        "[cluster]",
        f"name = {json.dumps(name)}",
        f'listen = "{listen}:{PORT}"',
        f"nodes = {json.dumps([f'{node}:{PORT}' for node in nodes])}",
        f'secret_file = "{secret}"',
        "lease_timeout = 5.0",
        *(f"{key} = {value}" for key, value in more.items()),
    ]
    file = path / f"{name}.toml"
    file.write_text("\n".join(lines))
    return file


# ---- a host: its own /dev/shm, a sidecar, and this process as a worker


def be_host(conn: Connection, config: str) -> None:
    """The first process of a host does as it is told; runs in a mount namespace with an empty /dev/shm."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=1777", "tmpfs", "/dev/shm"], check=True)
    coopshm.configure(config)
    cache = coopshm.open("c")
    sidecar: subprocess.Popen[bytes] | None = None
    told = f"{config}.notify"
    while True:
        order, *args = conn.recv()
        if order == "start":
            with contextlib.suppress(FileNotFoundError):
                os.unlink(told)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            listener.bind(told)
            listener.settimeout(WATCHDOG)
            sidecar = subprocess.Popen(
                [sys.executable, "-c", "from coopshm.cluster.command import main; main()", "--config", config],
                env={**os.environ, "NOTIFY_SOCKET": told},
            )
            conn.send(listener.recv(1000).decode().split("\n")[0])
            listener.close()
        elif order == "signal":
            assert sidecar is not None
            sidecar.send_signal(args[0])
            conn.send(sidecar.wait(WATCHDOG) if args[0] in (signal.SIGTERM, signal.SIGKILL) else None)
        elif order == "cached":
            key, value = args
            conn.send(cache.cached(key, lambda value=value: value))
        elif order == "reset":
            report = cache.reset(wait=WATCHDOG)
            conn.send((report.version, [(n.name, n.applied, n.state) for n in report.nodes]))
        elif order == "version":
            conn.send(cache.version())
        elif order == "admin":
            done = subprocess.run(
                [sys.executable, "-m", "coopshm.admin", "--config", config, *args],
                capture_output=True,
                text=True,
                check=False,
            )
            conn.send((done.returncode, done.stdout, done.stderr))
        elif order == "nodes":
            conn.send([(n.name, n.state) for n in cache._attachment.segment.peers()])


class HostProcess:
    def __init__(self, config: Path) -> None:
        # Its own mounts; and a PID namespace, with which all that it starts ends.
        self.inside = Inside(be_host, str(config))

    def ask(self, *order: Any) -> Any:
        self.inside.send(order)
        return self.inside.receive()

    def until_nodes(self, expected: list[tuple[str, int]]) -> None:
        while self.ask("nodes") != expected:
            pass


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[HostProcess]]:
    monkeypatch.delenv("COOPSHM_NAMESPACE", raising=False)
    monkeypatch.setattr("tests.namespaces.UNSHARE", ["-m", "-p", "-f", "--mount-proc", "--kill-child"])
    addresses = [address(), address()]
    made = [HostProcess(write_config(tmp_path, f"n{i}", addresses[i], addresses)) for i in range(2)]
    yield made
    for host in made:
        host.inside.kill()


@mount_namespaces
def test_two_hosts_are_one_cache(hosts) -> None:
    one, two = hosts
    assert [host.ask("start") for host in hosts] == ["READY=1", "READY=1"]
    one.until_nodes([("n1", 4)])
    two.until_nodes([("n0", 4)])
    assert one.ask("cached", "k", "first") == "first"
    assert two.ask("cached", "k", "second") == "first"
    assert two.ask("reset") == (2, [("n0", True, "live")])
    assert one.ask("version") == 2
    assert one.ask("cached", "k", "third") == "third"
    assert two.ask("cached", "k", "fourth") == "third"

    code, text, _ = one.ask("admin", "cluster", "c", "--json")
    shown = json.loads(text)
    assert (code, [node["name"] for node in shown["nodes"]], shown["resets"]) == (0, ["n1"], 1)
    assert shown["last_reset_by"].startswith("n1#")
    code, text, _ = one.ask("admin", "cluster", "c")
    assert code == 0
    assert "n1" in text
    code, text, _ = one.ask("admin", "reset", "c", "--wait", "60s", "--json")
    assert (code, json.loads(text)["nodes"][0]["applied"]) == (0, True)
    assert two.ask("version") == 3

    # One ends, and says so; the other is killed. Either host goes on by itself, at once.
    assert one.ask("signal", signal.SIGTERM) == 0
    two.until_nodes([("n0", 0)])
    assert one.ask("cached", "alone", 1) == 1
    assert two.ask("signal", signal.SIGKILL) == -signal.SIGKILL
    assert two.ask("cached", "alone", 2) == 2
    assert one.ask("reset") == (4, [])
    code, text, _ = one.ask("admin", "cluster", "c")
    assert (code, "no sidecar runs" in text) == (0, True)
    assert "here it is node n0" in text

    # And both come back.
    assert [host.ask("start") for host in hosts] == ["READY=1", "READY=1"]
    two.until_nodes([("n0", 4)])
    assert two.ask("version") == 4
    assert one.ask("cached", "k", "fifth") == "fifth"
    assert two.ask("cached", "k", "sixth") == "fifth"


@mount_namespaces
def test_other_nodes_take_effect_at_a_hangup(tmp_path, hosts) -> None:
    one, two = hosts
    configs = sorted(tmp_path.glob("n?.toml"))
    texts = [config.read_text() for config in configs]
    for config, text in zip(configs, texts, strict=True):
        config.write_text("\n".join("nodes = []" if line.startswith("nodes") else line for line in text.split("\n")))
    assert [host.ask("start") for host in hosts] == ["READY=1", "READY=1"]
    assert one.ask("nodes") == []
    configs[0].write_text("not = TOML [")
    one.ask("signal", signal.SIGHUP)  # changes nothing
    for config, text in zip(configs, texts, strict=True):
        config.write_text(text)
    for host in hosts:
        host.ask("signal", signal.SIGHUP)
    one.until_nodes([("n1", 4)])
    two.until_nodes([("n0", 4)])


@mount_namespaces
def test_another_secret_takes_effect_at_a_hangup(tmp_path, hosts) -> None:
    one, two = hosts
    secret, other = tmp_path / "secret", tmp_path / "secret-of-n1"
    other.write_text(SECRET[::-1])
    other.chmod(0o600)
    config = tmp_path / "n1.toml"
    config.write_text(config.read_text().replace(f'"{secret}"', f'"{other}"'))
    assert [host.ask("start") for host in hosts] == ["READY=1", "READY=1"]
    assert [host.ask("nodes") for host in hosts] == [[], []]
    secret.write_text(f"{SECRET}\n{SECRET[::-1]}\n")
    one.ask("signal", signal.SIGHUP)  # accepts both
    other.write_text(f"{SECRET[::-1]}\n{SECRET}\n")
    two.ask("signal", signal.SIGHUP)
    one.until_nodes([("n1", 4)])
    two.until_nodes([("n0", 4)])
    secret.write_text(f"{SECRET[::-1]}\n")
    one.ask("signal", signal.SIGHUP)
    assert one.ask("cached", "k", "first") == "first"
    assert two.ask("cached", "k", "second") == "first"


@needs_redis
@mount_namespaces
def test_another_secret_takes_effect_at_a_hangup_over_an_engine_too(tmp_path, hosts) -> None:
    """In the steps that docs/cluster.md says: what both hosts have goes on being one."""
    secret = tmp_path / "secret"
    with RedisServer(tmp_path) as server:
        for config in tmp_path.glob("n?.toml"):
            lines = [line for line in config.read_text().split("\n") if not line.startswith(("listen", "nodes"))]
            config.write_text("\n".join([*lines, f'engine = "{server.url}"']))
        assert [host.ask("start") for host in hosts] == ["READY=1", "READY=1"]
        one, two = hosts
        one.until_nodes([("n1", 4)])
        keys = server.all_keys()
        for number, lines in enumerate(([SECRET, SECRET[::-1]], [SECRET[::-1], SECRET], [SECRET[::-1]])):
            secret.write_text("\n".join(lines))
            for host in hosts:
                host.ask("signal", signal.SIGHUP)
            if number == 1:  # all say that it comes first: they go on with it
                until(lambda: any(key.endswith(b":log") for key in server.all_keys() - keys))
            one.until_nodes([("n1", 4)])
            two.until_nodes([("n0", 4)])
            assert one.ask("cached", f"k{number}", "first") == "first"
            assert two.ask("cached", f"k{number}", "second") == "first"
        until(lambda: all(0 < server.command("PTTL", key) <= 60_000 for key in keys & server.all_keys()))


# ---- the configuration


def parsed(tmp_path: Path, **table: Any) -> Any:
    return cluster_settings.parse(configuration.load({"namespace": "shop", "caches": {"c": {}}, "cluster": table}))


def test_settings_have_defaults_and_are_checked(tmp_path) -> None:
    settings = parsed(tmp_path)
    assert (settings.name, settings.namespace) == (socket.gethostname(), "shop")
    assert settings.listen == "127.0.0.1:7411"
    assert parsed(tmp_path, namespace="shops").namespace == "shops"
    assert (settings.nodes, settings.lease_timeout, settings.trust.server) == ((), 1.0, None)
    with pytest.raises(ConfigError, match=r"no \[cluster\] table"):
        cluster_settings.parse(configuration.load({}))
    with pytest.raises(ConfigError, match="there is nothing to connect"):
        cluster_settings.parse(configuration.load({"cluster": {}}))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"node": []}, "cluster.node: there is no such setting, did you mean 'nodes'"),
        ({"x": 1}, "known are name, namespace, listen"),
        ({"listen": "::1:7411"}, "for IPv6"),
        ({"listen": "web1:²"}, "host:port"),
        ({"name": ""}, "cluster.name"),
        ({"nodes": "web1:7411"}, "cluster.nodes"),
        ({"nodes": ["web1"]}, "host:port"),
        ({"listen": "0.0.0.0:7411"}, "secret_file"),
        ({"listen": 7411}, "host:port"),
        ({"name": "a#b"}, "cluster.name"),
        ({"name": "x" * 64}, "cluster.name"),
        ({"namespace": "a:b"}, "cluster.namespace"),
        ({"lease_timeout": 0}, "cluster.lease_timeout"),
        ({"lease_timeout": 11}, "cluster.lease_timeout"),
        ({"drain": True}, "cluster.drain"),
        ({"secret_file": "/nowhere/at/all"}, "cluster.secret_file"),
        ({"secret_file": 1}, "cluster.secret_file"),
        ({"secret_file": "/s", "tls_cert": "/c"}, ": cluster.secret_file: not together"),
        ({"tls_cert": "/c"}, "cluster.tls_key: is missing"),
        ({"tls_cert": "/c", "tls_names": "web1"}, "cluster.tls_names"),
        ({"tls_cert": "/c", "tls_names": []}, "at least one name"),
        ({"tls_names": ["web1"]}, "goes with tls_cert"),
    ],
)
def test_what_is_not_allowed_is_named(tmp_path, table, message) -> None:
    with pytest.raises(ConfigError, match=message):
        parsed(tmp_path, **table)


def test_a_secret_that_others_can_read_is_refused(tmp_path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        parsed(tmp_path, secret_file=str(secret))
    secret.chmod(0o600)
    assert parsed(tmp_path, secret_file=str(secret), listen="0.0.0.0:7411").trust.server is not None


def test_files_that_are_no_certificates_are_named(tmp_path) -> None:
    key = Ed25519PrivateKey.generate()
    formats = (Encoding.PEM, PrivateFormat.PKCS8)
    made = {
        "cert": trust._certificate(key, key, is_authority=True).public_bytes(Encoding.PEM),
        "key": key.private_bytes(*formats, NoEncryption()),
        "locked": key.private_bytes(*formats, BestAvailableEncryption(b"x")),
        "other": Ed25519PrivateKey.generate().private_bytes(*formats, NoEncryption()),
        "none": b"",
    }
    for name, data in made.items():
        (tmp_path / name).write_bytes(data)

    def refused(cert: str, key: str, ca: str) -> str:
        files = {"tls_cert": cert, "tls_key": key, "tls_ca": ca}
        with pytest.raises(ConfigError) as caught:
            parsed(tmp_path, **{name: str(tmp_path / file) for name, file in files.items()})
        return str(caught.value).partition(": cluster.")[2]

    assert refused("none", "key", "cert").startswith("tls_cert, tls_key: ")
    assert refused("cert", "other", "cert").startswith("tls_cert, tls_key: ")
    assert (
        refused("cert", "nowhere", "cert") == f"tls_key: {tmp_path}/nowhere cannot be read: No such file or directory"
    )
    assert refused("cert", "locked", "cert").startswith("tls_key: the key is encrypted")
    assert refused("cert", "key", "none").startswith(f"tls_ca: {tmp_path}/none has no certificates in PEM")


def test_the_service_manager_is_told_also_by_an_abstract_socket(monkeypatch) -> None:
    name = f"coopshm-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        notify("READY=1")
        assert listener.recv(100) == b"READY=1"
    notify("READY=1")  # nobody is there: no error
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("READY=1")
