"""All nodes of a target as one source, with the database for who they are and how they are."""

from collections import Counter
from collections.abc import Callable
from functools import partial

from keyserver.kit.clock import Clock
from keyserver.kit.db import Database
from keyserver.watching.failover import Failover
from keyserver.watching.identity import pin_identity
from keyserver.watching.nodes import Candidate, NodeHealth, NodeState
from keyserver.watching.ports import ChainSource, Node
from keyserver.watching.reports import report_nodes
from keyserver.watching.targets import NodeAddress, Target, unreadable_nodes


def several_nodes(
    target: Target,
    make: Callable[[NodeAddress], ChainSource],
    *,
    database: Database,
    clock: Clock,
    reporting: bool,
) -> Failover:
    """With `reporting` the nodes' health is written down for operators: the follower's to do, and nobody else's."""

    async def accept(node: Node) -> None:
        async with database.transaction() as session:
            await pin_identity(session, target.blockchain_id, node)

    async def note(health: list[NodeHealth]) -> None:
        if not reporting:
            return
        async with database.transaction() as session:
            await report_nodes(session, target.blockchain_id, [*health, *_unreadable(target, clock)])

    names = _names(target.nodes)
    candidates = [Candidate(name, partial(make, node)) for name, node in zip(names, target.nodes, strict=True)]
    return Failover(candidates, accept=accept, note=note, clock=clock)


def _names(nodes: tuple[NodeAddress, ...]) -> list[str]:
    """Host and port of each, numbered where two differ in what may not be shown."""
    seen: Counter[str] = Counter()
    names = []
    for node in nodes:
        seen[node.name] += 1
        names.append(node.name if seen[node.name] == 1 else f"{node.name} ({seen[node.name]})")
    return names


def _unreadable(target: Target, clock: Clock) -> list[NodeHealth]:
    if not target.unreadable:
        return []
    return [NodeHealth(", ".join(target.unreadable), NodeState.UNREADABLE, unreadable_nodes(target), clock())]
