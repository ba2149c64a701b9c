"""Whole hosts on one machine: each with a network, a /dev/shm and processes of its own; gunicorn and a sidecar on each.

    network.py   hosts on one switch, and what can go wrong between them; knows nothing of coopshm
    web.py       the application that each host runs
    node.py      a host with gunicorn and a sidecar: started, asked, killed, gone for certain
    cluster.py   several of them: what a test has
    history.py   what clients have seen, and what they must never see

They need root (network namespaces); so they are skipped where that is not to be had.
"""
