"""coopshm in real servers: each is started as a user starts it, with the files of examples/, and asked over HTTP.

    app/         the applications that the servers run (WSGI, ASGI), and their source of values
    gate.py      where computations stop until the test lets them go
    client.py    HTTP clients: one request, a crowd of them, a steady load
    site.py      what a test has: a directory, a namespace, a configuration, the records of the applications
    server.py    one server: start, reload, stop for certain, and look what it has left behind
    gunicorn.py, uvicorn.py, granian.py, uwsgi.py   how each is started and reloaded
    checks.py    what must hold in every server, one function a promise
    modes.py     which server in which mode is held to which check: the table of docs/servers.md
    test_modes.py   runs that table

To add a server: a subclass of `server.Server`, and its rows in `modes.MODES`.
"""
