"""How gunicorn runs the application: four worker processes, whose threads serve 64 connections."""

from demo import source

workers = 4
worker_class = "gthread"
threads = 16
preload_app = True  # the modules to document are imported once, by the parent
keepalive = 60  # seconds; the clients pause for less
timeout = 60
graceful_timeout = 5
loglevel = "warning"
control_socket_disable = True


def post_worker_init(worker: object) -> None:
    """Notes that one more worker can serve, so that the clients start when all four can."""
    with (source.directory() / "booted.log").open("a", encoding="ascii") as log:
        log.write("booted\n")
