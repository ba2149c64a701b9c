"""Whether a lease in the engine is held by a node: who can only write to the engine must not keep anybody waiting.

Who has a lease puts a sealed proof beside it, and another one with each renewal, each with a higher serial number. Who
waits looks at it whenever it asks again: it goes on waiting as long as there are proofs, of that key in that
generation, which it has not seen, at least one in the time that the lease lasts. A lease without one is nobody's, and
so is one that lasts without another: the waiting worker then computes. Old proofs can be put back, but each of them
keeps each waiter once only, and there are no more than nodes have made for that key since the last reset.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from .seal import Seal, TamperedError

__all__ = ["Watch", "proof_of"]

_BODY = struct.Struct(">QQ")  # serial; milliseconds that the lease lasts

#: Holders of one key that a waiter remembers. Beyond, it does not wait any more.
_TOKENS_MAX = 1024


def _purpose(cache: str, generation: str, key_id: bytes, token: bytes) -> Sequence[bytes]:
    return (b"lease", cache.encode(), generation.encode(), key_id, token)


def proof_of(
    seal: Seal, cache: str, generation: str, key_id: bytes, token: bytes, serial: int, milliseconds: int
) -> bytes:
    """That the node with this token holds that lease, renewed so many times."""
    return seal.close(_purpose(cache, generation, key_id, token), _BODY.pack(serial, milliseconds))


class Watch:
    """What one waiter has seen of those who hold the lease on a key, under one stamp."""

    def __init__(self, grace: float) -> None:
        """`grace`: seconds that a proof may be late."""
        self._grace = grace
        self._serials: dict[bytes, int] = {}
        self._until = 0.0

    def left(
        self, seal: Seal, cache: str, generation: str, key_id: bytes, token: bytes, proof: bytes, now: float
    ) -> float:
        """Seconds for which what is found there is worth waiting; none if they are over.

        Raises:
            TamperedError: it is not held by a node.
        """
        body = seal.open(_purpose(cache, generation, key_id, token), proof)
        if len(body) != _BODY.size:
            raise TamperedError("not a proof")
        serial, milliseconds = _BODY.unpack(body)
        if serial > self._serials.get(token, -1) and (token in self._serials or len(self._serials) < _TOKENS_MAX):
            self._serials[token] = serial
            self._until = now + milliseconds / 1000 + self._grace
        return max(0.0, self._until - now)
