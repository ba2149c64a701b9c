"""What the parts of one cache's relay share."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from ..relay import Host, Stamp, Standing
from .address import Address, Tls
from .connection import Link
from .entries import Codec
from .keys import Keys
from .sayings import Message, encode

__all__ = ["COUNTERS", "Context", "Current", "EngineConfig"]

#: What status() tells.
COUNTERS = (
    "entries_received", "entries_known", "entries_stale", "entries_without_room",
    "entries_sent", "entries_refused", "entries_not_kept", "entries_too_large", "bytes_sent",
    "tampered", "gaps", "epochs", "losses",
)  # fmt: skip


@dataclass(frozen=True)
class EngineConfig:
    """What a node is told of the engine. Times in seconds.

    Attributes:
        name: this node's.
        namespace: caches of other namespaces are not seen.
        address: where the engine is (address.parse).
        secret: at least 32 bytes that all nodes share (settings.secrets).
        others: secrets that it knows besides, while that one is being changed (keyring.py).
        tls: files for an address with TLS.
        replicate: "all": each host takes every entry; "on_demand": it takes what its workers miss.
        lease_timeout: that a worker waits for the cluster's answer before it computes.
        lease_ttl: after which the lease of a sidecar that is gone ends. Renewed three times in that time.
        bytes_max: that a cache keeps in the engine in one generation; what is beyond stays on its host.
        entry_bytes_max: of a payload; larger ones stay on their host.
        compress_above: payloads of more bytes are compressed; None: none. Takes `coopshm[zstd]` on all hosts.
        timeout: for an answer of the engine, before it is taken to be lost; None: lease_timeout, at most 1.
        bulk_timeout: the same for what is large.
        heartbeat: between signs of life.
        away_after: without one, after which a node is away.
        messages_max: that a cache's log keeps; who is further behind takes all anew.
    """

    name: str
    namespace: str
    address: Address
    secret: bytes = field(repr=False)
    others: tuple[bytes, ...] = field(default=(), repr=False)
    tls: Tls = field(default_factory=Tls)
    replicate: str = "on_demand"
    lease_timeout: float = 1.0
    lease_ttl: float = 10.0
    bytes_max: int = 1 << 30
    entry_bytes_max: int = 64 * 1024 * 1024
    compress_above: int | None = None
    timeout: float | None = None
    bulk_timeout: float = 10.0
    heartbeat: float = 1.0
    away_after: float = 5.0
    messages_max: int = 16_384

    @property
    def answer_timeout(self) -> float:
        return self.timeout if self.timeout is not None else min(self.lease_timeout, 1.0)


class Current(NamedTuple):
    """Where this host and the engine stand together. Whatever is done for one is void when there is another."""

    standing: Standing
    generation: str

    @property
    def stamp(self) -> Stamp:
        return self.standing.stamp


@dataclass
class Context:
    """Of one cache. `keys`, `codec`, `knows` and `instance` change with the secret, the first two while the
    engine is lost."""

    name: str
    host: Host
    config: EngineConfig
    link: Link
    keys: Keys
    codec: Codec
    instance: bytes  #: of this process as it is there, random
    counters: Counter[str]
    knows: tuple[str, ...]  #: secrets, the one to use first

    def sealed(self, message: Message) -> bytes:
        """For the log."""
        return self.codec.seal.close((b"message", self.name.encode()), encode(message))
