"""Real engines for tests: redis-server or valkey-server, alone, under three Sentinels, as a Cluster, behind TLS.

Each server has an address of its own in 127/8, so that no port is ever in anybody's way and a server that comes back
has the address it had. It lives no longer than this process: a shell waits beside it for the end of a pipe, and kills
it then. Programs come from $PATH, or from build/tools (`make tools`).

    RedisServer(directory)    start, kill, stop, pause, resume, flush; `url` for [cluster]; `command` for all else
    Sentinels(directory)      one master, one replica, three sentinels: `lose_writes`, `failover`
    RedisCluster(directory)   three masters

Behind TLS, each of them: tls=Authority(directory), see authority.py. They talk to each other so as well.

All of them are context managers, and all methods block until what they say is so; on an event loop, call them by
`asyncio.to_thread`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import pytest
import redis

from tests.cluster.authority import Authority
from tests.cluster.peers_world import address as free_address
from tests.procs import WATCHDOG, until

PORT = 6379
SENTINEL_PORT = 26379
SERVICE = "shop"

#: The control connection's, where the default user is off.
ADMIN, ADMIN_PASSWORD = "operator", "of the tests"

_UNPACKED = Path(__file__).parents[2] / "build" / "tools" / "usr" / "bin"
_Self = TypeVar("_Self", bound="_Managed")

# The server runs in the background of a shell which ends it when this process ends, however it does.
_BESIDE = '"$@" & echo $!; read _; kill -9 $!; wait $!'


def program(name: str) -> str | None:
    """The path of a server's program."""
    return shutil.which(name) or shutil.which(name, path=str(_UNPACKED))


def _missing(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(program(name) is None, reason=f"{name} is not installed (make tools)")


def _packaged(name: str) -> bool:
    if shutil.which("apt-cache") is None:
        return False
    done = subprocess.run(["apt-cache", "show", name], capture_output=True, check=False)
    return done.returncode == 0


needs_redis = _missing("redis-server")
#: Parameters for tests that are for whichever engine there is.
ENGINES = [
    pytest.param("redis-server", marks=needs_redis),
    pytest.param(
        "valkey-server",
        marks=_missing("valkey-server")
        if program("valkey-server") or _packaged("valkey-server")
        else pytest.mark.skip(reason="expected: this distribution has no valkey-server"),
    ),
]


class _Managed(ABC):
    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self: _Self) -> _Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class RedisServer(_Managed):
    """One server. Starts empty, but for what `aof` has kept for it."""

    def __init__(
        self,
        directory: Path,
        *,
        name: str = "redis",
        address: str = "",
        port: int = PORT,
        engine: str = "redis-server",
        config: Mapping[str, str | Sequence[str]] | None = None,
        aof: bool = False,
        user: tuple[str, str, str] | None = None,
        tls: Authority | None = None,
        sentinel: bool = False,
        password: str = "",
        within: Sequence[str] = (),
    ) -> None:
        """
        Args:
            directory: for its files; `name` keeps those of several servers apart.
            config: more of redis.conf; a list stands for a line for each.
            aof: what it has acknowledged is on the disk, and there again after a restart.
            user: (name, password, what it may: "~coopshm:* +@all") of a user; there is no default user then.
            password: of a sentinel's own.
            within: a command that runs another one elsewhere, as the process that it is.
        """
        found = program(engine)
        assert found is not None, f"{engine} is not installed"
        self._program = [*within, found]
        self._sentinel = sentinel
        self._password = password
        self._user = user
        self._tls = tls
        self._directory = directory / name
        self._directory.mkdir(parents=True, exist_ok=True)
        self.address = address or free_address()
        self.port = port
        #: A path for a socket must be short.
        self.unix_path = f"/tmp/{self.address}.{self.port}.sock"
        lines: dict[str, str | Sequence[str]] = {
            "bind": self.address,
            "port": str(port),
            "dir": str(self._directory),
            "logfile": str(self._directory / "log"),
            "daemonize": "no",
            "protected-mode": "no",
        }
        # Others find it where it listens, not where its own connections come from.
        if sentinel:
            lines["sentinel"] = [f"announce-ip {self.address}"]
            if password:
                lines["requirepass"] = password
                lines["sentinel"].append(f"sentinel-pass {password}")
        else:
            lines |= {
                "replica-announce-ip": self.address,
                "unixsocket": self.unix_path,
                "save": '""',
                "appendonly": "yes" if aof else "no",
                "appendfsync": "always",
                "databases": "4",
                "repl-diskless-sync-delay": "0",
            }
        if user is not None:
            who, password, may = user
            lines["user"] = [
                "default off",
                f'{ADMIN} on ">{ADMIN_PASSWORD}" ~* &* +@all',
                f'{who} on ">{password}" {may}',
            ]
        if tls is not None:
            certificate, key = tls.certify(self.address)
            lines |= {
                "port": "0",
                "tls-port": str(port),
                "tls-cert-file": str(certificate),
                "tls-key-file": str(key),
                "tls-ca-cert-file": str(tls.path),
                "tls-auth-clients": "yes",
                "tls-replication": "yes",
            }
        for key, value in (config or {}).items():
            lines[key] = [*lines[key], *value] if key == "sentinel" else value
        self._lines = lines
        self.configure()
        self._keeper: subprocess.Popen[str] | None = None
        self.pid = 0

    def configure(self, **more: str) -> None:
        """Say more in redis.conf, for the next start."""
        self._lines |= more
        each = [(key, [value] if isinstance(value, str) else value) for key, value in self._lines.items()]
        self._config = self._directory / "redis.conf"
        self._config.write_text("".join(f"{key} {value}\n" for key, values in each for value in values))

    # ---- its life

    def start(self) -> None:
        """Return once it answers."""
        assert self._keeper is None, "it runs"
        command = [*self._program, str(self._config), *(["--sentinel"] if self._sentinel else [])]
        self._keeper = subprocess.Popen(
            ["sh", "-c", _BESIDE, "sh", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._keeper.stdout is not None
        self.pid = int(self._keeper.stdout.readline())
        until(self._answers, self.log)

    def _answers(self) -> bool:
        assert self._state() not in "ZX", f"it has ended: {self.log()}"
        try:
            return bool(self.command("PING"))
        except (redis.ConnectionError, redis.exceptions.BusyLoadingError):
            return False

    def _state(self) -> str:
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return "Z"

    def kill(self) -> None:
        """At once, as by the kernel; what is in memory only is lost."""
        os.kill(self.pid, signal.SIGKILL)
        self._reap()

    def stop(self) -> None:
        """As a service manager does."""
        os.kill(self.pid, signal.SIGTERM)
        until(lambda: self._state() in "ZX", self.log)
        self._reap()

    def _reap(self) -> None:
        keeper, self._keeper, self.pid = self._keeper, None, 0
        assert keeper is not None
        keeper.communicate(timeout=WATCHDOG)  # ends the pipe

    def pause(self) -> None:
        """Nothing is answered, and no connection ends; the kernel goes on taking connections and bytes."""
        os.kill(self.pid, signal.SIGSTOP)
        until(lambda: self._state() in "Tt")

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Killed, and there again, at the same address."""
        self.kill()
        self.start()

    def close(self) -> None:
        """Whatever state it is in."""
        if self._keeper is not None:
            os.killpg(self._keeper.pid, signal.SIGKILL)  # and what it has forked to write files
            self._reap()
        Path(self.unix_path).unlink(missing_ok=True)

    @property
    def running(self) -> bool:
        return self._keeper is not None

    def log(self) -> str:
        path = self._directory / "log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    # ---- what it is told

    @property
    def url(self) -> str:
        """For `engine` in [cluster]."""
        who = f"{self._user[0]}:{self._user[1]}@" if self._user else ""
        return f"{'rediss' if self._tls else 'redis'}://{who}{self.address}:{self.port}/0"

    @property
    def unix_url(self) -> str:
        who = f"{self._user[0]}:{self._user[1]}@" if self._user else ""
        return f"unix://{who}{self.unix_path}?db=0"

    def client(self, db: int = 0) -> redis.Redis:
        """For the test itself, as somebody who may do everything. To be closed."""
        who = {"username": ADMIN, "password": ADMIN_PASSWORD} if self._user else {}
        if self._sentinel:
            own: dict[str, Any] = {"password": self._password} if self._password else {}
            if self._tls is not None:
                certificate, key = self._tls.certify(ADMIN)
                own |= {"ssl": True, "ssl_ca_certs": str(self._tls.path)}
                own |= {"ssl_certfile": str(certificate), "ssl_keyfile": str(key)}
            return redis.Redis(self.address, self.port, socket_timeout=WATCHDOG, **own)
        return redis.Redis(unix_socket_path=self.unix_path, db=db, socket_timeout=WATCHDOG, **who)

    def command(self, *words: str | bytes | float, db: int = 0) -> Any:
        """What it answers to this."""
        with self.client(db) as client:
            return client.execute_command(*words)

    def flush(self) -> None:
        self.command("FLUSHALL")

    def info(self, section: str) -> dict[str, Any]:
        with self.client() as client:
            found: dict[str, Any] = client.info(section)
            return found

    def all_keys(self) -> set[bytes]:
        with self.client() as client:
            return set(client.scan_iter(count=1000))


class Sentinels(_Managed):
    """A master, its replica, and three sentinels that agree on which is which."""

    def __init__(
        self, directory: Path, *, down_after: float = 1.0, password: str = "", tls: Authority | None = None
    ) -> None:
        """
        Args:
            password: the sentinels' own.
            down_after: seconds of silence after which the master is taken to be gone.
        """
        self._scheme = "rediss" if tls else "redis"
        self.master = RedisServer(directory, name="one", tls=tls)
        self.replica = RedisServer(
            directory, name="two", tls=tls, config={"replicaof": f"{self.master.address} {self.master.port}"}
        )
        self.sentinels = [
            RedisServer(
                directory,
                name=f"sentinel{number}",
                port=SENTINEL_PORT,
                sentinel=True,
                password=password,
                tls=tls,
                config={
                    "sentinel": [
                        f"monitor {SERVICE} {self.master.address} {self.master.port} 2",
                        f"down-after-milliseconds {SERVICE} {down_after * 1000:.0f}",
                        f"failover-timeout {SERVICE} 3000",  # also the pause before it is tried again
                    ]
                },
            )
            for number in range(3)
        ]
        self._all = [self.master, self.replica, *self.sentinels]

    def start(self) -> None:
        """Return once everybody knows everybody."""
        self.master.start()
        self.replica.start()
        until(lambda: self.replica.info("replication")["master_link_status"] == "up", self.replica.log)
        for each in self.sentinels:
            each.start()
        for each in self.sentinels:
            until(lambda each=each: self._knows(each), each.log)

    def _knows(self, sentinel: RedisServer) -> bool:
        seen = self._seen_by(sentinel)
        return (seen["num-slaves"], seen["num-other-sentinels"], seen["flags"]) == ("1", "2", "master")

    def _seen_by(self, sentinel: RedisServer) -> dict[str, str]:
        found = sentinel.command("SENTINEL", "MASTER", SERVICE)
        if isinstance(found, dict):  # redis-py's own reading of it
            return {_text(key): _text(value) for key, value in found.items()}
        words = [_text(word) for word in found]
        return dict(zip(words[::2], words[1::2], strict=True))

    def close(self) -> None:
        with ExitStack() as stack:  # all of them, whatever goes wrong with one
            for each in self._all:
                stack.callback(each.close)

    @property
    def url(self) -> str:
        hosts = ",".join(f"{each.address}:{each.port}" for each in self.sentinels)
        return f"{self._scheme}+sentinel://{hosts}/{SERVICE}/0"

    def synced(self) -> None:
        """Return once the replica has all that the master has acknowledged."""
        with self.master.client() as client:
            client.execute_command("INCR", "tests:synced")
            until(lambda: client.execute_command("WAIT", 1, 1000) == 1)

    def lose_writes(self) -> None:
        """From now on nothing that the master acknowledges reaches the replica."""
        self.replica.pause()
        self.master.command("CLIENT", "KILL", "TYPE", "replica")

    def failover(self) -> None:
        """The master is killed; return once the replica has its place. What it has not got is lost."""
        self.master.kill()
        self.replica.resume()
        until(lambda: self.replica.info("replication")["role"] == "master", lambda: self.sentinels[0].log())
        self.master, self.replica = self.replica, self.master

    def come_back(self) -> None:
        """The former master is started, as a replica; return once it follows the present one. (Or that one follows it:
        on a busy machine the sentinels take who is slow to be gone, and exchange them once more.)"""
        self.replica.configure(replicaof=f"{self.master.address} {self.master.port}")
        self.replica.start()
        until(self._follows, self.replica.log)

    def _follows(self) -> bool:
        for master, replica in ((self.master, self.replica), (self.replica, self.master)):
            found = replica.info("replication")
            if found["role"] == "slave" and found["master_link_status"] == "up":
                self.master, self.replica = master, replica
                return True
        return False


class RedisCluster(_Managed):
    """Three masters, which share the hash slots."""

    SLOTS = 16384

    def __init__(self, directory: Path, *, engine: str = "redis-server", tls: Authority | None = None) -> None:
        self._scheme = "rediss" if tls else "redis"
        addresses = [free_address() for _ in range(3)]
        self.servers = [
            RedisServer(
                directory,
                name=f"node{number}",
                address=address,
                engine=engine,
                tls=tls,
                config={
                    "cluster-enabled": "yes",
                    **({"tls-cluster": "yes"} if tls else {}),
                    "cluster-announce-ip": address,
                    "cluster-node-timeout": "5000",
                    "databases": "1",
                },
            )
            for number, address in enumerate(addresses)
        ]

    def start(self) -> None:
        """Return once each of them finds the whole in order."""
        bounds = [self.SLOTS * number // 3 for number in range(4)]
        for number, server in enumerate(self.servers):
            server.start()
            server.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            server.command("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        for server in self.servers[1:]:
            server.command("CLUSTER", "MEET", self.servers[0].address, self.servers[0].port)
        self.settled()

    def settled(self) -> None:
        for server in self.servers:
            until(lambda server=server: self._whole(server), server.log)

    def _whole(self, server: RedisServer) -> bool:
        # redis-py reads it for some versions, and not for others.
        said = server.command("CLUSTER", "INFO")
        if not isinstance(said, dict):
            said = dict(line.split(":", 1) for line in _text(said).split())
        found = {_text(key): _text(value) for key, value in said.items()}
        return found["cluster_state"] == "ok" and found["cluster_known_nodes"] == "3"

    def close(self) -> None:
        with ExitStack() as stack:
            for each in self.servers:
                stack.callback(each.close)

    @property
    def url(self) -> str:
        return f"{self._scheme}+cluster://" + ",".join(f"{each.address}:{each.port}" for each in self.servers)

    def of(self, key: str) -> RedisServer:
        """The server that has this key."""
        slot = self.servers[0].command("CLUSTER", "KEYSLOT", key)
        return self.servers[min(2, next(n for n in range(3) if slot < self.SLOTS * (n + 1) // 3))]


def _text(said: Any) -> str:
    return said.decode() if isinstance(said, bytes) else str(said)
