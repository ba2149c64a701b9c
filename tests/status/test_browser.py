"""What a person sees: coopshm-admin serve beside a live gunicorn, looked at with a real browser."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from tests.procs import WATCHDOG
from tests.servers.client import Crowd
from tests.servers.gate import Gate
from tests.servers.gunicorn import Gunicorn
from tests.servers.server import Server
from tests.servers.site import Site
from tests.status import tool
from tests.status.browser import NAMES, Browser, BrowserError
from tests.status.test_serve import serve

#: A key that a user of the application made up. (No slash in it: it is a part of a path.)
EVIL = "held<img src=x onerror=document.title='owned'><script>document.title='owned'</script>".replace("/", "\\")

#: Elements whose text is hard to read: contrast with what is behind it below 4.5.
FAINT = """
(() => {
  const channel = (c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const faint = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || !element.getClientRects().length) continue;
    if (["TITLE", "SCRIPT", "NOSCRIPT"].includes(element.tagName.toUpperCase())) continue;
    const style = getComputedStyle(element);
    const color = parse(element.namespaceURI.endsWith("svg") ? style.fill : style.color);
    const [a, b] = [luminance(color), luminance(behind(element))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) faint.push(`${walk.currentNode.textContent} ${color} on ${behind(element)}`);
  }
  return faint;
})()
"""

#: What somebody who does not see the page would miss.
UNLABELLED = """
(() => {
  const named = (element) =>
    element.getAttribute("aria-label") || element.getAttribute("title") || element.textContent.trim();
  const bad = [];
  for (const table of document.querySelectorAll("table")) {
    if (!table.caption || !table.caption.textContent) bad.push("a table without a caption");
    if (!table.querySelectorAll("thead th[scope=col]").length) bad.push("a table without headers");
  }
  for (const image of document.querySelectorAll("svg, [role=img]"))
    if (image.getAttribute("aria-hidden") !== "true" && !image.getAttribute("aria-label")) bad.push(image.outerHTML);
  for (const control of document.querySelectorAll("a, button")) if (!named(control)) bad.push(control.outerHTML);
  if (!document.documentElement.lang) bad.push("no language");
  if (document.querySelectorAll("h1").length !== 1) bad.push("not one h1");
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  if (new Set(ids).size !== ids.length) bad.push("an id twice");
  return bad;
})()
"""


@pytest.fixture
def browser() -> Iterator[Browser]:
    with Browser(tool(*NAMES)) as browser:
        yield browser


@pytest.fixture
def server(tmp_path: Path, namespace: str) -> Iterator[Server]:
    with Gate() as gate, Gunicorn(Site(tmp_path, namespace, gate)) as server:
        yield server


def live(browser: Browser, port: int, fragment: str = "") -> None:
    browser.go(f"http://127.0.0.1:{port}/{fragment}")
    browser.until("document.querySelector('#state').className === 'live'")


def cells(browser: Browser, part: str) -> list[list[str]]:
    """The text of a part's table, as it is read."""
    rows = f"[...document.querySelectorAll('#{part} tbody tr')]"
    found: list[list[str]] = browser.run(f"{rows}.map((row) => [...row.children].map((cell) => cell.textContent))")
    return found


def until_row(browser: Browser, part: str, *wanted: str) -> list[str]:
    """The row that begins so, once there is one."""
    start = json.dumps(list(wanted))
    return next(
        row
        for row in browser.until(
            f"(() => {{ const rows = [...document.querySelectorAll('#{part} tbody tr')]"
            ".map((row) => [...row.children].map((cell) => cell.textContent));"
            f" return rows.some((row) => {start}.every((text, at) => row[at] === text)) && rows; }})()",
            lambda: cells(browser, part),
        )
        if row[: len(wanted)] == list(wanted)
    )


def test_computations_resets_and_deaths_are_seen(browser: Browser, server: Server, namespace: str) -> None:
    site, crowd = server.site, Crowd(server.port)
    with serve(namespace) as (port, _):
        browser.look(1600)
        crowd.ask("/value/pages/held-one")
        held = site.gate.next()
        live(browser, port, f"#{namespace}/pages")
        row = until_row(browser, "flights", "'held-one'", str(held.pid))
        assert row[3:] == ["0", "alive"]
        crowd.ask("/value/pages/held-one")
        row = until_row(browser, "caches", "pages")
        browser.until("document.querySelector('#flights tbody tr')?.children[3].textContent === '1'")
        # The worker that computes is killed, and the one that waits takes over.
        os.kill(held.pid, signal.SIGKILL)
        heir = site.gate.next()
        row = until_row(browser, "flights", "'held-one'", str(heir.pid))
        assert row[4] == "alive, taken over 1 time"
        heir.release()
        browser.until("document.querySelector('#flights .none')")
        until_row(browser, "slowest", "'held-one'")
        assert server.post("/reset/pages").good
        browser.until("document.querySelectorAll('#resets tbody tr').length")
        assert cells(browser, "resets")[0][1:3] == ["1", "2"]
        assert "version 2, generation" in browser.run("document.querySelector('#title').textContent")
        # Another cache is chosen by its link.
        assert server.get("/value/kept/a").good
        until_row(browser, "caches", "kept")
        browser.run("[...document.querySelectorAll('#caches a')].find((link) => link.textContent === 'kept').click()")
        browser.until("document.querySelector('#title').textContent.startsWith('kept ')")
        assert cells(browser, "slowest")[0][0] == "'a'"
        assert browser.problems == []
        assert {urlsplit(url).netloc for url in browser.requests} == {f"127.0.0.1:{port}"}
    crowd.replies()


def test_a_key_is_text_whatever_it_says(browser: Browser, server: Server, namespace: str) -> None:
    crowd = Crowd(server.port)
    crowd.ask(f"/value/pages/{quote(EVIL)}")
    held = server.site.gate.next()
    assert held.key == EVIL
    with serve(namespace) as (port, _):
        live(browser, port, f"#{namespace}/pages")
        browser.until("document.querySelector('#flights tbody tr')")
        ((key, *_),) = cells(browser, "flights")
        assert key.startswith('"held<img src=x onerror=')
        assert browser.run("document.querySelectorAll('#flights img, #flights script').length") == 0
        held.release()
        browser.until("document.querySelector('#slowest tbody tr')")
        assert browser.run("document.querySelectorAll('main img, main script').length") == 0
        assert "owned" not in browser.run("document.title")
        assert browser.problems == []
    crowd.replies()


def test_the_policy_holds_should_the_page_ever_not(browser: Browser, namespace: str) -> None:
    with serve(namespace) as (port, _):
        live(browser, port)
        markup = "(() => { try { document.body.innerHTML = '<b>'; } catch (error) { return error.name; } })()"
        assert browser.run(markup) == "TypeError"
        blocked = """
          new Promise((done) => {
            document.addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
            const image = document.createElement("img");
            image.src = "http://127.0.0.2:9/x.png";
            document.body.append(image);
          })
        """
        assert browser.run(blocked) == "img-src"
        with pytest.raises(BrowserError, match="requires 'TrustedScript'"):
            browser.run("document.body.setAttribute('onclick', 'window.owned = 1')")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 400, 768, 1600])
def test_it_can_be_read(browser: Browser, server: Server, namespace: str, width: int, theme: str) -> None:
    crowd = Crowd(server.port)
    crowd.ask("/value/pages/held-" + "x" * 200, 2)
    held = server.site.gate.next()
    for key in range(5):
        assert server.get(f"/value/pages/{key}").good
    assert server.get("/value/kept/a").good
    with serve(namespace) as (port, _):
        browser.look(width, theme=theme)
        live(browser, port, f"#{namespace}/pages")
        browser.until("document.querySelectorAll('#lookups polyline').length === 3")
        assert browser.run("matchMedia('(prefers-color-scheme: dark)').matches") == (theme == "dark")
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert browser.run(FAINT) == []
        assert browser.run(UNLABELLED) == []
        within = "[...document.querySelectorAll('.tiles dd, .bars dd, td')]"
        cut = f"{within}.filter((cell) => cell.scrollWidth > cell.clientWidth + 1).length"
        assert browser.run(cut) == 0
        assert browser.problems == []
    held.release()
    crowd.replies()


def test_the_arena_is_drawn_chunk_by_chunk(browser: Browser, server: Server, namespace: str) -> None:
    assert server.get("/value/pages/a").good
    with serve(namespace) as (port, _):
        live(browser, port, f"#{namespace}/pages")
        kinds = browser.until("[...document.querySelectorAll('.arena .cell')].map((cell) => cell.className)")
        assert (kinds.count("cell used"), len(kinds)) == (1, 256)
        title = browser.run("document.querySelector('.arena .cell').title")
        assert title.startswith("chunk 0: used, ")
        assert server.post("/reset/pages").good
        browser.until("document.querySelectorAll('.arena .cell.reserved').length === 1")


def test_pause_and_a_server_that_has_gone(browser: Browser, server: Server, namespace: str) -> None:
    def state() -> Any:
        return browser.run("document.querySelector('#state').textContent")

    with serve(namespace) as (port, process):
        live(browser, port)
        browser.run("document.querySelector('#pause').click()")
        assert state() == "paused"
        assert browser.run("document.querySelector('#pause').getAttribute('aria-pressed')") == "true"
        browser.run("document.querySelector('#pause').click()")
        browser.until("document.querySelector('#state').className === 'live'")
        process.send_signal(signal.SIGTERM)
        process.wait(WATCHDOG)
        browser.until("document.querySelector('#state').className === 'lost'")
        assert "what is shown is old" in state()


def test_without_any_cache_and_with_one_that_is_gone(browser: Browser, namespace: str) -> None:
    with serve(namespace) as (port, _):
        live(browser, port)
        assert browser.run("document.querySelector('#caches').textContent") == "There is no cache yet."
        live(browser, port, f"#{namespace}/gone")
        browser.until("document.querySelector('#detail').textContent === 'There is no such cache now.'")
        assert browser.problems == []
