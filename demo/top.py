"""`python -m demo.top FILE`: films `coopshm-admin top` beside the demonstration's server under load, as an SVG.

The pictures are those of the command, made by its own functions of what it reads. Twelve of them, spread over the
demonstration, come one after another in one file, which moves by its own styles; who does not obey them shows one.
"""

import asyncio
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import coopshm
from coopshm.admin.pretty import svg
from coopshm.admin.sampling import Sampler
from coopshm.admin.text import Block
from coopshm.admin.top import picture
from demo import scenario, server, source
from demo.__main__ import CONFIG, NAMESPACE

INTERVAL = 0.5  # seconds between two looks
PICTURES = 12
SHOWN = 1.2  # seconds that each is shown
LINES = 30


def film(port: int) -> list[list[Block]]:
    """Plays the scenario, and returns what top shows meanwhile."""
    done = threading.Event()

    def play() -> None:
        try:
            asyncio.run(scenario.run(port))
        finally:
            done.set()

    clients = threading.Thread(target=play)
    clients.start()
    sampler = Sampler(NAMESPACE)
    pictures = []
    sampler.look()
    while not done.wait(INTERVAL):
        pictures.append(picture("demo", sampler.look(), INTERVAL))
    clients.join()
    return pictures


def choose(pictures: Sequence[list[Block]]) -> list[list[Block]]:
    """Returns some pictures, spread evenly."""
    count = min(PICTURES, len(pictures))
    return [pictures[at * len(pictures) // count] for at in range(count)]


def animate(pictures: Sequence[list[Block]]) -> str:
    """Returns one document that shows the pictures one after another, for ever."""
    drawn = [svg(blocks, "coopshm-admin top", lines=LINES, name=f"p{number}") for number, blocks in enumerate(pictures)]
    box = re.search(r'viewBox="[^"]*"', drawn[0])
    assert box is not None
    total, share = SHOWN * len(drawn), 100 / len(drawn)
    poster = max(range(len(pictures)), key=lambda number: len(drawn[number]))  # the one with most to see
    style = (
        f".picture {{ visibility: hidden; animation: show {total:g}s steps(1) infinite }}\n"
        f".poster {{ visibility: visible }}\n"
        f"@keyframes show {{ 0% {{ visibility: visible }} {share:.3f}% {{ visibility: hidden }} }}\n"
    )
    layers = [
        f'<g class="{"picture poster" if number == poster else "picture"}" '
        f'style="animation-delay: {number * SHOWN - total:g}s">\n{one}\n</g>'
        for number, one in enumerate(drawn)
    ]
    body = "\n".join([f"<style>\n{style}</style>", *layers])
    lines = [line.rstrip() for line in body.splitlines() if line.strip()]
    return f'<svg {box[0]} xmlns="http://www.w3.org/2000/svg">\n' + "\n".join(lines) + "\n</svg>\n"


def main(path: str) -> int:
    os.environ.update(COOPSHM_NAMESPACE=NAMESPACE, COOPSHM_CONFIG=str(CONFIG), DEMO_CACHE="coopshm")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # leaves through `finally`
    with tempfile.TemporaryDirectory(prefix="coopshm-demo-") as directory:
        os.environ["DEMO_DIR"] = directory
        source.publish(1)
        try:
            with server.gunicorn() as port:
                pictures = film(port)
        finally:
            coopshm.open("pages").destroy()
    Path(path).write_text(animate(choose(pictures)), encoding="utf-8")
    print(f"{path}: {min(PICTURES, len(pictures))} of {len(pictures)} pictures")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
