"""A blockchain in memory, played by hand: mine, fork, wait in the mempool, replace, lag, fail. A fake at the port."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from keyserver.watching.ports import Block, BlockNotFound, BlockRef, ChainSource, FinalityTag, Mempool, Node, Transfer

_transactions = itertools.count(1)
_blocks = itertools.count(1)
GENESIS = "genesis"


def transfer(
    address: str, units: int, *, tx_hash: str | None = None, index: int = 0, asset: str = "native", least: int = 0
) -> Transfer:
    """`least`: confirmations it needs whatever was asked for."""
    return Transfer(tx_hash or f"tx{next(_transactions)}", index, asset, address, units, least)


@dataclass
class ChainInMemory(ChainSource):
    """`branch` is the best one. `failures` are raised, one by one, by the calls to come; `broken` heights always.

    `shown_at_once`: transactions of the mempool in one answer. Those in `concealed` are left out of what is told, as an
    adapter with a bug would do.
    """

    identity: str = "in memory"
    started_at: datetime = field(default_factory=lambda: datetime(2026, 3, 1, 12, 0, tzinfo=UTC))
    has_mempool: bool = True
    final: dict[FinalityTag, int] = field(default_factory=dict)
    branch: list[Block] = field(default_factory=list)
    waiting: list[Transfer] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    broken: dict[int, Exception] = field(default_factory=dict)
    concealed: set[str] = field(default_factory=set)
    lag: int = 0
    shown_at_once: int = 1_000
    fetched: list[int] = field(default_factory=list)
    identified: int = 0
    closed: bool = False

    def __post_init__(self) -> None:
        if not self.branch:
            self.branch.append(Block(0, GENESIS, "", self.started_at, ()))

    # --- what a test makes happen -----------------------------------------------------------------------------

    @property
    def height(self) -> int:
        return self.branch[-1].height

    def mine(self, *transfers: Transfer, at: datetime | None = None, blocks: int = 1) -> Block:
        """Blocks on top; the first holds these transfers, which no longer wait."""
        held: Sequence[Transfer] = transfers
        taken = {each.tx_hash for each in transfers}
        self.waiting = [each for each in self.waiting if each.tx_hash not in taken]
        for _ in range(blocks):
            parent = self.branch[-1]
            mined_at = at or parent.mined_at + timedelta(seconds=1)
            self.branch.append(Block(parent.height + 1, f"block{next(_blocks)}", parent.hash, mined_at, held))
            held = ()
        return self.branch[-1]

    def fork(self, depth: int) -> list[Transfer]:
        """Drops the newest blocks; returns what they held. What is mined next is a rival branch."""
        gone = self.branch[-depth:] if depth else []
        del self.branch[len(self.branch) - len(gone) :]
        return [each for block in gone for each in block.transfers]

    def wait(self, *transfers: Transfer) -> None:
        """Puts transfers into the mempool."""
        self.waiting.extend(transfers)

    def drop(self, tx_hash: str) -> None:
        """A transaction leaves the mempool, as one that was replaced does."""
        self.waiting = [each for each in self.waiting if each.tx_hash != tx_hash]

    # --- the port ---------------------------------------------------------------------------------------------

    async def identify(self) -> Node:
        self._fail()
        self.identified += 1
        return Node(self.identity, {"node": "in memory"})

    async def tip(self) -> BlockRef:
        self._fail()
        return self._shown()[-1].ref

    async def block_hash(self, height: int) -> str:
        return self._at(height).hash

    async def mined_at(self, height: int) -> datetime:
        return self._at(height).mined_at

    async def block(self, height: int, *, contracts: frozenset[str]) -> Block:
        found = self._at(height)
        self.fetched.append(height)
        if height in self.broken:
            raise self.broken[height]
        wanted = contracts | {"native"}
        held = [each for each in found.transfers if each.asset in wanted and each.tx_hash not in self.concealed]
        return Block(found.height, found.hash, found.parent_hash, found.mined_at, held)

    async def mempool(self, *, known: frozenset[str]) -> Mempool | None:
        self._fail()
        if not self.has_mempool:
            return None
        told = [each for each in self.waiting if each.tx_hash not in self.concealed]
        present = {each.tx_hash: None for each in told}
        fresh = [tx_hash for tx_hash in present if tx_hash not in known]
        looked_at, unread = fresh[: self.shown_at_once], fresh[self.shown_at_once :]
        shown = [each for each in told if each.tx_hash in looked_at]
        return Mempool(self._shown()[-1].hash, frozenset(present), shown, frozenset(unread))

    async def final_height(self, tag: FinalityTag) -> int | None:
        self._fail()
        return self.final.get(tag)

    async def close(self) -> None:
        self.closed = True

    def _shown(self) -> list[Block]:
        return self.branch[: len(self.branch) - self.lag] if self.lag else self.branch

    def _at(self, height: int) -> Block:
        self._fail()
        if not 0 <= height < len(self._shown()):
            raise BlockNotFound(f"there is no block {height}")
        return self.branch[height]

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)
