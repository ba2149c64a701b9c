"""Looking at the caches of a host, again and again: for a monitoring system, and for people.

    look       attached to all caches of a namespace as an observer, and what one look at them shows
    history    looks in a row: rates, and the resets that were seen
    document   a look and its history as a JSON document
    page       the status page as a WSGI application: the document, the metrics, and the files of static/
    server     an HTTP server for it, on loopback

Nothing here changes a cache, takes a lock of one, or keeps one alive. The command line (coopshm-admin serve) is one
that starts it; whoever has a WSGI server can mount `page.Page` just as well.
"""
