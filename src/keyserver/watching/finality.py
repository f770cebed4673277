"""What the chain itself calls final, where a blockchain's `finality` asks for it: `safe` and `finalized` blocks."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.chains.models import Blockchain, Finality
from keyserver.charges import settlement
from keyserver.charges.crediting import Market
from keyserver.charges.recording import Inclusion
from keyserver.kit.clock import Clock
from keyserver.kit.db import Database
from keyserver.watching import cursor as cursors
from keyserver.watching.cursor import LostRace
from keyserver.watching.ports import BlockRef, ChainSource, FinalityTag, SourceError


class FinalityUnknown(SourceError):
    """The chain's own finality is asked for, and the node does not know it: nothing becomes final meanwhile."""


class FinalHeight:
    """Up to where a blockchain's blocks are final; what that makes of its payments is settled when it moves.

    `height` is None where depth alone decides, and while the node does not say.
    """

    def __init__(self) -> None:
        self.height: int | None = None
        self._settled: tuple[Finality, int | None] = (Finality.DEPTH, None)

    async def ask(self, source: ChainSource, blockchain: Blockchain) -> None:
        """To be asked before the tip: whatever branch is the best from then on holds the block at this height."""
        if blockchain.finality is Finality.DEPTH:
            self.height = None
        else:
            self.height = await source.final_height(FinalityTag(blockchain.finality))

    def applied(self, blockchain: Blockchain) -> None:
        """Blocks were settled with this height, and all payments below them."""
        self._settled = (blockchain.finality, self.height)

    async def settle(
        self, database: Database, blockchain: Blockchain, cursor: BlockRef, *, market: Market, clock: Clock
    ) -> bool:
        """Whether there was something to settle: more became final, or the setting changed, without a new block."""
        if self._settled == (blockchain.finality, self.height):
            return False
        now = clock()
        newest = Inclusion(cursor.height, cursor.hash, now)
        async with database.transaction() as session:
            await cursors.move_cursor(session, blockchain.id, cursor, cursor, now=None)
            await check_finality(session, blockchain)
            await settlement.finalize(session, blockchain, newest, final_height=self.height, market=market, now=now)
        self.applied(blockchain)
        return True

    def require(self, blockchain: Blockchain) -> None:
        """Raises FinalityUnknown, for an operator to see why payments wait."""
        if self.height is None and blockchain.finality is not Finality.DEPTH:
            raise FinalityUnknown(
                f"the node does not say which block is {blockchain.finality}: payments wait until it does, or the "
                "chain's finality is changed"
            )


async def check_finality(session: AsyncSession, blockchain: Blockchain) -> None:
    """LostRace when an operator has changed it since `blockchain` was read: nothing is credited by a former rule."""
    if (
        await session.scalar(select(Blockchain.finality).where(Blockchain.id == blockchain.id))
        is not blockchain.finality
    ):
        raise LostRace
