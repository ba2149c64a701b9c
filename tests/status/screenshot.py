"""Takes the pictures of the status page for the docs: `python -m tests.status.screenshot` (or `make screenshot`).

A real gunicorn serves the shop of shop.py to some clients for a while. It is a node of a cluster, with a sidecar,
beside two other nodes on this machine, in namespaces of their own. There are two resets, a worker is killed, and a
sidecar ends.
The page is then looked at in a browser, in both themes and at several widths.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import os
import secrets
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

import coopshm
from tests.cluster.peers_world import PORT, address
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


class Nodes:
    """Nodes of one cluster on this machine: the namespace, the configuration and the environment of each. They are
    sure of each other by a secret, and listen each on a loopback address of its own."""

    def __init__(self, directory: Path, names: list[str]) -> None:
        self.namespaces = {name: f"shop-{os.getpid()}{'' if name == names[0] else f'-{name}'}" for name in names}
        addresses = {name: f"{address()}:{PORT}" for name in names}
        secret = directory / "secret"
        secret.write_text(secrets.token_hex(32))
        secret.chmod(0o600)
        self.environments = {}
        for name in names:
            config = directory / f"{name}.toml"
            table = {
                "name": name,
                "namespace": "shop",
                "listen": addresses[name],
                "nodes": list(addresses.values()),
                "secret_file": str(secret),
            }
            lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
            config.write_text(f"{shop.CONFIG.format(namespace=self.namespaces[name])}[cluster]\n{lines}\n")
            inherited = {key: value for key, value in os.environ.items() if not key.startswith("COOPSHM_")}
            self.environments[name] = {**inherited, "PYTHONPATH": str(ROOT), "COOPSHM_CONFIG": str(config)}

    def clean(self) -> None:
        for namespace in self.namespaces.values():
            for path in Path("/dev/shm").glob(f"coopshm:{namespace}:*"):
                path.unlink()


def be_node() -> None:
    """A node's worker, which has its caches and does nothing: what is in them comes from the others."""
    caches = [coopshm.open(name) for name in ("pages", "models", "prices")]
    print(len(caches), flush=True)
    sys.stdin.read()


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
    bin = Path(sys.executable).parent
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="coopshm-shop-"))
        nodes = Nodes(Path(directory), ["web1", "web2", "web3"])
        stack.callback(nodes.clean)
        environment = nodes.environments["web1"]
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
        for name in ("web2", "web3"):
            worker = [sys.executable, "-c", "from tests.status.screenshot import be_node; be_node()"]
            other = stack.enter_context(running(*worker, environment=nodes.environments[name], stdin=subprocess.PIPE))
            assert other.stdout is not None
            other.stdout.readline()
        sidecars = {
            name: stack.enter_context(
                running(str(bin / "coopshm-sidecar"), environment=mine, stderr=subprocess.DEVNULL)
            )
            for name, mine in nodes.environments.items()
        }
        with visited(port):
            for share, version in ((0.55, "2026-11-21"), (0.45, "2026-11-22")):
                time.sleep(arguments.seconds * share)
                ask(port, f"/reset/{version}")
            time.sleep(1)  # now many compute
            kill_a_worker(server.pid)
            sidecars["web3"].terminate()
            time.sleep(2)
            BUILD.mkdir(parents=True, exist_ok=True)
            with Browser(browser) as window:
                window.look(1600)
                window.go(f"{url}#{nodes.namespaces['web1']}/pages")
                for theme, width in itertools.product(("light", "dark"), (1600, 1000, 400)):
                    take(window, width, theme, BUILD / f"{theme}-{width}.png")
                take(window, 1280, "light", DOCS, last="#durations")
    return 0


def kill_a_worker(master: int) -> None:
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
