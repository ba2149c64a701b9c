"""The table of docs/servers.md: each server, in each mode, is held to each check."""

from __future__ import annotations

import functools

import pytest

from tests.servers.modes import CELLS, Cell
from tests.servers.site import Site


@pytest.mark.parametrize("cell", [pytest.param(cell, id=cell.id) for cell in CELLS])
def test_cell(cell: Cell, site: Site) -> None:
    cell.check(functools.partial(cell.mode.make, site))
