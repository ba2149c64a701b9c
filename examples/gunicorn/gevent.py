# gunicorn --config gevent.py shop.wsgi:application
import coopshm

worker_class = "gevent"
workers = 3
timeout = 60  # seconds; above the longest that a computation goes without giving way to other greenlets


def on_starting(server):
    coopshm.open("pages")  # the master has the cache, too, so that it lives on while all workers are replaced


def on_reload(server):
    coopshm.configure()  # reads coopshm.toml again, for the workers to come
    coopshm.open("pages")
