"""docs/reliability.md says which test holds which claim: so each one that it names exists, and runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[^`\s]+)`", PAGE)))
CLAIMS = PAGE.partition("## Claim by claim")[2].partition("\n## ")[0]


def _has(path: Path, name: str) -> bool:
    text = path.read_text()
    if path.suffix == ".py":
        return re.search(rf"^    (async )?def {name}\(|^(async )?def {name}\(", text, re.MULTILINE) is not None
    if path.suffix == ".c":  # listed in its main, so that it runs
        return f"static void {name}(" in text and f"CHECK_TEST({name})" in text
    return False


@pytest.mark.parametrize("named", NAMED)
def test_what_the_page_names_exists(named: str) -> None:
    pattern, _, name = named.partition("::")
    paths = sorted(ROOT.glob(pattern.rstrip("/")))
    assert paths, f"there is no {pattern}"
    if name:
        assert any(_has(path, name) for path in paths), f"{pattern} has no test {name}"


@pytest.mark.parametrize("promise", range(1, 11))
def test_each_promise_has_tests(promise: int) -> None:
    rows = re.findall(rf"^\| P{promise} [^|]*\|([^|]*)\|$", CLAIMS, re.MULTILINE)
    assert rows
    assert all("`tests/" in row for row in rows)


def test_a_test_that_is_not_there_is_not_found() -> None:
    assert _has(Path(__file__), "test_each_promise_has_tests")
    assert not _has(Path(__file__), "test_of_nothing")
    core = ROOT / "tests" / "csrc" / "test_counts.c"
    assert _has(core, "hot_hits_are_counted_in_no_other_way")
    assert not _has(core, "find"), "a function that is no test"
