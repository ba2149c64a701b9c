"""The thread in which a host does what may block."""

from __future__ import annotations

import asyncio
import gc
import weakref

from coopshm.cluster.threads import Worker
from tests.cluster.loops import run
from tests.procs import WATCHDOG


class Payload(bytearray):
    """As a segment's: pinned for as long as anybody has it."""


def test_a_worker_that_waits_for_the_next_call_has_nothing_of_the_last_one() -> None:
    async def attempt() -> None:
        worker = Worker("test")
        try:
            payload = Payload(9)
            alive = weakref.ref(payload)
            assert await worker.do(lambda payload=payload: len(payload)) == 9
            del payload
            end = asyncio.get_running_loop().time() + WATCHDOG
            while alive() is not None:  # the thread lets go just after it has told of the result
                assert asyncio.get_running_loop().time() < end, gc.get_referrers(alive())
                await asyncio.sleep(0.001)
        finally:
            await worker.stop()

    gc.disable()
    try:
        run(attempt())
    finally:
        gc.enable()


def test_a_worker_that_has_stopped_keeps_nobody_waiting() -> None:
    """Who was on its way to it when it was told to end finds that nothing comes."""

    async def attempt() -> None:
        worker = Worker("test")
        before = worker.do(lambda: 1)
        await worker.stop()
        assert await before == 1
        assert worker.do(lambda: 2).cancelled()

    run(attempt())
