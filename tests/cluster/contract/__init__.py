"""The relay contract: what any relay must do for any host. A test class for a relay inherits from `RelayContract`."""

from __future__ import annotations

from tests.cluster.contract.cluster import LONG, SHORT, SILENCE, Cluster, Fn, until
from tests.cluster.contract.joining import Joining
from tests.cluster.contract.loss import Loss
from tests.cluster.contract.once import Once
from tests.cluster.contract.resets import Resets

__all__ = ["LONG", "SHORT", "SILENCE", "Cluster", "Fn", "RelayContract", "until"]


class RelayContract(Once, Resets, Joining, Loss):
    """All of it."""
