"""Following one blockchain over the port, whatever its family.

A block is applied only on top of the block we applied last: the cursor moves by compare-and-swap in the transaction of
the block's effects, so that two followers can race and neither can apply a block twice. A block that does not fit is a
fork: what we applied above the last common block is un-confirmed, then the new branch is followed. A block that fails
is tried again, for as long as it takes, and never stepped over.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.chains.catalog import Family
from keyserver.chains.models import NATIVE, Blockchain, PaymentMethod
from keyserver.charges import settlement
from keyserver.charges.crediting import Market
from keyserver.kit import metrics
from keyserver.kit.clock import Clock
from keyserver.kit.db import Database
from keyserver.watching.models import ScannedBlock, Scanner
from keyserver.watching.ports import Block, BlockNotFound, BlockRef, ChainSource, Mempool, Transfer, WrongNode
from keyserver.watching.reports import report

#: Blocks remembered for finding a fork. A deeper reorganisation stops the scanner and calls an operator.
REMEMBERED = 2_000
#: How far a block's time may lie before the true time: a chain's own rule for UTXO chains, seconds elsewhere.
_CLOCK_SLACK = {Family.UTXO: timedelta(hours=2)}
_log = structlog.get_logger("keyserver.scanner")


class LostRace(Exception):
    """Somebody else changed what this step stood on, most likely another follower; nothing of ours was written."""


class ForkTooDeep(Exception):
    """The node's branch has nothing in common with the blocks we remember."""


@dataclass(frozen=True, slots=True)
class Progress:
    """`behind`: how many blocks were left when the step ended."""

    height: int
    behind: int


class Follower:
    """Follows one blockchain. Holds nothing that a restart would lose, but which mempool transactions it looked at."""

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
        #: None: nobody knows what waited when payments were last seen there, so that any answer is news.
        self._looked_at: frozenset[str] | None = None

    async def step(self, *, most: int = 100) -> Progress:
        """Applies up to `most` blocks, and looks at the mempool once there are none left."""
        blockchain, cursor = await self._begin()
        tip = await self._source.tip()
        await self._note_tip(tip)
        cursor = await self._follow_fork(blockchain, cursor, tip)
        contracts = await self._contracts()
        for _ in range(most):
            if cursor.height >= tip.height:
                await self._look_at_mempool(blockchain, cursor)
                break
            block = await self._fetch(cursor, contracts)
            if block is None:
                break  # the branch changed under us: the next step sees where it went
            await self._apply(blockchain, cursor, block, contracts)
            cursor = block.ref
        return Progress(cursor.height, max(0, tip.height - cursor.height))

    # --- start --------------------------------------------------------------------------------------------------

    async def _begin(self) -> tuple[Blockchain, BlockRef]:
        async with self._database.transaction() as session:
            blockchain = await session.get_one(Blockchain, self._blockchain_id)
            scanner = await session.get(Scanner, self._blockchain_id)
        if not self._identified:
            await self._identify(blockchain)
            self._identified = True
        if scanner is not None:
            return blockchain, BlockRef(scanner.height, scanner.block_hash)
        return blockchain, await self._start(blockchain)

    async def _identify(self, blockchain: Blockchain) -> None:
        node = await self._source.identify()
        async with self._database.transaction() as session:
            await report(session, blockchain.id, capabilities=node.capabilities)
            pinned = await session.scalar(
                update(Blockchain)
                .where(Blockchain.id == blockchain.id, Blockchain.node_identity.is_(None))
                .values(node_identity=node.identity)
                .returning(Blockchain.node_identity)
            )
        known = pinned or blockchain.node_identity
        if known is not None and known != node.identity:
            raise WrongNode(f"the node is on chain {node.identity}, but {blockchain.id} was followed on {known} so far")

    async def _start(self, blockchain: Blockchain) -> BlockRef:
        """The block before the first that can hold a payment: nothing is paid before its address was handed out."""
        if blockchain.start_height is not None:
            height = max(0, blockchain.start_height - 1)
        else:
            slack = _CLOCK_SLACK.get(Family(blockchain.family), timedelta(minutes=1))
            height = await self._last_before(blockchain.created_at - slack)
        start = BlockRef(height, await self._source.block_hash(height))
        async with self._database.transaction() as session:
            values = {
                "blockchain_id": blockchain.id,
                "height": start.height,
                "block_hash": start.hash,
                "moved_at": self._clock(),
            }
            created = insert(Scanner).values(values).on_conflict_do_nothing().returning(Scanner.blockchain_id)
            if await session.scalar(created) is None:
                raise LostRace
            await _remember(session, blockchain.id, [start])
        _log.info("scanner_started", chain=blockchain.chain, network=blockchain.network, height=start.height)
        return start

    async def _last_before(self, instant: datetime) -> int:
        """Height of the last block mined before `instant`, by bisection; 0 when even the first is younger."""
        low, high = 0, (await self._source.tip()).height
        while low < high:
            middle = (low + high + 1) // 2
            if await self._source.mined_at(middle) < instant:
                low = middle
            else:
                high = middle - 1
        return low

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
        common = await self._common(blockchain, below=height)
        await self._roll_back(blockchain, cursor, common)
        return common

    async def _hash_at(self, blockchain: Blockchain, height: int, cursor: BlockRef) -> str | None:
        if height == cursor.height:
            return cursor.hash
        async with self._database.transaction() as session:
            block = await session.get(ScannedBlock, (blockchain.id, height))
            return None if block is None else block.block_hash

    async def _common(self, blockchain: Blockchain, *, below: int) -> BlockRef:
        async with self._database.transaction() as session:
            query = (
                select(ScannedBlock.height, ScannedBlock.block_hash)
                .where(ScannedBlock.blockchain_id == blockchain.id, ScannedBlock.height < below)
                .order_by(ScannedBlock.height.desc())
            )
            remembered = [BlockRef(height, block_hash) for height, block_hash in await session.execute(query)]
        for block in remembered:
            if await self._source.block_hash(block.height) == block.hash:
                return block
        raise ForkTooDeep(f"the node's branch forks off below height {remembered[-1].height if remembered else below}")

    async def _roll_back(self, blockchain: Blockchain, cursor: BlockRef, common: BlockRef) -> None:
        now = self._clock()
        async with self._database.transaction() as session:
            await _move_cursor(session, blockchain.id, cursor, common, now=now)
            forgotten = delete(ScannedBlock).where(
                ScannedBlock.blockchain_id == blockchain.id, ScannedBlock.height > common.height
            )
            await session.execute(forgotten)
            payments = await settlement.orphan(session, blockchain, above_height=common.height, now=now)
        self._looked_at = None
        self._told()
        metrics.REORGS.labels(blockchain.chain, blockchain.network).inc()
        _log.warning(
            "fork_followed",
            chain=blockchain.chain,
            network=blockchain.network,
            from_height=cursor.height,
            to_height=common.height,
            payments=payments,
        )

    # --- blocks -------------------------------------------------------------------------------------------------

    async def _fetch(self, cursor: BlockRef, contracts: frozenset[str]) -> Block | None:
        """The next block, when it is on top of ours; None when the branch has just changed."""
        try:
            block = await self._source.block(cursor.height + 1, contracts=contracts)
        except BlockNotFound:
            return None
        return block if block.parent_hash == cursor.hash else None

    async def _contracts(self) -> frozenset[str]:
        async with self._database.transaction() as session:
            return await _registered_contracts(session, self._blockchain_id)

    async def _apply(self, blockchain: Blockchain, cursor: BlockRef, block: Block, contracts: frozenset[str]) -> None:
        now = self._clock()
        async with self._database.transaction() as session:
            await _move_cursor(session, blockchain.id, cursor, block.ref, now=now)
            if await _registered_contracts(session, blockchain.id) != contracts:
                raise LostRace("a token was registered while the block was fetched: fetch it again")
            await _remember(session, blockchain.id, [block.ref])
            await settlement.include(
                session,
                blockchain,
                _arrivals(block.transfers),
                settlement.Inclusion(block.height, block.hash, block.mined_at),
                market=self._market,
                now=now,
            )
        self._told()
        metrics.BLOCKS_APPLIED.labels(blockchain.chain, blockchain.network).inc()

    async def _look_at_mempool(self, blockchain: Blockchain, cursor: BlockRef) -> None:
        mempool = await self._source.mempool(known=self._looked_at or frozenset())
        if mempool is None or mempool.tip_hash != cursor.hash:
            return  # what waits is only told from what was mined while the tip is the block we are at
        if await self._mempool_matters(mempool):
            now = self._clock()
            async with self._database.transaction() as session:
                await _move_cursor(session, blockchain.id, cursor, cursor, now=None)
                await settlement.see(
                    session, blockchain, _arrivals(mempool.transfers), waiting=mempool.tx_hashes, now=now
                )
            self._told()
        self._looked_at = mempool.tx_hashes

    async def _mempool_matters(self, mempool: Mempool) -> bool:
        return bool(mempool.transfers) or mempool.tx_hashes != self._looked_at

    async def _note_tip(self, tip: BlockRef) -> None:
        async with self._database.transaction() as session:
            await report(session, self._blockchain_id, tip_height=tip.height, tip_seen_at=self._clock())


def _arrivals(transfers: Sequence[Transfer]) -> list[settlement.Arrival]:
    return [
        settlement.Arrival(each.tx_hash, each.output_index, each.asset, each.address, each.amount_units)
        for each in transfers
    ]


async def _registered_contracts(session: AsyncSession, blockchain_id: str) -> frozenset[str]:
    query = select(PaymentMethod.asset).where(
        PaymentMethod.blockchain_id == blockchain_id, PaymentMethod.asset != NATIVE
    )
    return frozenset(await session.scalars(query))


async def _move_cursor(
    session: AsyncSession, blockchain_id: str, before: BlockRef, after: BlockRef, *, now: datetime | None
) -> None:
    """The first statement of every transaction that applies something: other followers wait for it, then lose."""
    values: dict[str, object] = {"height": after.height, "block_hash": after.hash}
    if now is not None:
        values["moved_at"] = now
    moved = (
        update(Scanner)
        .where(
            Scanner.blockchain_id == blockchain_id,
            Scanner.height == before.height,
            Scanner.block_hash == before.hash,
        )
        .values(values)
        .returning(Scanner.height)
    )
    if await session.scalar(moved) is None:
        raise LostRace


async def _remember(session: AsyncSession, blockchain_id: str, blocks: Sequence[BlockRef]) -> None:
    for block in blocks:
        values = {"blockchain_id": blockchain_id, "height": block.height, "block_hash": block.hash}
        await session.execute(insert(ScannedBlock).values(values))
        old = delete(ScannedBlock).where(
            ScannedBlock.blockchain_id == blockchain_id, ScannedBlock.height <= block.height - REMEMBERED
        )
        await session.execute(old)
