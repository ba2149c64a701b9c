"""A Django site with coopshm: settings.COOPSHM, views, a management command.

    python manage.py runserver
    gunicorn --preload --workers 3 --threads 16 shop.wsgi
    uvicorn --workers 3 shop.asgi:application
    python manage.py coopshm reset products

With --preload the caches are opened once, before the workers are forked, and live on while workers are replaced.
"""
