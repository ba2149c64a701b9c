"""Questions about clusters, on hosts of our own: `python -m bench cluster`, as root; one of them: `cluster.miss` ...

    miss     what does a cold miss cost with the cluster on?
    reset    how soon has a reset reached all hosts?
    relay    how much does a relay bring from one host to another, beside what the network gives?
    load     what do sidecars take, at rest and while 10,000 entries are to be stored each second?
    wire     how many bytes go over the network for an entry, and how many does it take in the engine?
    fleet    how do 10 and 30 sidecars on one Redis behave?

What they share:

    network       hosts on one switch: namespaces
    nodes         a host with a sidecar and workers; clusters of them, over each of the relays
    worker        the program of a worker
    engine        a redis-server on a host of its own
    yardsticks    what the plainest programs get out of the same network
    plain_redis   what one would write by hand on Redis
    usage         memory and processor time of a process
"""
