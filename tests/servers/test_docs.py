"""The documents show the files that these tests run, and docs/servers.md the results of the tests that there are."""

from __future__ import annotations

import re

import pytest

from tests.servers.modes import CELLS
from tests.servers.site import EXAMPLES, ROOT
from tests.servers.table import DOCUMENT, render, written

#: A code block, and the comment above it that names the file it shows.
_SHOWN = re.compile(r"<!-- (examples/\S+) -->\n```\w*\n(.*?)```\n", re.DOTALL)

SHOWN = dict(_SHOWN.findall(DOCUMENT.read_text() + (ROOT / "docs/cluster.md").read_text()))


@pytest.mark.parametrize("path", sorted(SHOWN))
def test_a_block_is_the_file_that_it_names(path: str) -> None:
    assert SHOWN[path] == (ROOT / path).read_text()


def test_every_server_s_example_is_shown() -> None:
    folders = ("gunicorn", "uvicorn", "granian", "systemd", "containers")
    files = {
        str(path.relative_to(ROOT)) for folder in folders for path in (EXAMPLES / folder).iterdir() if path.is_file()
    }
    assert files <= SHOWN.keys()


def test_the_table_has_a_cell_for_each_test_and_each_passed() -> None:
    table = "|" + written().partition("|")[2]
    assert table == render({cell.id: True for cell in CELLS}), "write it anew: make servers"


def test_the_ids_of_the_cells_are_their_own() -> None:
    assert len({cell.id for cell in CELLS}) == len(CELLS)


def test_the_tests_that_the_document_names_exist() -> None:
    named = set(re.findall(r"`(tests/[\w/.]+)`", DOCUMENT.read_text()))
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []
