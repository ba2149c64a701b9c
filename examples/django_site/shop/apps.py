"""The application: what its processes do when there is new data."""

import catalogue
from django.apps import AppConfig

import coopshm


class ShopConfig(AppConfig):
    name = "shop"

    def ready(self) -> None:
        # After coopshm.integrations.django, which stands before it in INSTALLED_APPS and has configured the caches.
        coopshm.on_reset("products", catalogue.reload)
