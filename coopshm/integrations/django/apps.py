"""Configures coopshm when Django starts."""

from __future__ import annotations

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import register
from django.core.exceptions import ImproperlyConfigured

import coopshm

__all__ = ["CoopshmConfig"]


class CoopshmConfig(AppConfig):
    name = "coopshm.integrations.django"
    label = "coopshm"
    verbose_name = "coopshm"

    def ready(self) -> None:
        """Without settings.COOPSHM, coopshm looks for a configuration by itself, as ever."""
        from .checks import check

        try:
            coopshm.configure(getattr(settings, "COOPSHM", None))
        except coopshm.ConfigError as exc:
            raise ImproperlyConfigured(f"settings.COOPSHM: {exc}") from exc
        register(check)
