"""Blocks below the tip, told again: what was missed there is recorded as if it had been told in time."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy import ARRAY, Text, any_, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.chains.models import Blockchain
from keyserver.charges import recording, settlement
from keyserver.charges.crediting import Market
from keyserver.charges.models import Payment
from keyserver.charges.recording import Arrival, Inclusion
from keyserver.charges.standing import standing_credits
from keyserver.charges.states import PaymentStatus


class TimesUnknown(Exception):
    """Payments became final in the blocks at `heights`, whose times `revisit` was not told."""

    def __init__(self, heights: Collection[int]) -> None:
        super().__init__(f"the times of {len(heights)} blocks are needed")
        self.heights = heights


async def revisit(
    session: AsyncSession,
    blockchain: Blockchain,
    arrivals: Mapping[Inclusion, Sequence[Arrival]],
    *,
    tip_height: int,
    times: Mapping[int, datetime],
    market: Market,
    now: datetime,
) -> int:
    """Blocks up to the tip, read again: records what was missed there, as deep as it is by now; returns how much.

    A payment that became final long ago did so at the time of the block that made it final, by `times` of heights:
    that decides whether it was in time. TimesUnknown when one is missing. What is confirmed already stays as it is,
    and a payment whose row was lost comes back under its old id, with the credit that stands in the ledger. Where the
    chain's own finality decides, what is recorded becomes final with the follower's next block.
    """
    missed = await _missed(session, blockchain, arrivals)
    if not missed:
        return 0
    known = await standing_credits(session, blockchain, {each.tx_hash for found in missed.values() for each in found})
    touched: set[str | None] = set()
    for block, found in missed.items():
        touched |= await recording.record(session, blockchain, found, block=block, now=now, known=known)
    await _need_times(session, blockchain, missed, tip_height=tip_height, times=times)
    tip = Inclusion(tip_height, "", now)
    await settlement.confirm(session, blockchain, tip, touched, times=times, final_height=None, market=market, now=now)
    return sum(len(found) for found in missed.values())


async def _missed(
    session: AsyncSession, blockchain: Blockchain, arrivals: Mapping[Inclusion, Sequence[Arrival]]
) -> dict[Inclusion, list[Arrival]]:
    """The arrivals at addresses of ours that no payment tells of, or only one that is not in that block."""
    ours = {
        block: [arrival for arrival, _, _ in await recording.ours(session, blockchain, each, block)]
        for block, each in arrivals.items()
    }
    hashes = {arrival.tx_hash for each in ours.values() for arrival in each}
    recorded = await payments_in(session, blockchain, hashes)

    def is_missed(arrival: Arrival, block: Inclusion) -> bool:
        payment = recorded.get(arrival.output)
        if payment is None:
            return True
        return payment.status is not PaymentStatus.CONFIRMED and payment.block_hash != block.block_hash

    missed = {block: [arrival for arrival in each if is_missed(arrival, block)] for block, each in ours.items()}
    return {block: each for block, each in missed.items() if each}


async def payments_in(
    session: AsyncSession, blockchain: Blockchain, tx_hashes: Collection[str]
) -> dict[tuple[str, int, str], Payment]:
    """Payments in these transactions by their output (`Arrival.output`), whatever became of them."""
    if not tx_hashes:
        return {}
    one_array = literal(sorted(tx_hashes), ARRAY(Text))
    query = select(Payment).where(Payment.blockchain_id == blockchain.id, Payment.tx_hash == any_(one_array))
    return {(each.tx_hash, each.output_index, each.asset): each for each in await session.scalars(query)}


async def _need_times(
    session: AsyncSession,
    blockchain: Blockchain,
    blocks: Collection[Inclusion],
    *,
    tip_height: int,
    times: Mapping[int, datetime],
) -> None:
    here = {block.block_hash for block in blocks}
    confirming = [
        each for each in await session.scalars(settlement.confirming_on(blockchain)) if each.block_hash in here
    ]
    needed = {settlement.deep_enough_at(payment) for payment in confirming}
    unknown = {height for height in needed if height <= tip_height} - set(times)
    if unknown:
        raise TimesUnknown(unknown)
