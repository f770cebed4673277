"""Following one blockchain over the port, whatever its family.

A block is applied only on top of the block we applied last: the cursor moves by compare-and-swap in the transaction of
the block's effects, so that two followers can race and neither can apply a block twice. A block that does not fit is a
fork: what we applied above the last common block is un-confirmed, then the new branch is followed. A block that fails
is tried again, for as long as it takes, and never stepped over.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.addresses.owners import ours_among
from keyserver.chains.models import Blockchain
from keyserver.charges import settlement
from keyserver.charges.crediting import Market
from keyserver.charges.recording import Inclusion
from keyserver.kit import metrics
from keyserver.kit.clock import Clock
from keyserver.kit.db import Database
from keyserver.watching import cursor as cursors
from keyserver.watching.accounts import take_back_checks
from keyserver.watching.arrivals import arrivals_of, registered_contracts
from keyserver.watching.balances import compare_balances
from keyserver.watching.cursor import LostRace
from keyserver.watching.finality import FinalHeight, check_finality
from keyserver.watching.identity import pin_identity
from keyserver.watching.models import ScannedBlock, Scanner
from keyserver.watching.pace import Pace
from keyserver.watching.ports import (
    Block,
    BlockNotFound,
    BlockRef,
    ChainSource,
    SourceError,
)
from keyserver.watching.reports import report
from keyserver.watching.start import start_block

#: While catching up, so many blocks are fetched side by side and applied in one transaction, fewer when they are full:
#: memory is bounded by the transfers they hold together.
MOST_AHEAD = 16
TRANSFERS_AHEAD = 8_000
_log = structlog.get_logger("keyserver.scanner")


class ForkTooDeep(Exception):
    """The node's branch has nothing in common with the blocks we remember."""


class BranchUnsettled(SourceError):
    """The node names a tip, but does not give the next block on the way there: it changes its branch, or lags."""


@dataclass(frozen=True, slots=True)
class Progress:
    """`behind`: how many blocks were left up to `tip` when the step ended."""

    height: int
    behind: int
    tip: BlockRef


class Follower:
    """Follows one blockchain. Holds nothing that a restart would lose, but what it looked at last."""

    def __init__(
        self,
        database: Database,
        blockchain_id: str,
        source: ChainSource,
        *,
        market: Market,
        clock: Clock,
        told: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._blockchain_id = blockchain_id
        self._source = source
        self._market = market
        self._clock = clock
        self._told = told
        self._identified = False
        self._ahead = 1
        self._pace = Pace()
        self._final = FinalHeight()
        #: Where balances were compared last: with one cursor, once is enough.
        self._compared_at: BlockRef | None = None
        #: None: nobody knows what waited when payments were last seen there, so that any answer is news.
        self._looked_at: frozenset[str] | None = None

    async def step(self, *, most: int = 100) -> Progress:
        """Applies up to `most` blocks, and looks at the mempool once there are none left.

        Raises LostRace, SourceError, ForkTooDeep, or what the database raises; the step can be tried again.
        """
        try:
            progress = await self._step(most)
        except LostRace:
            raise
        except Exception:
            self._identified = False  # what answers next may be another node behind the same URL
            self._ahead = 1  # whatever is wrong with a block holds up none before it
            raise
        self._pace.note(progress.height, at=self._clock())
        return progress

    async def _step(self, most: int) -> Progress:
        blockchain, begun, hides = await self._begin()
        await self._final.ask(self._source, blockchain)
        tip = await self._source.tip()
        await self._note_tip(tip)
        cursor = await self._follow_fork(blockchain, begun, tip)
        contracts = await self._contracts()
        last = min(tip.height, cursor.height + most)
        while cursor.height < last:
            blocks = await self._fetch(cursor, min(self._ahead, last - cursor.height), contracts)
            if not blocks and cursor == begun:
                raise BranchUnsettled(f"the node's tip is {tip.height}, but it gives no block after {cursor.height}")
            if not blocks:
                break  # the branch changed under us: the next step sees where it went
            cursor = await self._apply(blockchain, cursor, blocks, contracts)
            hides |= not all(block.shows_internal_calls for block in blocks)
        if hides and cursor != self._compared_at:
            await self._compare_balances(blockchain, cursor)
        if cursor.height >= tip.height:
            if await self._final.settle(self._database, blockchain, cursor, market=self._market, clock=self._clock):
                self._told()
            while await self._look_at_mempool(blockchain, cursor):
                pass
            self._final.require(blockchain)
        return Progress(cursor.height, max(0, tip.height - cursor.height), tip)

    # --- start --------------------------------------------------------------------------------------------------

    async def _begin(self) -> tuple[Blockchain, BlockRef, bool]:
        """The cursor, and whether blocks up to there may hold coin that is still to be found by balances."""
        async with self._database.transaction() as session:
            blockchain = await session.get_one(Blockchain, self._blockchain_id)
            scanner = await session.get(Scanner, self._blockchain_id)
        if not self._identified:
            await self._identify(blockchain)
            self._identified = True
        if scanner is not None:
            return blockchain, BlockRef(scanner.height, scanner.block_hash), scanner.hidden_up_to is not None
        return blockchain, await self._start(blockchain), False

    async def _identify(self, blockchain: Blockchain) -> None:
        """Pins who answers at first contact; WrongNode when it is somebody else from then on."""
        node = await self._source.identify()
        async with self._database.transaction() as session:
            await report(session, blockchain.id, capabilities=node.capabilities)
            await pin_identity(session, blockchain.id, node)

    async def _start(self, blockchain: Blockchain) -> BlockRef:
        start = await start_block(self._source, blockchain)
        async with self._database.transaction() as session:
            await cursors.create_cursor(session, blockchain.id, start, now=self._clock())
        _log.info("scanner_started", chain=blockchain.chain, network=blockchain.network, height=start.height)
        return start

    # --- forks --------------------------------------------------------------------------------------------------

    async def _follow_fork(self, blockchain: Blockchain, cursor: BlockRef, tip: BlockRef) -> BlockRef:
        """Our cursor when the node's branch has it; else the last block in common, with all above it un-confirmed.

        A node that only lags behind us, on our own branch, is no fork.
        """
        height = min(cursor.height, tip.height)
        try:
            theirs = tip.hash if tip.height == height else await self._source.block_hash(height)
        except BlockNotFound:
            return cursor  # the branch is changing under us: the next step sees where it goes
        ours = await self._hash_at(blockchain, height, cursor)
        if ours is None or ours == theirs:  # None: a node so far behind that we have forgotten that block
            return cursor
        await self._identify(blockchain)  # nothing is taken back on the word of another chain's node
        common = await self._common(blockchain, cursor, below=height)
        if common is not None:
            await self._roll_back(blockchain, cursor, common, above=common.height)
            return common
        start = await start_block(self._source, blockchain)
        await self._roll_back(blockchain, cursor, start, above=-1)
        return start

    async def _hash_at(self, blockchain: Blockchain, height: int, cursor: BlockRef) -> str | None:
        if height == cursor.height:
            return cursor.hash
        async with self._database.transaction() as session:
            block = await session.get(ScannedBlock, (blockchain.id, height))
            return None if block is None else block.block_hash

    async def _common(self, blockchain: Blockchain, cursor: BlockRef, *, below: int) -> BlockRef | None:
        """The newest block below this height that the node's branch has too; None when it lacks even our first."""
        async with self._database.transaction() as session:
            remembered = await cursors.remembered(session, blockchain.id, below=below)
            await cursors.check_cursor(session, blockchain.id, cursor)  # another may have rolled back just now
        for height, block in zip(range(below - 1, -1, -1), remembered, strict=False):
            if block.height != height:
                raise ForkTooDeep(f"the node's branch forks off below height {height + 1}, the last we remember")
            if await self._source.block_hash(height) == block.hash:
                return block
        return None

    async def _roll_back(self, blockchain: Blockchain, cursor: BlockRef, to: BlockRef, *, above: int) -> None:
        now = self._clock()
        async with self._database.transaction() as session:
            await cursors.move_cursor(session, blockchain.id, cursor, to, now=now)
            await cursors.forget(session, blockchain.id, above=above)
            if above < to.height:
                await cursors.remember(session, blockchain.id, [to])
            await take_back_checks(session, blockchain.id, to=to)
            payments = await settlement.orphan(session, blockchain, above_height=above, now=now)
        self._looked_at = None
        self._told()
        metrics.REORGS.labels(blockchain.chain, blockchain.network).inc()
        _log.warning(
            "fork_followed",
            chain=blockchain.chain,
            network=blockchain.network,
            from_height=cursor.height,
            to_height=to.height,
            payments=payments,
        )

    # --- blocks -------------------------------------------------------------------------------------------------

    async def _fetch(self, cursor: BlockRef, count: int, contracts: frozenset[str]) -> list[Block]:
        """The next blocks, each on top of the one before; none when the branch has just changed."""
        try:
            blocks = await self._source.blocks(cursor.height + 1, count, contracts=contracts)
        except BlockNotFound:
            return []
        return blocks if blocks[0].parent_hash == cursor.hash else []

    async def _contracts(self) -> frozenset[str]:
        async with self._database.transaction() as session:
            return await registered_contracts(session, self._blockchain_id)

    async def _apply(
        self, blockchain: Blockchain, cursor: BlockRef, blocks: Sequence[Block], contracts: frozenset[str]
    ) -> BlockRef:
        now = self._clock()
        async with self._database.transaction() as session:
            await cursors.move_cursor(session, blockchain.id, cursor, blocks[-1].ref, now=now)
            await check_finality(session, blockchain)
            if await registered_contracts(session, blockchain.id) != contracts:
                raise LostRace("a token was registered while the block was fetched: fetch it again")
            await cursors.remember(session, blockchain.id, [block.ref for block in blocks])
            if hidden := [block.height for block in blocks if not block.shows_internal_calls]:
                await cursors.note_hidden(session, blockchain.id, hidden[-1])
            await self._include(session, blockchain, blocks, now=now)
        self._told()
        self._final.applied(blockchain)
        metrics.BLOCKS_APPLIED.labels(blockchain.chain, blockchain.network).inc(len(blocks))
        fullest = max(len(block.transfers) for block in blocks)
        self._ahead = max(1, min(MOST_AHEAD, 2 * self._ahead, TRANSFERS_AHEAD // (fullest + 1)))
        return blocks[-1].ref

    async def _include(
        self, session: AsyncSession, blockchain: Blockchain, blocks: Sequence[Block], *, now: datetime
    ) -> None:
        """Settles block by block, past those that neither pay anybody of ours nor confirm what did: nearly all."""
        receivers = {transfer.address for block in blocks for transfer in block.transfers}
        ours = await ours_among(session, receivers)
        confirming = await settlement.is_confirming(session, blockchain)
        for block in blocks:
            arrivals = arrivals_of([transfer for transfer in block.transfers if transfer.address in ours])
            if arrivals or confirming:
                inclusion = Inclusion(block.height, block.hash, block.mined_at)
                await settlement.include(
                    session,
                    blockchain,
                    arrivals,
                    inclusion,
                    market=self._market,
                    now=now,
                    final_height=self._final.height,
                )
                confirming = True

    # --- beside the blocks --------------------------------------------------------------------------------------

    async def _compare_balances(self, blockchain: Blockchain, cursor: BlockRef) -> None:
        parts = (self._database, blockchain, self._source, cursor)
        try:
            if await compare_balances(*parts, final_height=self._final.height, market=self._market, clock=self._clock):
                self._told()
            self._compared_at = cursor
        except BlockNotFound:
            return  # the branch changed under us: the next step sees where it went, and compares again

    async def _look_at_mempool(self, blockchain: Blockchain, cursor: BlockRef) -> bool:
        """Looks at a part of what is new, and says whether there is more: at first it may be hundreds of thousands."""
        asked_at = self._clock()
        mempool = await self._source.mempool(known=self._looked_at or frozenset())
        if mempool is None or mempool.tip_hash != cursor.hash:
            return False  # what waits is only told from what was mined while the tip is the block we are at
        if mempool.transfers or mempool.tx_hashes != self._looked_at:
            now = self._clock()
            async with self._database.transaction() as session:
                await cursors.move_cursor(session, blockchain.id, cursor, cursor, now=None)
                await settlement.see(
                    session,
                    blockchain,
                    arrivals_of(mempool.transfers),
                    waiting=mempool.tx_hashes,
                    asked_at=asked_at,
                    now=now,
                )
            self._told()
        self._looked_at = mempool.tx_hashes - mempool.unread
        return bool(mempool.unread)

    async def _note_tip(self, tip: BlockRef) -> None:
        async with self._database.transaction() as session:
            await report(
                session,
                self._blockchain_id,
                tip_height=tip.height,
                tip_seen_at=self._clock(),
                blocks_per_second=self._pace.blocks_per_second,
                final_height=self._final.height,
            )
