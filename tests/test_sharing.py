"""One loop for many tasks: who takes its steps, and who is woken when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from coopshm import aio
from coopshm.hot import MISSING
from coopshm.once import TIMED_OUT
from coopshm.sharing import ENDED, LEADS, Flight


class Crew:
    """Some who wait, in their order, and what each was told."""

    def __init__(self, n: int, gone: frozenset[int] = frozenset()) -> None:
        self.forgotten = 0
        self.told: list[tuple[int, str]] = []
        self.flight = Flight(self.forget)
        self.places = [self.flight.join(self.tell(i, i not in gone)) for i in range(n)]

    def forget(self) -> None:
        self.forgotten += 1

    def tell(self, i: int, stays: bool) -> Callable[[object], bool]:
        def tell(what: object) -> bool:
            self.told.append((i, {LEADS: "leads", ENDED: "ended"}[what]))
            return stays

        return tell


def test_all_are_told_of_the_end_and_nobody_joins_afterwards() -> None:
    crew = Crew(3)
    with crew.flight:
        crew.flight.value = "v"
    assert crew.told == [(0, "ended"), (1, "ended"), (2, "ended")]
    assert crew.forgotten == 1


@pytest.mark.parametrize("how", ["time is up", "an exception", "an exception after a value"])
def test_only_the_next_one_is_woken_when_the_leader_leaves(how) -> None:
    crew = Crew(1000)
    crew.flight.value = TIMED_OUT if how == "an exception after a value" else MISSING
    for n in range(1000):
        try:
            with crew.flight:
                if how == "time is up":
                    crew.flight.value = TIMED_OUT
                else:
                    raise LookupError
        except LookupError:
            pass
        assert crew.told == [(i, "leads") for i in range(n + 1)]
        assert crew.forgotten == 0
    crew.flight.pass_on()
    assert crew.forgotten == 1


def test_who_has_left_or_is_about_to_is_passed_over() -> None:
    crew = Crew(4, gone=frozenset((1, 2)))
    crew.flight.leave(crew.places[0])
    crew.flight.pass_on()
    assert crew.told == [(1, "leads"), (2, "leads"), (3, "leads")]
    assert crew.forgotten == 0


def test_a_task_that_is_cancelled_as_it_comes_to_lead_passes_on() -> None:
    async def main() -> list[Any]:
        flight = Flight(lambda: None)
        tasks = [asyncio.create_task(aio._wait_in(flight, None)) for _ in range(4)]
        await asyncio.sleep(0)
        tasks[1].cancel()  # before it is told
        flight.pass_on()
        tasks[0].cancel()  # after it was told, and before it runs
        await asyncio.wait(tasks[:3], timeout=60)
        assert not tasks[3].done()
        flight.pass_on()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, second, third, fourth = asyncio.run(main())
    assert isinstance(first, asyncio.CancelledError)
    assert isinstance(second, asyncio.CancelledError)
    assert (third, fourth) == (LEADS, LEADS)
