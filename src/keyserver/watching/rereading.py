"""Blocks of the branch we follow, read again: never those of another one."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.kit.db import Database
from keyserver.watching.models import ScannedBlock
from keyserver.watching.ports import Block, BlockNotFound, BlockRef, ChainSource
from keyserver.watching.scanner import MOST_AHEAD, TRANSFERS_AHEAD, BranchUnsettled

#: Blocks above the one by which a node proves its branch: more than a fork is deep, fewer than are remembered.
_ANCHOR_DEPTH = 100


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive blocks, all below or at `anchor`, a block of ours that the node's branch had when they were read."""

    blocks: Sequence[Block]
    anchor: BlockRef
    contracts: frozenset[str]


class Rereader:
    """Reads blocks of one node; as many side by side as are not too full."""

    def __init__(self, database: Database, source: ChainSource, blockchain_id: str) -> None:
        self._database = database
        self._source = source
        self._blockchain_id = blockchain_id
        self._ahead = 1

    async def read(self, first: int, last: int, *, contracts: frozenset[str]) -> Stretch:
        """Some blocks from `first` on, at most to `last`, which we have followed already.

        BranchUnsettled when the node is, or may have been, on another branch than ours: try again.
        """
        try:
            blocks = await self._source.blocks(first, min(self._ahead, last - first + 1), contracts=contracts)
            anchor = await self._anchor(blocks[-1].height)
            await self._prove(blocks[-1].ref, anchor)
        except BlockNotFound as error:
            self._ahead = 1
            raise BranchUnsettled(f"the node does not give block {first} of the branch we follow: {error}") from error
        except Exception:
            self._ahead = 1  # whatever is wrong with a block holds up none before it
            raise
        fullest = max(len(block.transfers) for block in blocks)
        self._ahead = max(1, min(MOST_AHEAD, 2 * self._ahead, TRANSFERS_AHEAD // (fullest + 1)))
        return Stretch(blocks, anchor, contracts)

    async def _anchor(self, height: int) -> BlockRef:
        """A remembered block at this height or above, not too near to the tip."""
        query = (
            select(ScannedBlock.height, ScannedBlock.block_hash)
            .where(ScannedBlock.blockchain_id == self._blockchain_id, ScannedBlock.height >= height)
            .order_by(ScannedBlock.height.desc())
            .limit(_ANCHOR_DEPTH)
        )
        async with self._database.transaction() as session:
            remembered = (await session.execute(query)).all()
        if not remembered:
            raise BranchUnsettled(f"block {height} was rolled back while it was read again")
        return BlockRef(*remembered[-1])

    async def _prove(self, last: BlockRef, anchor: BlockRef) -> None:
        """The node's branch has our anchor, and still has the block read last: then this one is below that one."""
        for block in {last, anchor}:
            if await self._source.block_hash(block.height) != block.hash:
                raise BranchUnsettled(f"the node is on another branch than we are, at block {block.height}")


async def check_branch(session: AsyncSession, blockchain_id: str, stretch: Stretch) -> None:
    """BranchUnsettled unless these blocks are still ours in this transaction.

    A remembered block must be the very same; of older ones the anchor speaks, which no fork that we follow reaches.
    """
    read = {block.height: block.hash for block in stretch.blocks} | {stretch.anchor.height: stretch.anchor.hash}
    query = select(ScannedBlock.height, ScannedBlock.block_hash).where(
        ScannedBlock.blockchain_id == blockchain_id, ScannedBlock.height.in_(list(read))
    )
    for height, block_hash in await session.execute(query):
        if read[height] != block_hash:
            raise BranchUnsettled(f"block {height} was read from another branch than we follow")
