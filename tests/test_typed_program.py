"""What the types promise to a user's program happens when it runs, and no public name is missing from it."""

from __future__ import annotations

import re
from pathlib import Path

import coopshm
from tests import typed_program


def test_it_runs(namespace: str) -> None:
    typed_program.main(namespace)


def test_it_has_every_public_name() -> None:
    used = set(re.findall(r"\bcoopshm\.(\w+)", Path(typed_program.__file__).read_text(encoding="utf-8")))
    assert set(coopshm.__all__) <= used


def test_the_types_are_installed() -> None:
    package = Path(coopshm.__file__).parent
    assert {"py.typed", "_core.pyi", "_front.pyi"} <= {path.name for path in package.iterdir()}
