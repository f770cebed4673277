"""Audits: over a range of blocks, what the node shows, the payments stored and the ledger must say the same.

Nothing is changed. Each stretch of blocks is compared with rows read in one moment, so that followers may go on.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from keyserver.chains.models import Blockchain
from keyserver.kit.clock import Clock
from keyserver.kit.db import Database
from keyserver.watching import books, jobs
from keyserver.watching.arrivals import registered_contracts
from keyserver.watching.comparison import LONGEST_WAIT, Difference, Kind, Totals, compare, totals
from keyserver.watching.cursor import LostRace
from keyserver.watching.models import JobKind, WatchJob
from keyserver.watching.ports import ChainSource
from keyserver.watching.rereading import Stretch, check_branch

#: More differences than this are counted, but not kept: the first ones tell what is wrong.
MOST_KEPT = 500
#: How far a block's time may lie beside the true time.
CLOCK_SLACK = timedelta(hours=2)
_MENDED_BY_RESCAN = {Kind.PAYMENT_MISSING, Kind.PAYMENT_NOT_COUNTED}


@dataclass(frozen=True, slots=True)
class Audit:
    database: Database
    source: ChainSource
    clock: Clock

    async def compare(self, blockchain: Blockchain, job: WatchJob, stretch: Stretch) -> list[Difference]:
        """Compares a stretch of blocks, and notes it in the job. Raises JobGone, LostRace, SourceError."""
        found, sums = await self._read(blockchain, stretch)
        first, last = stretch.blocks[0].height, stretch.blocks[-1].height
        now = self.clock()
        async with self.database.transaction() as session:
            await jobs.advance(
                session,
                job.id,
                before=first,
                after=last + 1,
                found=len(found),
                report=extended(job.report, found, sums),
                now=now,
            )
        return found

    async def _read(self, blockchain: Blockchain, stretch: Stretch) -> tuple[list[Difference], dict[str, Totals]]:
        blocks = stretch.blocks
        hidden = {block.height for block in blocks if not block.shows_internal_calls}
        async with self.database.transaction() as session:
            await books.read_consistently(session)
            await check_branch(session, blockchain.id, stretch)
            if await registered_contracts(session, blockchain.id) != stretch.contracts:
                raise LostRace("a token was registered while the blocks were read: read them again")
            shown = await books.shown_in(session, blockchain, blocks)
            payments = await books.payments_of_blocks(session, blockchain, blocks, {each.output[0] for each in shown})
            known = {(each.tx_hash, each.output_index, each.asset) for each in payments}
            missing = [each for each in shown if each.output not in known]
            if missing:
                lost = await books.lost_credits(session, blockchain, missing)
                shown = [each for each in shown if each.output in known] + lost
            posted = await books.posted_for(session, blockchain, payments)
        stored = books.stored_of(payments, unproved_heights=hidden)
        heights = range(blocks[0].height, blocks[-1].height + 1)
        found = compare(shown, stored, posted, heights=heights, now=self.clock())
        return found, totals(shown, stored, posted, heights=heights)

    async def finish(self, blockchain: Blockchain, job: WatchJob) -> WatchJob:
        """The last step: what the ledger alone tells of, and the end of the job. Raises JobGone, SourceError."""
        assert job.next_height is not None
        found = await self._strays(blockchain, job)
        now = self.clock()
        async with self.database.transaction() as session:
            await jobs.advance(
                session,
                job.id,
                before=job.next_height,
                after=job.next_height,
                found=len(found),
                report=extended(job.report, found),
                now=now,
            )
            await jobs.finish(session, job.id, now=now)
            ended, _ = await jobs.get_job(session, job.id)
            missing = heights_missing(ended)
            if ended.nightly and missing:  # an operator's own audit changes nothing
                await jobs.enqueue(
                    session,
                    blockchain,
                    kind=JobKind.RESCAN,
                    from_height=missing[0],
                    to_height=missing[-1],
                    nightly=True,
                    now=now,
                )
        return ended

    async def _strays(self, blockchain: Blockchain, job: WatchJob) -> list[Difference]:
        """Credits posted about when the job's blocks were mined, whose payment is gone or does not count."""
        assert job.from_height is not None
        if job.from_height > job.to_height:
            return []
        since = await self.source.mined_at(job.from_height) - CLOCK_SLACK
        until = await self.source.mined_at(job.to_height) + LONGEST_WAIT
        async with self.database.transaction() as session:
            await books.read_consistently(session)
            found = await books.stray_entries(session, blockchain, since=since, until=until)
        known = {each["payment_id"] for each in (job.report or {}).get("differences", ())}
        return [each for each in found if each.payment_id not in known]


def heights_missing(job: WatchJob) -> list[int]:
    """Heights at which an audit found payments missing, the lowest first."""
    differences = (job.report or {}).get("differences", ())
    return sorted({each["height"] for each in differences if each["kind"] in _MENDED_BY_RESCAN})


def extended(
    report: dict[str, Any] | None, found: Iterable[Difference], sums: dict[str, Totals] | None = None
) -> dict[str, Any]:
    """A job's report with what was found since. Amounts are strings: JSON's numbers do not hold them."""
    before = report or {"tokens": {}, "differences": []}
    tokens = {token: _totals_of(document) for token, document in before["tokens"].items()}
    for token, part in (sums or {}).items():
        tokens[token] = tokens[token].plus(part) if token in tokens else part
    differences = [*before["differences"], *(document_of(each) for each in found)]
    return {
        "tokens": {
            token: {name: value if name == "decimals" else str(value) for name, value in asdict(sum_).items()}
            for token, sum_ in tokens.items()
        },
        "differences": differences[:MOST_KEPT],
    }


def _totals_of(document: dict[str, Any]) -> Totals:
    return Totals(**{name: int(value) for name, value in document.items()})


def document_of(difference: Difference) -> dict[str, Any]:
    return {**asdict(difference), "advice": difference.advice}
