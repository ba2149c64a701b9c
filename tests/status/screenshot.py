"""Takes the pictures of the status page for the docs: `python -m tests.status.screenshot` (or `make screenshot`).

A real gunicorn serves the shop of shop.py to some clients for a while. There are two resets, and a worker is killed.
The page is then looked at in a browser, in both themes and at several widths.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.status import shop
from tests.status.browser import NAMES, Browser

ROOT = Path(__file__).parents[2]
CLIENTS = 12
#: Where pictures go that are for looking at only, and the one that is for the docs.
BUILD, DOCS = ROOT / "build" / "status", ROOT / "docs" / "status.png"


@contextlib.contextmanager
def running(*command: str, environment: dict[str, str], **options: object) -> Iterator[subprocess.Popen[str]]:
    """A process with all of its children, which end with it."""
    process = subprocess.Popen(  # type: ignore[call-overload]
        command, env=environment, text=True, start_new_session=True, stdout=subprocess.PIPE, **options
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def ask(port: int, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.suppress(OSError, http.client.HTTPException):  # of a worker that was killed
        connection.request("GET", path)
        connection.getresponse().read()
    connection.close()


@contextlib.contextmanager
def visited(port: int) -> Iterator[None]:
    """Clients that ask for one page after the other for as long as the context lasts."""
    ended = threading.Event()

    def client(seed: int) -> None:
        for path in shop.paths(seed):
            if ended.wait(0.01):
                return
            ask(port, path)

    crew = [threading.Thread(target=client, args=(seed,)) for seed in range(CLIENTS)]
    for thread in crew:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in crew:
            thread.join()


def take(browser: Browser, width: int, theme: str, path: Path, last: str = "body") -> None:
    """A picture of the page down to the element `last`."""
    browser.look(width, theme=theme)
    browser.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    browser.until("document.querySelectorAll('.line.blue').length > 2")
    end = browser.run(f"document.querySelector('{last}').getBoundingClientRect().bottom + scrollY")
    browser.screenshot(path, width, int(end) + 12)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=75, help="how long the shop is visited")
    arguments = parser.parse_args()
    browser = next((path for path in map(shutil.which, NAMES) if path), None)
    if browser is None:
        print("there is no chromium here; see `make tools`", file=sys.stderr)
        return 1
    namespace = f"shop-{os.getpid()}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COOPSHM_NAMESPACE": namespace}
    bin = Path(sys.executable).parent
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="coopshm-shop-"))
        config = Path(directory, "coopshm.toml")
        config.write_text(shop.CONFIG.format(namespace=namespace))
        environment["COOPSHM_CONFIG"] = str(config)
        stack.callback(clean, namespace)
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=256))
        gunicorn = [sys.executable, "-m", "gunicorn", "--workers", "4", "--threads", "3", "--no-control-socket"]
        bind = ["--bind", f"fd://{listener.fileno()}", "tests.status.shop:application"]
        server = stack.enter_context(
            running(*gunicorn, *bind, environment=environment, pass_fds=[listener.fileno()], stderr=subprocess.DEVNULL)
        )
        serve = [str(bin / "coopshm-admin"), "serve", "--listen", "127.0.0.1:0", "--json"]
        page = stack.enter_context(running(*serve, environment=environment))
        assert page.stdout is not None
        url = json.loads(page.stdout.readline())["url"]
        port = listener.getsockname()[1]
        with visited(port):
            for share, version in ((0.55, "2026-11-21"), (0.45, "2026-11-22")):
                time.sleep(arguments.seconds * share)
                ask(port, f"/reset/{version}")
            time.sleep(1)  # now many compute
            kill_a_worker(server.pid)
            time.sleep(2)
            BUILD.mkdir(parents=True, exist_ok=True)
            with Browser(browser) as window:
                window.look(1600)
                window.go(f"{url}#{namespace}/pages")
                for theme, width in itertools.product(("light", "dark"), (1600, 1000, 400)):
                    take(window, width, theme, BUILD / f"{theme}-{width}.png")
                take(window, 1280, "light", DOCS, last="#durations")
    return 0


def kill_a_worker(master: int) -> None:
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)


def clean(namespace: str) -> None:
    for path in Path("/dev/shm").glob(f"coopshm:{namespace}:*"):
        path.unlink()


if __name__ == "__main__":
    sys.exit(main())
