"""The settings of the site. It has no database: the products are in files (see catalogue.py)."""

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # catalogue.py, which the example applications share

SECRET_KEY = os.environ.get("SECRET_KEY", "only for an example that runs on this host")
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
DEBUG = False

INSTALLED_APPS = ["coopshm.integrations.django", "shop"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
ASGI_APPLICATION = "shop.asgi.application"
USE_TZ = True

#: As in coopshm.toml; the path of such a file will do as well.
COOPSHM = {
    "namespace": "shop",
    "caches": {
        # Who has waited for 20 seconds for another worker answers 503, see views.py.
        "products": {"memory_limit": "16 MiB", "timeout": 20},
        "pictures": {"memory_limit": "64 MiB", "timeout": 20},
    },
}

#: Who knows it may have the site read its data anew: POST /reset with the header X-Token.
RESET_TOKEN = os.environ.get("RESET_TOKEN", "")
