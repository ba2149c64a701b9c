"""The application that the servers of these tests run, twice: `wsgi` and `asgi` behave the same.

GET  /value/CACHE/KEY   the value of a key, as JSON: what a computation gave, and who served it
POST /reset/CACHE       resets the cache; the reply comes when it is done
GET  /pid               what needs no cache

`source` is what both compute from, and writes down.
"""
