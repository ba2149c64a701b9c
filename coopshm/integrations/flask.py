"""The Flask extension: the caches are configured from `app.config["COOPSHM"]`, and `flask coopshm` is coopshm-admin.

Coopshm(app)    # or, in an application factory: coop = Coopshm(); coop.init_app(app)
"""

from __future__ import annotations

import click
from flask import Flask

import coopshm

from ..admin import run
from ..config import load

__all__ = ["Coopshm"]


class Coopshm:
    """The extension.

    `app.config["COOPSHM"]` is what `coopshm.configure` takes: a mapping, or the path of a TOML file. Without it,
    coopshm looks for a configuration by itself, as ever. A process has one configuration: the last application's.
    """

    def __init__(self, app: Flask | None = None) -> None:
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Configure coopshm from the application's settings, and add the command.

        Raises:
            ConfigError: they are wrong.
        """
        source = app.config.get("COOPSHM")
        coopshm.configure(source)
        app.extensions["coopshm"] = self

        @app.cli.command(
            "coopshm",
            context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
            add_help_option=False,
        )
        @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
        def command(arguments: tuple[str, ...]) -> None:
            """Look at the caches of this application, or reset one: coopshm-admin, with its configuration."""
            run(arguments, load(source), "flask coopshm")
