"""How fast counters grow."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from coopshm.rates import COUNTED, hit_ratio, per_second, seconds_between


@pytest.fixture
def stats(cache):
    return cache().stats()


def test_the_growth_of_each_counter_is_told_per_second(stats) -> None:
    after = stats._replace(**{name: getattr(stats, name) + 10 * at for at, name in enumerate(COUNTED)})
    rates = per_second(stats, after, 2.0)
    assert rates == {**{name: 5.0 * at for at, name in enumerate(COUNTED)}, "bypasses": 0}


def test_bypasses_are_told_together(stats) -> None:
    after = stats._replace(bypasses=MappingProxyType({**stats.bypasses, "full": 3, "lock": 4}))
    assert per_second(stats, after, 0.5)["bypasses"] == 14.0


def test_what_went_back_is_no_growth(stats) -> None:
    assert per_second(stats._replace(hits=100), stats, 1.0)["hits"] == 0


def test_two_looks_at_one_moment_are_not_divided_by_nothing() -> None:
    assert seconds_between(5.0, 5.0) > 0
    assert seconds_between(5.0, 7.5) == 2.5


def test_a_ratio_without_look_ups_is_none() -> None:
    assert hit_ratio(0, 0) is None
    assert hit_ratio(3, 1) == 0.75
