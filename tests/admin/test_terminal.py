"""On a terminal: colours and bars for people, and nothing that a key or a value could do to it."""

from __future__ import annotations

import pytest

from tests.admin.screen import Screen

BAR = "█"


@pytest.fixture
def on_screen(admin):
    def run(line: str, **options: str) -> Screen:
        with Screen(admin.directory, "--namespace", admin.namespace, *line.split(), **options) as screen:
            screen.code = screen.end()  # type: ignore[attr-defined]
            return screen

    return run


def test_people_get_colours_and_bars_and_pipes_get_neither(admin, use, on_screen) -> None:
    use([(("product", at), b"x" * 1000) for at in range(2000)])
    shown = on_screen("list")
    assert BAR in shown.text
    assert "\x1b[" in shown.raw
    for line in ("list", "stats c", "keys c --limit 3", "doctor"):
        assert "\x1b" not in admin(line).stdout
        assert BAR not in admin(line).stdout
    assert "('product', 1)" in on_screen("keys c --limit 3").text
    assert "generation" in on_screen("stats c").text
    assert on_screen("keys c").text.count("('product', ") == 2000, "long tables, too"


@pytest.mark.parametrize("options", [{"term": "dumb"}, {"lang": "C"}], ids=["dumb", "ascii"])
def test_a_terminal_that_can_do_less_is_asked_for_less(admin, use, on_screen, options) -> None:
    use([(("product", at), b"x" * 1000) for at in range(2000)])
    shown = on_screen("list", **options)
    assert shown.text.isascii()
    assert ("\x1b" in shown.raw) == ("term" not in options)
    assert "c" in shown.text
    assert "2,000" in shown.text


def test_keys_and_values_cannot_write_to_the_terminal(admin, use, on_screen) -> None:
    evil = "\x1b]0;title\x07\x1b[2J[red]markup[/red]"
    use([(evil, evil)])
    for line in ("keys c", f"get c {evil}", "top --once --interval 0.05"):
        shown = on_screen(line)
        assert "\x1b]0" not in shown.raw
        assert "\x07" not in shown.raw
        assert shown.code == 0
    assert "[red]markup[/red]" in on_screen("keys c").text


def test_destroy_asks_on_the_terminal(admin, use) -> None:
    use([("k", 1)])
    with Screen(admin.directory, "--namespace", admin.namespace, "destroy", "c") as screen:
        screen.wait_for("[y/N]: ")
        screen.press("n\n")
        assert screen.end() == 1
    with Screen(admin.directory, "--namespace", admin.namespace, "destroy", "c") as screen:
        screen.wait_for("[y/N]: ")
        screen.press("y\n")
        screen.wait_for("was destroyed")
        assert screen.end() == 0
