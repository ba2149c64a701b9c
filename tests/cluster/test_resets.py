"""When a reset that cannot be applied is tried again (coopshm.cluster.resets)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from coopshm.cluster import messages as m
from coopshm.cluster import resets
from coopshm.cluster.relay import NodeState, ResetFailedError, Stamp, Standing
from tests.loops import go


class FailingHost:
    """Its on_reset callback raises."""

    def __init__(self) -> None:
        self.tried: list[Stamp] = []

    def standing(self) -> Standing:
        return Standing(Stamp(0, b"1", ""), "here#1", 0, 1)

    async def adopt(self, stamp: Stamp, instead_of: Standing) -> None:
        self.tried.append(stamp)
        raise ResetFailedError("the source is away")

    def acknowledged(self, node: str, covers: int, state: NodeState) -> None: ...


def test_many_resets_that_fail_do_not_put_off_the_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    host = FailingHost()
    cache = resets.Cache("c", host, lambda *_: None, lambda *_: None)  # type: ignore[arg-type]
    pauses: list[float] = []
    over = asyncio.Event()

    def reset(counter: int) -> None:
        stamp = Stamp(counter, b"%d" % counter, "there#1")
        cache.heard("there", m.Standing(counter, "c", stamp, {"there#1": counter}, "there#1", counter))

    async def wait_some(event: asyncio.Event, seconds: float) -> bool:
        pauses.append(seconds)
        await asyncio.sleep(0)
        if len(pauses) <= 10:
            reset(len(pauses) + 1)
        elif len(pauses) > 20:
            over.set()
            await asyncio.Event().wait()
        return event.is_set()

    async def main() -> Any:
        running = asyncio.ensure_future(cache.run())
        reset(1)
        await over.wait()
        running.cancel()

    monkeypatch.setattr(resets, "wait_some", wait_some)
    go(main)
    assert [stamp.counter for stamp in host.tried[:11]] == list(range(1, 12))  # each at once
    first = resets.RETRY_SECONDS
    assert pauses[:11] == [first] * 11
    assert pauses[11:20] == [min(first * 2**n, resets.RETRY_SECONDS_MAX) for n in range(1, 10)]
