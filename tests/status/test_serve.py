"""coopshm-admin serve: where it listens, whom it answers, and how it ends."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import coopshm
from coopshm.errors import ConfigError
from coopshm.status.server import parse_address
from tests.admin.command import COMMAND, Admin
from tests.procs import WATCHDOG, ended_well, forked
from tests.status.scrape import Scrape

NOBODY = 65534


@pytest.fixture
def admin(namespace: str, tmp_path: Path) -> Admin:
    return Admin(namespace, tmp_path)


@contextmanager
def serve(namespace: str, *options: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """The command, while it serves; its port and process."""
    command = [COMMAND, "--namespace", namespace, "serve", "--listen", "127.0.0.1:0", "--interval", "0.1", "--json"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield int(json.loads(line)["url"].rstrip("/").rpartition(":")[2]), process
    finally:
        process.kill()
        process.communicate()


def get(port: int, path: str, host: str = "127.0.0.1", headers: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Status, media type and body."""
    connection = http.client.HTTPConnection(host, port, timeout=WATCHDOG)
    try:
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type", ""), response.read().decode()
    finally:
        connection.close()


def test_page_document_and_metrics(cache: Callable[..., coopshm.Cache], namespace: str) -> None:
    mine = cache()
    mine.cached("key", lambda: 1)
    with serve(namespace) as (port, process):
        assert "<title>coopshm</title>" in get(port, "/")[2]
        (summary,) = json.loads(get(port, "/api/status.json")[2])["caches"]
        assert (summary["cache"], summary["entries"]) == ("c", 1)
        status, type, text = get(port, "/metrics", headers={"Accept": "application/openmetrics-text"})
        assert (status, type.split(";")[0]) == (200, "application/openmetrics-text")
        assert Scrape(text).value("coopshm_entries", cache="c") == 1
        assert get(port, "/metrics")[1].startswith("text/plain")
        mine.destroy()
        assert json.loads(get(port, "/api/status.json")[2])["caches"] == []
        assert process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_it_ends_when_asked_to(namespace: str, number: signal.Signals) -> None:
    with serve(namespace) as (port, process):
        assert get(port, "/")[0] == 200
        process.send_signal(number)
        assert process.communicate(timeout=WATCHDOG) == ("", "")
        assert process.returncode == 0


@pytest.mark.parametrize("where", ["0.0.0.0:0", "[::]:0", "192.0.2.1:80", "10.0.0.1:0"])
def test_only_loopback_without_being_told_so(admin: Admin, where: str) -> None:
    done = admin("serve --listen", where)
    assert done.returncode == 2
    assert "not an address of loopback" in done.stderr


@pytest.mark.parametrize("where", ["nonsense", "web1:80", "127.0.0.1:", "::1:80", "127.0.0.1:99999", "[::1]", "-1"])
def test_what_is_no_address_is_refused(where: str) -> None:
    with pytest.raises(ConfigError, match="is no address to listen on"):
        parse_address(where)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("80", "http://127.0.0.1:80/"),
        ("localhost:1", "http://127.0.0.1:1/"),
        ("127.3.2.1:0", "http://127.3.2.1:0/"),
        ("[::1]:7410", "http://[::1]:7410/"),
    ],
)
def test_addresses(text: str, url: str) -> None:
    assert parse_address(text).url() == url


def test_a_taken_port_is_told(admin: Admin) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = admin(f"serve --listen 127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 1
    assert "cannot listen on http://127.0.0.1:" in done.stderr
    assert "Address already in use" in done.stderr


def test_another_name_is_refused(namespace: str) -> None:
    with serve(namespace, "--allow-name", "web1") as (port, _):
        assert get(port, "/api/status.json", headers={"Host": "evil.example"})[0] == 421
        assert get(port, "/api/status.json", headers={"Host": f"web1:{port}"})[0] == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="expected: only root can become another user")
@pytest.mark.parametrize("allowed", [False, True])
def test_other_users_get_no_keys(cache: Callable[..., coopshm.Cache], namespace: str, allowed: bool) -> None:
    cache().cached("secret-key", lambda: 1)

    with serve(namespace, *(["--allow-users"] if allowed else [])) as (port, _):

        def look() -> None:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            for path in ("/", "/status.js", f"/api/status.json?namespace={namespace}&cache=c"):
                status, _, body = get(port, path)
                assert status == (200 if allowed else 403)
                assert allowed or "secret-key" not in body
            status, _, body = get(port, "/metrics")
            assert status == 200
            assert "coopshm_entries" in body
            assert "secret-key" not in body

        ended_well(forked(look))
        assert "secret-key" in get(port, f"/api/status.json?namespace={namespace}&cache=c")[2]


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="expected: no IPv6 here")
def test_ipv6(namespace: str) -> None:
    with serve(namespace, "--listen", "[::1]:0") as (port, _):
        assert get(port, "/", host="::1")[0] == 200


def test_clients_that_say_nothing_or_nonsense_are_in_nobodys_way(namespace: str) -> None:
    with serve(namespace) as (port, process):
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        for data in (b"\r\n", b"GET\r\n\r\n", b"\x16\x03\x01" + bytes(100), b"GET / HTTP/1.1\r\nHost: " + b"a" * 70000):
            with socket.create_connection(("127.0.0.1", port), timeout=WATCHDOG) as rude:
                rude.sendall(data)
        assert get(port, "/")[0] == 200
        for one in silent:
            one.close()
        assert process.poll() is None


def test_it_keeps_no_cache_alive(settings: Callable[..., dict[str, Any]], namespace: str) -> None:
    """With lifetime "app" a cache begins anew when no process uses it; who looks on is none."""
    config = settings(lifetime="app")

    def use() -> None:
        coopshm.configure(config)
        assert coopshm.cached("c", "key", os.getpid) == os.getpid()

    with serve(namespace) as (port, _):
        ended_well(forked(use))
        assert json.loads(get(port, "/api/status.json")[2])["caches"][0]["processes"] == 0
        ended_well(forked(use))


def test_all_namespaces(cache: Callable[..., coopshm.Cache], namespace: str) -> None:
    cache().cached("key", lambda: 1)
    with serve("other", "--all") as (port, _):
        caches = json.loads(get(port, "/api/status.json")[2])["caches"]
        assert (namespace, "c") in {(cache["namespace"], cache["cache"]) for cache in caches}
