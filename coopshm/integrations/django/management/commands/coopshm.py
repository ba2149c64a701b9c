"""`manage.py coopshm`: coopshm-admin, with the configuration of the site."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from django.conf import settings
from django.core.management.base import BaseCommand

from .....admin import run
from .....config import load


class Command(BaseCommand):
    help = "Looks at the caches of this site, or resets one: coopshm-admin, with its configuration."
    requires_system_checks: Sequence[str] = ()

    def run_from_argv(self, argv: Sequence[str]) -> None:
        """Leave the arguments to coopshm-admin, but those that Django itself has evaluated by now."""
        djangos = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        djangos.add_argument("--settings")
        djangos.add_argument("--pythonpath")
        self.handle(arguments=djangos.parse_known_args(argv[2:])[1])

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("arguments", nargs=argparse.REMAINDER)

    def handle(self, *, arguments: Sequence[str], **_: object) -> None:
        run(arguments, load(getattr(settings, "COOPSHM", None)), "manage.py coopshm")
