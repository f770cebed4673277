"""Rescans: blocks that were followed already are read again, and what was missed in them is recorded."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from keyserver.chains.models import Blockchain
from keyserver.charges.crediting import Market
from keyserver.charges.revisiting import TimesUnknown, revisit
from keyserver.kit.clock import Clock
from keyserver.kit.db import Database
from keyserver.watching import jobs
from keyserver.watching.arrivals import arrivals_of, inclusion_of, registered_contracts
from keyserver.watching.cursor import LostRace, hold_cursor
from keyserver.watching.ports import ChainSource
from keyserver.watching.rereading import Stretch, check_branch
from keyserver.watching.scanner import BranchUnsettled


@dataclass(frozen=True, slots=True)
class Rescan:
    """Records what was missed in a stretch of blocks, while followers go on."""

    database: Database
    source: ChainSource
    market: Market
    clock: Clock

    async def apply(self, blockchain: Blockchain, job_id: str, stretch: Stretch) -> int:
        """Returns how many payments were missed. Raises JobGone, LostRace, SourceError; it can be tried again."""
        times: dict[int, datetime] = {}
        while True:
            try:
                return await self._apply(blockchain, job_id, stretch, times)
            except TimesUnknown as wanted:
                times |= {height: await self.source.mined_at(height) for height in wanted.heights}

    async def _apply(self, blockchain: Blockchain, job_id: str, stretch: Stretch, times: Mapping[int, datetime]) -> int:
        """One transaction: what was missed, and how far the job has come. Followers wait for it, and then go on."""
        now = self.clock()
        first, last = stretch.blocks[0].height, stretch.blocks[-1].height
        async with self.database.transaction() as session:
            cursor = await hold_cursor(session, blockchain.id)
            if cursor.height < last:
                raise BranchUnsettled(f"block {last} was rolled back while it was read again")
            await check_branch(session, blockchain.id, stretch)
            if await registered_contracts(session, blockchain.id) != stretch.contracts:
                raise LostRace("a token was registered while the blocks were read: read them again")
            missed = await revisit(
                session,
                blockchain,
                {inclusion_of(block): arrivals_of(block.transfers) for block in stretch.blocks},
                tip_height=cursor.height,
                times=times,
                market=self.market,
                now=now,
            )
            await jobs.advance(session, job_id, before=first, after=last + 1, found=missed, now=now)
        return missed
