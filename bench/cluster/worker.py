"""`python -m bench.cluster.worker FD`: a process of an application on one of the hosts (nodes.py).

It works for the bench that has the other end of the socket FD, for as long as there is one.
"""

from __future__ import annotations

import pickle
import sys
from multiprocessing.connection import Connection

from bench.procs import serve

if __name__ == "__main__":
    made: Connection[tuple[bool, object], object] = Connection(int(sys.argv[1]))
    with made as conn:
        serve(conn, pickle.loads(conn.recv_bytes()))
