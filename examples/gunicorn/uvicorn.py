# gunicorn --config uvicorn.py shop.asgi:application
import coopshm

worker_class = "uvicorn_worker.UvicornWorker"
workers = 3


def on_starting(server):
    coopshm.open("pages")  # the master has the cache, too, so that it lives on while all workers are replaced


def on_reload(server):
    coopshm.configure()  # reads coopshm.toml again, for the workers to come
    coopshm.open("pages")
