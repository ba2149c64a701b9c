"""The engines that other tests run on do what those tests believe."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from tests.cluster.authority import Authority
from tests.cluster.engines import ENGINES, SERVICE, RedisCluster, RedisServer, Sentinels, needs_redis
from tests.procs import until


def _ask(url: str, *words: str, **options: object) -> object:
    with redis.Redis.from_url(url, **options) as client:
        return client.execute_command(*words)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_server_is_empty_after_it_was_killed(tmp_path: Path, engine: str) -> None:
    with RedisServer(tmp_path, engine=engine) as server:
        for url in (server.url, server.unix_url):
            _ask(url, "SET", "k", "v")
            assert server.all_keys() == {b"k"}
            server.flush()
            assert server.all_keys() == set()
        _ask(server.url, "SET", "k", "v")
        pid = server.pid
        server.restart()
        assert server.pid != pid
        assert server.all_keys() == set()
        server.stop()
        assert not server.running
        with pytest.raises(redis.ConnectionError):
            server.command("PING")
    assert not Path(server.unix_path).exists()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_server_has_what_it_has_written_down(tmp_path: Path, engine: str) -> None:
    with RedisServer(tmp_path, engine=engine, aof=True) as server:
        _ask(server.url, "SET", "k", "v")
        server.restart()
        assert _ask(server.url, "GET", "k") == b"v"


@needs_redis
def test_a_paused_server_takes_connections_and_answers_nothing(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        server.pause()
        with socket.create_connection((server.address, server.port)) as connection:
            connection.sendall(b"PING\r\n")
            connection.setblocking(False)
            with pytest.raises(BlockingIOError):
                connection.recv(100)
            server.resume()
            connection.settimeout(60)
            assert connection.recv(100) == b"+PONG\r\n"
        server.pause()  # and ends, all the same


@needs_redis
def test_a_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.cluster.engines import RedisServer\n"
        "server = RedisServer(Path(sys.argv[1])); server.start()\n"
        "print(server.pid, server.unix_path, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        pid, path = starter.stdout.readline().split()
        os.kill(int(pid), 0)
        starter.send_signal(signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}/exe").exists())
    Path(path).unlink()


@needs_redis
def test_users_may_do_what_they_may(tmp_path: Path) -> None:
    with RedisServer(tmp_path, user=("shop", "secret", "resetchannels ~coopshm:* +@all -flushall")) as server:
        assert _ask(server.url, "SET", "coopshm:k", "v") is True
        assert _ask(server.unix_url, "GET", "coopshm:k") == b"v"
        for words in (["SET", "other", "v"], ["FLUSHALL"]):
            with pytest.raises(redis.exceptions.NoPermissionError):
                _ask(server.url, *words)
        with pytest.raises(redis.AuthenticationError):
            _ask(f"redis://{server.address}:{server.port}", "PING")
        server.flush()


@needs_redis
def test_tls_needs_a_certificate_on_both_sides(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.certify("client")
    with RedisServer(tmp_path, tls=authority) as server:
        mine = {"ssl_certfile": str(certificate), "ssl_keyfile": str(key)}
        assert _ask(server.url, "PING", ssl_ca_certs=str(authority.path), **mine) is True
        with pytest.raises(redis.ConnectionError):
            _ask(server.url, "PING", ssl_ca_certs=str(authority.path))
        with pytest.raises(redis.ConnectionError, match="certificate"):
            _ask(server.url, "PING", ssl_ca_certs=str(Authority(tmp_path, "stranger").path), **mine)
        with pytest.raises(redis.ConnectionError):
            _ask(server.url.replace("rediss", "redis"), "PING")


@needs_redis
def test_sentinels_put_the_replica_in_the_place_of_the_master(tmp_path: Path) -> None:
    with Sentinels(tmp_path) as servers:
        servers.master.command("SET", "kept", "v")
        servers.synced()
        servers.lose_writes()
        servers.master.command("SET", "lost", "v")
        servers.failover()
        assert {b"kept"} == servers.master.all_keys() - {b"tests:synced"}
        for sentinel in servers.sentinels:
            until(
                lambda sentinel=sentinel: (
                    next(iter(sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)))
                    in (servers.master.address, servers.master.address.encode())
                )
            )
        servers.come_back()
        assert {b"kept"} == servers.replica.all_keys() - {b"tests:synced"}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_cluster_has_each_key_on_one_of_three_servers(tmp_path: Path, engine: str) -> None:
    with RedisCluster(tmp_path, engine=engine) as cluster:
        host, port = cluster.servers[0].address, cluster.servers[0].port
        with redis.RedisCluster(host, port) as client:
            for number in range(30):
                client.set(f"{{{number}}}", number)
        for number in range(30):
            assert cluster.of(f"{{{number}}}").command("GET", f"{{{number}}}") == str(number).encode()
        assert all(server.all_keys() for server in cluster.servers)
