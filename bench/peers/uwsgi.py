"""uWSGI's cache, inside a real uWSGI: `uwsgi.cache_get` exists only in its processes.

The bench starts a uWSGI with some mules (its processes that serve no requests) and one cache. Each mule runs mule.py,
connects to the bench, and works for it as any other worker does. So what is timed there is timed in the same rounds.
"""

from __future__ import annotations

import importlib
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

from ..procs import Asked
from .protocol import Client, Expression, Peer, Place, Running, dumps
from .server import end_with_parent

__all__ = ["PEER", "program"]

M = TypeVar("M")
A = TypeVar("A")

_ROOT = Path(__file__).parent.parent.parent
_BLOCK = 4096
_WATCHDOG = 30.0


def program() -> str | None:
    """Return the uwsgi of this environment: one built for another Python could not import coopshm."""
    return shutil.which("uwsgi", path=str(Path(sys.executable).parent))


class _Uwsgi(Client):
    def __init__(self) -> None:
        self._uwsgi = importlib.import_module("uwsgi")

    def put(self, key: str, value: object) -> None:
        if not self._uwsgi.cache_update(key, dumps(value)):
            raise RuntimeError("uWSGI did not store the value")

    def get(self, key: str) -> object:
        value: object = self._uwsgi.cache_get(key)
        return value

    def hit(self, key: str, value: object) -> Expression:
        names = {"cache_get": self._uwsgi.cache_get, "key": key, "loads": pickle.loads}
        return ("cache_get(key)" if type(value) is bytes else "loads(cache_get(key))"), names

    def fill(self, n: int) -> None:
        for at in range(n):
            self._uwsgi.cache_update(f"entry:{at}", b"%d" % at)

    def clear(self) -> None:
        self._uwsgi.cache_clear()


class _Mules(Running):
    def __init__(self, listener: socket.socket, process: subprocess.Popen[bytes], log: Path) -> None:
        super().__init__(_Uwsgi, here=False)
        self._listener, self._process, self._log = listener, process, log

    def workers(self, n: int, target: Callable[[], Callable[[M], A]]) -> AbstractContextManager[Sequence[Asked[M, A]]]:
        return self._workers(n, target)

    @contextmanager
    def _workers(self, n: int, target: Callable[[], Callable[[M], A]]) -> Iterator[Sequence[Asked[M, A]]]:
        asked: list[Asked[M, A]] = []
        try:
            for _ in range(n):
                conn: Connection[M, tuple[bool, object]] = self._accept()
                asked.append(Asked(conn))
                conn.send_bytes(pickle.dumps(target))
            for one in asked:
                one.wait_ready()
            yield asked
        finally:
            for one in asked:
                one.hang_up()

    def _accept(self) -> Connection[M, tuple[bool, object]]:
        if self._process.poll() is not None:
            said = self._log.read_text(errors="replace").strip().splitlines()
            raise RuntimeError(f"uwsgi ended: {said[-1] if said else 'no word from it'}")
        accepted, _ = self._listener.accept()
        accepted.setblocking(True)
        return Connection(accepted.detach())


@contextmanager
def _start(place: Place) -> Iterator[Running]:
    uwsgi = program()
    assert uwsgi is not None, "not started when it is missing"
    address, log = place.folder / "uwsgi-bench.sock", place.folder / "uwsgi.log"
    blocks = 2 * (place.room // _BLOCK + place.items) + 1024
    command = [uwsgi, "--master", "--socket", str(place.folder / "uwsgi.sock"), "--home", sys.prefix]
    command += ["--pythonpath", str(_ROOT), "--chdir", str(_ROOT), "--enable-threads", "--die-on-term"]
    size = f"items={place.items + 64},blocksize={_BLOCK},blocks={blocks},keysize=64"
    command += ["--cache2", f"name=bench,bitmap=1,{size}"]
    # Imported once, before the mules are forked.
    command += ["--shared-pyimport", "bench.peers"]
    command += ["--mule=" + str(Path(__file__).with_name("mule.py"))] * place.processes
    environment = {**os.environ, "COOPSHM_BENCH_SOCKET": str(address)}
    with (
        socket.socket(socket.AF_UNIX) as listener,
        log.open("wb") as output,
    ):
        listener.bind(str(address))
        listener.listen(place.processes + 8)
        listener.settimeout(_WATCHDOG)  # a mule that never connects must not keep the bench waiting
        with subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
            preexec_fn=end_with_parent,
        ) as process:
            try:
                yield _Mules(listener, process, log)
            finally:
                # All of its processes at once: an orderly end of 64 mules takes seconds.
                os.killpg(process.pid, signal.SIGKILL)
                address.unlink(missing_ok=True)


PEER = Peer("uWSGI cache_get", _start, programs=("uwsgi",), raw=True)
