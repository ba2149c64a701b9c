"""Whole hosts with a sidecar each, while everything about them goes wrong at random: `python -m tests.soak_cluster`.

    events.py    what all processes write down, and the words that they are ruled by
    source.py    what the caches are of: its version, and the callback that brings it there
    goods.py     keys, and values that say where they are from
    caller.py    calls of the cache, each written down
    crew.py      the processes of one host: workers that are killed and replaced, and one that answers questions
    hosts.py     a host as the run has it, with its crew and its sidecar
    engine.py    the Redis server of a cluster that is connected by one
    faults.py    what goes wrong
    run.py       episodes: something goes wrong, is mended, and all must be well again
    histories.py what was written down, read in
    judge.py     what must hold in it
    report.py    the table at the end

The hosts are those of tests/net/network.py. They need root.
"""
