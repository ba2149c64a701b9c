"""`coopshm-sidecar` that writes down what it does about leases, for who has to find out why: `--trace`.

Events "lease": host, at, what (hears, says, asks, ends, withdraws, grants, holds, delivers, views), of (a key id), and
the rest as text.
"""

from __future__ import annotations

import gc
import inspect
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coopshm.cluster import command
from coopshm.cluster.host import SegmentHost
from coopshm.cluster.peers import Peers

from .events import Log, now

_SHOWN = 300  # characters


def tell_of_views() -> None:
    """On stderr: which views of a segment there are, who has them, and whether a collection ends them."""
    for view in views():
        print(f"VIEW of {view.nbytes} bytes", file=sys.stderr)
        holders, level = [view], 0
        known = {id(view)}
        while holders and level < 8:
            level += 1
            found = [one for one in gc.get_referrers(*holders) if id(one) not in known and one is not holders]
            found = [one for one in found if not inspect.isframe(one) or one.f_code.co_name != "tell_of_views"]
            known.update(map(id, found))
            for one in found[:6]:
                print("  " * level, type(one).__name__, repr(one)[:200], file=sys.stderr)
            holders = [one for one in found if not inspect.ismodule(one)][:20]
    before, view, holders, found, one = len(views()), None, [], [], None
    gc.collect()
    print(f"VIEWS: {before}, after a collection {len(views())}", file=sys.stderr, flush=True)


def views() -> list[memoryview]:
    """Of what cffi has a pointer to, which is a segment's memory."""
    return [one for one in gc.get_objects() if type(one) is memoryview and type(one.obj).__name__ == "buffer"]


def main() -> None:
    here = Path(os.environ["SOAK_HOST"])
    log = Log(here.parent)

    def note(what: str, of: object, *rest: object) -> None:
        log.write("lease", host=here.name, at=now(), what=what, of=str(of), rest=" ".join(map(str, rest))[:_SHOWN])

    def key_of(message: Any) -> object:
        entry = getattr(message, "entry", None)
        return getattr(entry if entry is not None else message, "key_id", "")

    def watched(of: type, name: str, what: str, say: Callable[..., tuple[object, ...]]) -> None:
        original = getattr(of, name)

        def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
            note(what, *say(*args))
            return original(self, *args, **kwargs)

        setattr(of, name, wrapper)

    watched(Peers, "_hear_leases", "hears", lambda sender, message: (key_of(message), sender, message))
    watched(Peers, "_send", "says", lambda to, message: (key_of(message), "to", to, message))
    watched(Peers, "ask", "asks", lambda cache, stamp, key_id, nested: (key_id, cache, stamp, "nested" * nested))
    watched(Peers, "ended", "ends", lambda cache, stamp, key_id, outcome: (key_id, cache, stamp, outcome))
    watched(Peers, "withdrawn", "withdraws", lambda cache, stamp, key_id: (key_id, cache, stamp))
    watched(Peers, "_grant", "grants", lambda cache, stamp, key_id: (key_id, cache, stamp))
    watched(Peers, "_hold", "holds", lambda cache, stamp, key_id: (key_id, cache, stamp))
    watched(Peers, "_delivered", "delivers", lambda cache, stamp, entry, result: (entry.key_id, cache, stamp, result))
    watched(SegmentHost, "_asked", "sees", lambda event: (event.key_id, event))
    watched(SegmentHost, "_over", "sees", lambda at, event: (event.key_id, event))
    signal.signal(signal.SIGUSR2, lambda *_: tell_of_views())
    Log.write(log, "lease", host=here.name, at=now(), what="starts", of="", rest="")
    command.main()


if __name__ == "__main__":
    main()
