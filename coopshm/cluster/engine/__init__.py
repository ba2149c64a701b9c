"""The engine relay: the nodes meet in a Redis or Valkey that is there anyway (extra: `coopshm[redis]`).

Each step that must happen as a whole is a script (lua/). What is kept in the engine helps, and nothing depends on it:
which reset wins is decided by the nodes (stamps.py), entries are accepted under the stamp that they were computed
under, and an engine that is gone, has been flushed or has forgotten costs computations, never an older value.

    seal        authenticates what nodes keep there     keys        its names; generations
    sayings     messages, bounded                       entries     entries, sealed, in pieces
    address     where the engine is                     scripts     the steps
    connection  there or lost; batches
    context     what the parts of one cache share
    standing    the claim at the head: compare and set  nodes       who else is there
    holding     proof that a node has a lease         wishes     leases, as the asker and holder has them
    writing     the host's log into the engine          reading     the engine's log into the host
    relay       EngineRelay: all of it
"""

from .context import EngineConfig
from .relay import EngineRelay

__all__ = ["EngineConfig", "EngineRelay"]
