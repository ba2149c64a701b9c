"""What frameworks need beyond `configure` and `cached`: settings, commands, checks. Each module imports its framework.

    flask     the extension Coopshm: app.config["COOPSHM"], `flask coopshm ...`
    django    an application for INSTALLED_APPS: settings.COOPSHM, system checks, `manage.py coopshm ...`

There is no cache backend for Django, and will not be: its API has timeouts, `set`, `delete` and `incr` for single keys,
on which sessions and others rely; a coopshm cache has none of them and would have to pretend.
"""
