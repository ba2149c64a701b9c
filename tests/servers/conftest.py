"""The fixtures of these tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.gate import Gate
from tests.servers.site import Site


@pytest.fixture
def gate() -> Iterator[Gate]:
    with Gate() as gate:
        yield gate


@pytest.fixture
def site(tmp_path: Path, namespace: str, gate: Gate) -> Site:
    """Where a test's servers run."""
    return Site(tmp_path, namespace, gate)
