# gunicorn --config logging.py shop.wsgi:application
import logging

import coopshm

workers = 3


def on_starting(server):
    log = logging.getLogger("coopshm")
    log.parent = server.log.error_log  # what coopshm has to say goes where gunicorn's own messages go
    log.setLevel(logging.INFO)
    coopshm.open("pages")
