"""Starts a real gunicorn on a free port, and leaves nothing of it behind."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

from demo import source
from demo.gunicorn_conf import workers

START_TIMEOUT = 60.0  # seconds, for the workers to boot


class ServerError(Exception):
    """gunicorn did not start, or ended; carries the end of its log."""


@contextlib.contextmanager
def gunicorn() -> Iterator[int]:
    """Runs the application; gives the port. The environment of this process tells it how to cache."""
    log_path = source.directory() / "gunicorn.log"
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener, log_path.open("wb") as log:
        command = [sys.executable, "-m", "gunicorn", "--config", "python:demo.gunicorn_conf"]
        command += ["--bind", f"fd://{listener.fileno()}", "demo.app:application"]
        process = subprocess.Popen(
            command,
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # a group of its own: nothing of it outlives this function
        )
        port: int = listener.getsockname()[1]
        try:
            _wait_for_workers(process)
            yield port
            if process.poll() is not None:
                raise ServerError(f"gunicorn ended with status {process.returncode}")
        except BaseException:
            sys.stderr.write(log_path.read_text(encoding="utf-8", errors="replace")[-4000:])
            raise
        finally:
            _stop(process)


def _wait_for_workers(process: subprocess.Popen[bytes]) -> None:
    booted = source.directory() / "booted.log"
    deadline = time.monotonic() + START_TIMEOUT
    while not booted.exists() or len(booted.read_text(encoding="ascii").splitlines()) < workers:
        if process.poll() is not None or time.monotonic() > deadline:
            raise ServerError(f"gunicorn did not start (status {process.poll()})")
        time.sleep(0.02)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # the group has gunicorn's id
    process.wait()
