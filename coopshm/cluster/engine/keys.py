"""The names of what a cache has in the engine.

    coopshm:2:{NAMESPACE/CACHE/SECRET}:head      hash: claim, gen, epoch, run, seq, link, fence, bytes
                                      :log       stream of sealed messages, ids EPOCH-SEQ
                                      :nodes     hash: node -> its last sealed announcement
                                      :beats     sorted set: node -> when it was heard last, in ms of the engine's clock
                                      :GEN:values, :GEN:pieces     hashes: entries, and the pieces of large ones
                                      :GEN:lease:KEYID             hash: token, fence, proof, wanted; expires
                                      :GEN:passing:NAME            string: a large outcome on its way; expires

All share one hash tag, so that they are on one node of a Cluster, and scripts may use them together. SECRET is a few
digits that follow from the secret: sidecars with another one, while it is being changed or by mistake, are another
cluster, and fight with nobody.

A *generation* is a stamp in one *epoch* of the engine. An epoch ends when the engine is flushed, restarted or replaced
by its replica: from then on it may have forgotten anything. Everything of another generation is not used, so what it
has forgotten or kept of an earlier epoch does not matter: hosts put in what they have, as if it were new. In
particular an engine that comes back with a copy of last week, after all hosts have lost their segments, has nothing to
offer.
"""

from __future__ import annotations

from hashlib import blake2b

from ..relay import Stamp

__all__ = ["VERSION", "Keys", "generation_of"]

#: Of what is kept under these names. Sidecars of different versions do not see each other.
VERSION = 2


def generation_of(stamp: Stamp, epoch: int, run: str) -> str:
    """Return the name of this stamp in that epoch."""
    digest = blake2b(digest_size=16, person=b"coopshm engine")
    for part in (b"%d" % stamp.counter, stamp.version, stamp.node.encode(), b"%d" % epoch, run.encode()):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


class Keys:
    """The names of one cache."""

    def __init__(self, namespace: str, cache: str, secret: str) -> None:
        # Braces in a namespace or cache are not allowed (config.check_name), so the tag is the whole of both.
        self._prefix = f"coopshm:{VERSION}:{{{namespace}/{cache}/{secret}}}:".encode()
        self.head = self._prefix + b"head"
        self.log = self._prefix + b"log"
        self.nodes = self._prefix + b"nodes"
        self.beats = self._prefix + b"beats"

    def values(self, generation: str) -> bytes:
        return self._prefix + generation.encode() + b":values"

    def pieces(self, generation: str) -> bytes:
        return self._prefix + generation.encode() + b":pieces"

    def lease(self, generation: str, key_id: bytes) -> bytes:
        return self._prefix + generation.encode() + b":lease:" + key_id

    def passing(self, generation: str, name: bytes) -> bytes:
        return self._prefix + generation.encode() + b":passing:" + name.hex().encode()
