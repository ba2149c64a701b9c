"""The demonstration: `make demo`, or `python -m demo`.

A real gunicorn with four workers serves reference pages of Python's standard library. Rendering a page is
expensive, the pages are few and known, and they have a version: the documentation release. That is the kind
of source coopshm is made for. 64 clients ask for all pages while they are cold, while they are warm, and
while the release changes under load; once with a cache in each worker, once with coopshm.

Read the files in this order; each imports only from those before it:

    source.py         what is rendered: the modules, the current release, the log of computations
    render.py         how: one page of one module
    caching.py        the two ways to keep a page, behind one interface
    app.py            the WSGI application
    gunicorn_conf.py  how gunicorn runs it
    coopshm.toml      how coopshm keeps it
    server.py         starts and stops gunicorn
    client.py         64 keep-alive connections, and what each reply said
    scenario.py       cold, warm, resets under load
    report.py         the table, and the promises that must hold

`make demo-cluster` runs the same application on three nodes with a sidecar each:

    nodes.py          a node: a network and a /dev/shm of its own, gunicorn, coopshm-sidecar
    cluster.py        the scenario, what was seen, the table

`make demo-top` (top.py) films `coopshm-admin top` beside the same server under the same load.
"""
