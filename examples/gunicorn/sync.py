# gunicorn --config sync.py shop.wsgi:application
import coopshm

workers = 3
timeout = 60  # seconds; above the slowest computation: a worker that waits for it is as busy as the one at work on it


def on_starting(server):
    coopshm.open("pages")  # the master has the cache, too, so that it lives on while all workers are replaced


def on_reload(server):
    coopshm.configure()  # reads coopshm.toml again, for the workers to come
    coopshm.open("pages")
