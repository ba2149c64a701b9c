"""What several of these modules take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def conf(settings: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """A configuration of one cache `c`, with a version."""
    return settings(version=1)
