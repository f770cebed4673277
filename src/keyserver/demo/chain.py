"""The simulated chain: an adapter of the same port as the real ones, over tables a user can write to by `/demo/*`."""

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from sqlalchemy import ColumnElement, Select, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.chains.models import NATIVE
from keyserver.demo.models import DemoBlock, DemoTransfer
from keyserver.kit.db import Database
from keyserver.watching.ports import Block, BlockNotFound, BlockRef, ChainSource, FinalityTag, Mempool, Node, Transfer

#: Never called; a payment method must have some URL.
SIMULATED_URL = "http://simulated.invalid"
#: Blocks that the newest final one is below the tip.
_BELOW_TIP = {FinalityTag.SAFE: 1, FinalityTag.FINALIZED: 2}


def _hash() -> str:
    return secrets.token_hex(32)


# --- what a user can make happen --------------------------------------------------------------------------------


async def create(session: AsyncSession, blockchain_id: str, *, now: datetime) -> None:
    """The chain's first block; nothing when there is one."""
    if await session.scalar(select(DemoBlock.block_hash).where(DemoBlock.blockchain_id == blockchain_id).limit(1)):
        return
    first = {"blockchain_id": blockchain_id, "height": 0, "block_hash": _hash(), "parent_hash": "", "mined_at": now}
    await session.execute(insert(DemoBlock).values({**first, "canonical": True}).on_conflict_do_nothing())


async def pay(session: AsyncSession, blockchain_id: str, *, asset: str, address: str, units: int) -> str:
    """A payment that waits for a block; returns its transaction hash."""
    transfer = DemoTransfer(
        blockchain_id=blockchain_id, tx_hash=_hash(), output_index=0, asset=asset, address=address, amount_units=units
    )
    session.add(transfer)
    await session.flush()
    return transfer.tx_hash


async def mine(session: AsyncSession, blockchain_id: str, *, blocks: int, now: datetime) -> int:
    """Blocks on top of the tip, the first with everything that waits; returns the new height."""
    added = await _extend(session, blockchain_id, await _locked_tip(session, blockchain_id), blocks=blocks, now=now)
    waiting = (DemoTransfer.blockchain_id == blockchain_id, DemoTransfer.block_hash.is_(None))
    await session.execute(update(DemoTransfer).where(*waiting).values(block_hash=added[0].block_hash))
    return added[-1].height


async def reorganise(session: AsyncSession, blockchain_id: str, *, depth: int, now: datetime) -> int:
    """Replaces the newest `depth` blocks by one more than that, all empty; what they held waits again."""
    tip = await _locked_tip(session, blockchain_id)
    common_height = max(0, tip.height - depth)
    orphaned = (
        update(DemoBlock)
        .where(DemoBlock.blockchain_id == blockchain_id, DemoBlock.canonical, DemoBlock.height > common_height)
        .values(canonical=False)
        .returning(DemoBlock.block_hash)
    )
    gone = list(await session.scalars(orphaned))
    held = (DemoTransfer.blockchain_id == blockchain_id, DemoTransfer.block_hash.in_(gone))
    await session.execute(update(DemoTransfer).where(*held).values(block_hash=None))
    common = await _locked_tip(session, blockchain_id)
    added = await _extend(session, blockchain_id, common, blocks=tip.height - common_height + 1, now=now)
    return added[-1].height


async def _extend(
    session: AsyncSession, blockchain_id: str, tip: DemoBlock, *, blocks: int, now: datetime
) -> list[DemoBlock]:
    """New empty blocks on top of this one."""
    added = []
    parent = tip.block_hash
    for height in range(tip.height + 1, tip.height + blocks + 1):
        block = DemoBlock(
            blockchain_id=blockchain_id,
            height=height,
            block_hash=_hash(),
            parent_hash=parent,
            mined_at=now,
            canonical=True,
        )
        added.append(block)
        parent = block.block_hash
    session.add_all(added)
    await session.flush()
    return added


async def _locked_tip(session: AsyncSession, blockchain_id: str) -> DemoBlock:
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(blockchain_id, 3))))
    return (await session.scalars(_canonical(blockchain_id).order_by(DemoBlock.height.desc()).limit(1))).one()


def _canonical(blockchain_id: str) -> Select[DemoBlock]:
    return select(DemoBlock).where(DemoBlock.blockchain_id == blockchain_id, DemoBlock.canonical)


# --- the port ---------------------------------------------------------------------------------------------------


class SimulatedChain(ChainSource):
    """A `ChainSource` over the simulated chain's tables."""

    def __init__(self, database: Database, blockchain_id: str) -> None:
        self._database = database
        self._blockchain_id = blockchain_id

    async def identify(self) -> Node:
        return Node(identity=f"simulated {self._blockchain_id}", capabilities={"node": "simulated, worthless"})

    async def tip(self) -> BlockRef:
        async with self._database.transaction() as session:
            query = _canonical(self._blockchain_id).order_by(DemoBlock.height.desc()).limit(1)
            block = (await session.scalars(query)).one()
            return BlockRef(block.height, block.block_hash)

    async def block_hash(self, height: int) -> str:
        return (await self._block_at(height)).block_hash

    async def mined_at(self, height: int) -> datetime:
        return (await self._block_at(height)).mined_at

    async def block(self, height: int, *, contracts: frozenset[str]) -> Block:
        async with self._snapshot() as session:
            block = await self._block_in(session, height)
            held = DemoTransfer.block_hash == block.block_hash
            rows = await session.scalars(self._held_transfers(held))
            transfers = _transfers(list(rows), contracts)
        return Block(height, block.block_hash, block.parent_hash, block.mined_at, transfers)

    async def final_height(self, tag: FinalityTag) -> int | None:
        return max(0, (await self.tip()).height - _BELOW_TIP[tag])

    async def mempool(self, *, known: frozenset[str]) -> Mempool | None:
        async with self._snapshot() as session:
            waiting = list(await session.scalars(self._held_transfers(DemoTransfer.block_hash.is_(None))))
            tip = _canonical(self._blockchain_id).order_by(DemoBlock.height.desc()).limit(1)
            tip_hash = (await session.scalars(tip)).one().block_hash
        fresh = [transfer for transfer in waiting if transfer.tx_hash not in known]
        return Mempool(tip_hash, frozenset(each.tx_hash for each in waiting), _transfers(fresh, None))

    def _held_transfers(self, where: ColumnElement[bool]) -> Select[DemoTransfer]:
        return (
            select(DemoTransfer)
            .where(DemoTransfer.blockchain_id == self._blockchain_id, where)
            .order_by(DemoTransfer.id)
        )

    async def close(self) -> None:
        return

    async def _block_at(self, height: int) -> DemoBlock:
        async with self._snapshot() as session:
            return await self._block_in(session, height)

    async def _block_in(self, session: AsyncSession, height: int) -> DemoBlock:
        block = await session.scalar(_canonical(self._blockchain_id).where(DemoBlock.height == height))
        if block is None:
            raise BlockNotFound(f"there is no block {height}")
        return block

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[AsyncSession]:
        """All that is read is of one instant: the chain may be reorganised between two statements."""
        async with self._database.transaction() as session:
            await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            yield session


def _transfers(rows: Sequence[DemoTransfer], contracts: frozenset[str] | None) -> list[Transfer]:
    wanted = None if contracts is None else contracts | {NATIVE}
    return [
        Transfer(each.tx_hash, each.output_index, each.asset, each.address, each.amount_units)
        for each in rows
        if wanted is None or each.asset in wanted
    ]
