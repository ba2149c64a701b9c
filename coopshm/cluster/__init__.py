"""The cluster: a sidecar per host extends "once" and "reset" to all hosts (extra: `coopshm[cluster]`).

Workers import nothing of this package. A map of it, each module importing only from those above it:

    relay     the seam: what a relay may ask of a host (Host), and a host of a relay (Relay)
    keyids    what a key is called in the cluster
    stamps    which reset wins, and whether what it stands for is new enough
    messages  what nodes say to each other, bounded
    views     whom a node sees, and which of them owns a key
    leases    the owner node's table           asks       the asker's side of it
    trust     mutual TLS, by a secret or by certificates
    wire      frames, and what goes before what    links      accepting and dialling
    mesh      which nodes are there, and live
    waits     for events, and for tasks to end
    resets    adopting stamps                      logs       following each other's commit logs
    peers     the relay of nodes that connect to each other directly
    engine    a package: the relay of nodes that meet in a Redis or Valkey

    segment   a cache's segment as the sidecar has it     threads   calls that may wait for a lock
    host      the Host over it
    settings  the [cluster] table
    sidecar   the process: hosts and relay together       command   `coopshm-sidecar`
"""
