"""The table of docs/servers.md: each server, in each mode, is held to each check."""

from __future__ import annotations

import functools

import pytest

from tests.servers.modes import COLUMNS, MODES, Mode
from tests.servers.site import Site

CELLS = [
    pytest.param(mode, column, id=f"{mode.server}-{mode.mode}-{column}".replace(" ", "-"))
    for mode in MODES
    for column in COLUMNS
    if not isinstance(mode.checks[column], str)
]


@pytest.mark.parametrize(("mode", "column"), CELLS)
def test_cell(mode: Mode, column: str, site: Site) -> None:
    check = mode.checks[column]
    assert not isinstance(check, str)
    check(functools.partial(mode.make, site))
