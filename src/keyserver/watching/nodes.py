"""One of several nodes of a blockchain, and what is known of its health. Times are seconds of a monotonic clock."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from keyserver.watching.ports import ChainSource, NodeUnavailable, WrongNode

#: A node that asks for a longer pause, in seconds, is asked again all the same: payments wait.
LONGEST_WISH = 600.0


class NodeState(StrEnum):
    UNTRIED = "not tried yet"
    IN_USE = "in use"
    READY = "ready"
    LAGGING = "lagging"
    FAILING = "failing"
    WRONG = "wrong chain"
    UNREADABLE = "unreadable"


#: What a node is good for in these states: it serves, or could take over at once.
USABLE = frozenset({NodeState.IN_USE, NodeState.READY})


class NodeLags(NodeUnavailable):
    """It answers, but is behind another node of the same blockchain."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds, and `blocks`. A node that failed is left alone for `after_failure`, one on another chain for
    `after_wrong_chain`; those that wait are looked at every `between_looks`. One in use that has a substitute must say
    who and where it is within `answer`. It lags when it does not reach for `behind` what another showed and that one is
    more than `blocks` ahead, or does not reach it for `behind_at_all`.
    """

    after_failure: float = 15.0
    after_wrong_chain: float = 300.0
    between_looks: float = 30.0
    answer: float = 15.0
    behind: float = 10.0
    behind_at_all: float = 120.0
    blocks: int = 3


@dataclass(frozen=True, slots=True)
class NodeHealth:
    """`node` is host and port, `last_error` one sentence."""

    node: str
    state: NodeState
    last_error: str | None = None
    last_error_at: datetime | None = None


class Candidate:
    """`name` is host and port; `make` may raise whatever keeps a source from being made."""

    def __init__(self, name: str, make: Callable[[], ChainSource]) -> None:
        self.name = name
        self.state = NodeState.UNTRIED
        self.last_error: str | None = None
        #: Never asked before this: the node's own wish.
        self.not_before = 0.0
        #: Asked before this only when there is no better one.
        self.left_alone_until = 0.0
        self._last_error_at: datetime | None = None
        self._make = make
        self._source: ChainSource | None = None
        self._shown = 0
        self._unreached: tuple[int, float] | None = None

    @property
    def source(self) -> ChainSource:
        if self._source is None:
            self._source = self._make()
        return self._source

    @property
    def health(self) -> NodeHealth:
        return NodeHealth(self.name, self.state, self.last_error, self._last_error_at)

    def is_free(self, now: float) -> bool:
        """Whether it may be asked, and nothing is wrong with it as far as we know."""
        return now >= max(self.not_before, self.left_alone_until)

    def failed(self, error: Exception, *, at: datetime, now: float, patience: Patience) -> None:
        self.last_error = str(error)[:500] or type(error).__name__
        self._last_error_at = at
        pause = patience.after_failure
        match error:
            case WrongNode():
                self.state, pause = NodeState.WRONG, patience.after_wrong_chain
            case NodeLags():
                self.state = NodeState.LAGGING
            case _:
                self.state = NodeState.FAILING
        self.left_alone_until = now + pause
        wish = error.retry_after if isinstance(error, NodeUnavailable) else None
        self.not_before = now + min(wish or 0.0, LONGEST_WISH)

    def showed(self, height: int, *, now: float) -> None:
        """A tip it answered with while another node was in use."""
        self.state = NodeState.READY
        self._shown = height
        if self._unreached is None:
            self._unreached = (height, now)

    def leads(self, height: int, *, now: float, patience: Patience) -> bool:
        """Whether a node whose tip is at this height lags behind what this one has shown."""
        if self._unreached is None or self._unreached[0] <= height:
            self._unreached = None
            return False
        waited = now - self._unreached[1]
        far = self._shown - height > patience.blocks
        return self.state is NodeState.READY and waited >= (patience.behind if far else patience.behind_at_all)

    def describe_lead(self, height: int) -> NodeLags:
        return NodeLags(f"its newest block is {height}, while {self.name} has shown {self._shown}")

    async def close(self) -> None:
        if self._source is not None:
            await self._source.close()
