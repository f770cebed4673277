"""One chain as its nodes show it: they lag, fail, stay on an old branch, trace internal calls or do not."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.builders import ManualClock
from tests.watching.accounts_in_memory import AccountsInMemory
from tests.watching.chain_in_memory import transfer

from keyserver.kit.db import Database
from keyserver.watching.failover import Failover
from keyserver.watching.identity import pin_identity
from keyserver.watching.nodes import Candidate, NodeHealth
from keyserver.watching.ports import Node, NodeUnavailable

DOWN = NodeUnavailable("it is down")


@dataclass
class Views:
    """`truth` is the chain itself, `nodes` show it; `seconds` is a monotonic clock to turn by hand.

    A node in `stuck` stays where it is: on a branch that may be an old one. `stranger` is a node of another chain,
    which pays everybody.
    """

    truth: AccountsInMemory
    blockchain_id: str
    nodes: list[AccountsInMemory] = field(init=False)
    stranger: AccountsInMemory = field(init=False)
    stuck: set[int] = field(default_factory=set)
    seconds: float = 1_000.0

    def __post_init__(self) -> None:
        self.truth.has_mempool = True
        self.nodes = [self._view() for _ in range(2)]
        self.stranger = AccountsInMemory("another chain", self.truth.started_at, traces=True)
        self.spread()

    def _view(self) -> AccountsInMemory:
        truth = self.truth
        return AccountsInMemory(
            started_at=truth.started_at,
            has_mempool=True,
            concealed=truth.concealed,
            hidden=truth.hidden,
            spent=truth.spent,
        )

    def pay_elsewhere(self, match_keys: Sequence[str]) -> None:
        self.stranger.mine(*(transfer(key, 1_000) for key in match_keys), blocks=100)

    def trace(self, *which: bool) -> None:
        """Which nodes show internal calls; the truth does when all of them do."""
        for node, traces in zip(self.nodes, which, strict=True):
            node.traces = traces
        self.truth.traces = all(which)

    def spread(self) -> None:
        """What happened is told to the nodes."""
        for number, node in enumerate(self.nodes):
            if number not in self.stuck:
                node.branch = list(self.truth.branch)
                node.waiting = list(self.truth.waiting)
                node.final = dict(self.truth.final)

    def heal(self) -> None:
        """Every node answers, and shows the best branch."""
        self.stuck.clear()
        self.spread()
        for node in (self.truth, *self.nodes):
            node.failures.clear()
            node.lag = 0
        self.seconds += 1_000

    def source(self, database: Database, clock: ManualClock) -> Failover:
        """All of them behind one port, as a follower has them."""

        async def accept(node: Node) -> None:
            async with database.transaction() as session:
                await pin_identity(session, self.blockchain_id, node)

        async def note(_: list[NodeHealth]) -> None: ...

        named = zip("abc", [*self.nodes, self.stranger], strict=True)
        candidates = [Candidate(name, lambda node=node: node) for name, node in named]  # type: ignore[misc]
        return Failover(candidates, accept=accept, note=note, clock=clock, monotonic=lambda: self.seconds)
