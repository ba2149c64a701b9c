# gunicorn --config gthread.py shop.wsgi:application
import coopshm

worker_class = "gthread"
workers = 3
threads = 32  # those that wait for a value are not free for other requests


def on_starting(server):
    coopshm.open("pages")  # the master has the cache, too, so that it lives on while all workers are replaced


def on_reload(server):
    coopshm.configure()  # reads coopshm.toml again, for the workers to come
    coopshm.open("pages")
