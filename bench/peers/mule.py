"""Run by uWSGI in each of its mules: works for the bench for as long as there is one. See uwsgi.py."""

from __future__ import annotations

import os
import pickle
import signal
from multiprocessing.connection import Client

from bench.procs import serve


def main() -> None:
    master = os.getppid()
    try:
        while True:
            with Client(os.environ["COOPSHM_BENCH_SOCKET"]) as conn:
                try:
                    target = pickle.loads(conn.recv_bytes())
                except (EOFError, ConnectionError):
                    continue  # the bench ended before it had work for this one
                serve(conn, target)
    except (FileNotFoundError, ConnectionError):
        pass  # the bench is gone: the socket was its own
    if os.getppid() == master:
        os.kill(master, signal.SIGQUIT)
        signal.pause()  # a mule that returns is started again


main()
