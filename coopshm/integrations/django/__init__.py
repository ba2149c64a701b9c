"""The Django application: the caches are configured from `settings.COOPSHM`, and `manage.py coopshm` is coopshm-admin.

INSTALLED_APPS = ["coopshm.integrations.django", ...]    # before those that use it in their ready()
COOPSHM = {"namespace": "shop", "caches": {"pages": {"memory_limit": "64 MiB"}}}    # or the path of a TOML file

apps         reads the settings          checks    what `manage.py check` says about them
management   the command
"""
