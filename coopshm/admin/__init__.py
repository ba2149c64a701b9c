"""coopshm-admin: looking at the caches of a host, and resetting or removing one, from the command line.

    text       sizes, ages, tables: what is printed, as plain text
    pretty     the same on a terminal, with colours and bars, by rich
    segments   which caches there are, attaching to one, resetting and removing it
    session    what the commands share: options, names, output
    looking    list, stats, flights
    sampling   looking again and again, for rates
    terminal   one picture after another, and the keys that are pressed
    top        top
    stored     which values may be decoded, and what is shown of the others
    entries    keys, get
    doctor/    doctor
    checking   config check
    changing   reset, verify, destroy
    serving    metrics, serve (what they show is made in coopshm/status and coopshm/metrics.py)
    cli        the command line that has them all

Every command attaches as an observer: it creates no segment, changes no generation by attaching, and keeps no
cache alive that no application process uses. Killed at any point, it leaves what any killed process leaves:
a row at most, and a lock that the next process takes over.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..config import Config

__all__ = ["main", "run"]


def main() -> None:
    """Run coopshm-admin on the arguments of this process, and exit."""
    from .cli import cli

    cli(prog_name="coopshm-admin")


def run(arguments: Sequence[str], config: Config, name: str) -> None:
    """Run coopshm-admin on `arguments`, and exit: as the command `name` of an application with this configuration."""
    from .cli import cli

    cli([*arguments], prog_name=name, obj=config)
