"""Where a follower stands: the cursor, and the newest blocks of the branch it is on, in the caller's transaction."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.watching.models import ScannedBlock, Scanner
from keyserver.watching.ports import BlockRef

#: Blocks remembered for finding a fork. A deeper reorganisation stops the scanner and calls an operator.
REMEMBERED = 2_000


class LostRace(Exception):
    """Somebody else changed what this step stood on, most likely another follower; nothing of ours was written."""


async def create_cursor(session: AsyncSession, blockchain_id: str, start: BlockRef, *, now: datetime) -> None:
    """LostRace when there is one already."""
    values = {"blockchain_id": blockchain_id, "height": start.height, "block_hash": start.hash, "moved_at": now}
    created = insert(Scanner).values(values).on_conflict_do_nothing().returning(Scanner.blockchain_id)
    if await session.scalar(created) is None:
        raise LostRace
    await remember(session, blockchain_id, [start])


async def move_cursor(
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


async def note_hidden(session: AsyncSession, blockchain_id: str, height: int) -> None:
    """The block at this height may hold coin it does not show: balances are to be compared up to there."""
    noted = update(Scanner).where(Scanner.blockchain_id == blockchain_id)
    await session.execute(noted.values(hidden_up_to=height))


async def note_compared(session: AsyncSession, blockchain_id: str, height: int) -> None:
    """Balances were compared up to this height: what blocks hide up to there is found."""
    found = update(Scanner).where(Scanner.blockchain_id == blockchain_id, Scanner.hidden_up_to <= height)
    await session.execute(found.values(hidden_up_to=None))


async def check_cursor(session: AsyncSession, blockchain_id: str, expected: BlockRef) -> None:
    """LostRace when the cursor is elsewhere: what was read in this transaction before may be another branch's."""
    query = select(Scanner.height, Scanner.block_hash).where(Scanner.blockchain_id == blockchain_id)
    height, block_hash = (await session.execute(query)).one()
    if BlockRef(height, block_hash) != expected:
        raise LostRace


async def hold_cursor(session: AsyncSession, blockchain_id: str) -> BlockRef:
    """Where the follower stands, and stays until this transaction ends."""
    query = select(Scanner.height, Scanner.block_hash).where(Scanner.blockchain_id == blockchain_id)
    height, block_hash = (await session.execute(query.with_for_update())).one()
    return BlockRef(height, block_hash)


async def remember(session: AsyncSession, blockchain_id: str, blocks: Sequence[BlockRef]) -> None:
    """Adds blocks on top, and forgets those that are too old; never the first, where following started."""
    rows = [{"blockchain_id": blockchain_id, "height": block.height, "block_hash": block.hash} for block in blocks]
    await session.execute(insert(ScannedBlock), rows)
    first = select(func.min(ScannedBlock.height)).where(ScannedBlock.blockchain_id == blockchain_id).scalar_subquery()
    old = delete(ScannedBlock).where(
        ScannedBlock.blockchain_id == blockchain_id,
        ScannedBlock.height <= blocks[-1].height - REMEMBERED,
        ScannedBlock.height > first,
    )
    await session.execute(old, execution_options={"synchronize_session": False})


async def forget(session: AsyncSession, blockchain_id: str, *, above: int) -> None:
    gone = delete(ScannedBlock).where(ScannedBlock.blockchain_id == blockchain_id, ScannedBlock.height > above)
    await session.execute(gone, execution_options={"synchronize_session": False})


async def remembered(session: AsyncSession, blockchain_id: str, *, below: int) -> list[BlockRef]:
    """Blocks below a height, the newest first; the last is where following started, with a gap above when forgotten."""
    query = (
        select(ScannedBlock.height, ScannedBlock.block_hash)
        .where(ScannedBlock.blockchain_id == blockchain_id, ScannedBlock.height < below)
        .order_by(ScannedBlock.height.desc())
    )
    return [BlockRef(height, block_hash) for height, block_hash in await session.execute(query)]
