"""The fixtures of these tests; and their parts that assert without being test modules by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.gate import Gate
from tests.servers.site import Site

pytest.register_assert_rewrite("tests.servers.checks", "tests.servers.server")


@pytest.fixture
def gate() -> Iterator[Gate]:
    with Gate() as gate:
        yield gate


@pytest.fixture
def site(tmp_path: Path, namespace: str, gate: Gate) -> Site:
    """Where a test's servers run."""
    return Site(tmp_path, namespace, gate)
