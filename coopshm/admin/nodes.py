"""cluster: where a cache stands, and what its sidecar knows of the other nodes. Takes no lock."""

from __future__ import annotations

import time

import click

from ..resets import NodeReset, standing
from . import segments
from .session import Session, json_option, name_argument, version_text
from .text import Cell, Table, age, count

__all__ = ["COMMANDS", "node_table"]

_STYLES = {"live": "good", "away": "bad", "failing": "bad", "behind": "warn"}


@click.command("cluster")
@name_argument
@json_option
@click.pass_obj
def _cluster(session: Session, name: str) -> None:
    """Show the other nodes of cache NAME's cluster.

    That is what this host's sidecar knows of them. A node is `live`; `behind`: it has not come to this host's last
    reset; `failing`: its on_reset callback raises, and is tried again; `absent`: it runs, and does not have the cache;
    `away`: it is not connected.
    """
    place = session.place(name)
    segment = segments.attach(place)
    now = standing(segment)
    document = {**place._asdict(), "version": segment.version()[0], **now.as_dict()}
    version = version_text(document["version"])
    if now.node is None:
        session.print(document, f"{place}: version {version}; in no cluster: it never had a sidecar")
        return
    by = now.last_reset_by
    maker = f"a host without a name ({by})" if by and by.startswith("#") else by
    made = f"reset {now.resets} of the cluster, made by {maker}" if by else "never reset"
    head = f"{place}: version {version}, {made}; here it is node {now.node}"
    sidecar = f"sidecar: process {now.sidecar}"
    if now.sidecar is None:
        session.print(document, head, "no sidecar runs: the cache is this host's alone")
    elif not now.nodes:
        session.print(document, head, f"{sidecar}; it knows of no other node")
    else:
        nodes = count(len(now.nodes), "node", "nodes")
        session.print(document, head, f"{sidecar}; {nodes}", node_table(now.nodes))


def node_table(nodes: tuple[NodeReset, ...]) -> Table:
    rows = [
        [
            n.name,
            Cell(n.state, _STYLES.get(n.state, "")),
            "yes" if n.applied else Cell("no", "warn"),
            age(time.time() - n.since),
        ]
        for n in nodes
    ]
    return Table(["NODE", "STATE", "HAS OUR LAST RESET", "FOR"], rows, "lllr")


COMMANDS = (_cluster,)
