"""From what a chain shows to what a charge is worth: payments, credits, states, webhooks, in the caller's transaction.

Told here are transfers of a block (`include`), coin of older blocks that no transfer showed (`find`), transfers waiting
for a block (`see`), what the chain has come to call final (`finalize`), and blocks that are no longer part of the chain
(`orphan`). Each may be told again; the second time changes nothing. Blocks below the tip are told in revisiting.py.
Locks are taken in one order everywhere: charges by id, then ledger balances by account.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

import structlog
from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.chains.models import Blockchain, Finality
from keyserver.charges.crediting import Market, credit, post_entries, reverse
from keyserver.charges.history import facts_of, note_reversal
from keyserver.charges.models import Charge, Payment
from keyserver.charges.reassessment import lock_charges, reassess
from keyserver.charges.recording import Arrival, Inclusion, record
from keyserver.charges.states import PaymentStatus

_log = structlog.get_logger("keyserver.settlement")


async def include(
    session: AsyncSession,
    blockchain: Blockchain,
    arrivals: Sequence[Arrival],
    block: Inclusion,
    *,
    market: Market,
    now: datetime,
    final_height: int | None = None,
) -> None:
    """A block on top of what was told before: its arrivals, and one more confirmation for those below it.

    `final_height`: up to where the chain itself calls its blocks final, as far as is known. Where `finality` asks for
    that, no payment above is final, and none at all while it is None.
    """
    touched = await record(session, blockchain, arrivals, block=block, now=now)
    await confirm(session, blockchain, block, touched, final_height=final_height, market=market, now=now)


async def finalize(
    session: AsyncSession,
    blockchain: Blockchain,
    block: Inclusion,
    *,
    final_height: int | None,
    market: Market,
    now: datetime,
) -> None:
    """The newest block is still this one, but more is final than when it was told."""
    await confirm(session, blockchain, block, final_height=final_height, market=market, now=now)


async def is_confirming(session: AsyncSession, blockchain: Blockchain) -> bool:
    """Whether any payment on this chain waits for confirmations; if not, a block that pays nobody of ours is idle."""
    query = select(Payment.id).where(Payment.blockchain_id == blockchain.id, Payment.status == PaymentStatus.CONFIRMING)
    return await session.scalar(query.limit(1)) is not None


async def find(
    session: AsyncSession,
    blockchain: Blockchain,
    found: Sequence[tuple[Arrival, Inclusion]],
    tip: Inclusion,
    *,
    final_height: int | None,
    market: Market,
    now: datetime,
) -> None:
    """Coin in blocks that were told before, below or at the `tip`, which decides how deep it is."""
    touched: set[str | None] = set()
    for arrival, block in found:
        touched |= await record(session, blockchain, [arrival], block=block, now=now)
    await confirm(session, blockchain, tip, touched, final_height=final_height, market=market, now=now)


async def see(
    session: AsyncSession,
    blockchain: Blockchain,
    arrivals: Sequence[Arrival],
    *,
    waiting: Collection[str],
    asked_at: datetime,
    now: datetime,
) -> None:
    """What waits in the mempool: `arrivals` of it, and the hashes of every transaction `waiting` there.

    A payment that was seen there and is neither there nor in a block was replaced or dropped: it stops counting.
    Not so one that another follower saw only after this one had asked the node, at `asked_at`.
    """
    touched = await record(session, blockchain, arrivals, block=None, now=now)
    blockless = [PaymentStatus.SEEN, PaymentStatus.REPLACED, PaymentStatus.ORPHANED]
    query = select(Payment).where(Payment.blockchain_id == blockchain.id, Payment.status.in_(blockless))
    for payment in await session.scalars(query):
        status = PaymentStatus.SEEN if payment.tx_hash in waiting else _absent(payment.status)
        if status is not payment.status and payment.seen_at <= asked_at:
            payment.status = status
            touched.add(payment.charge_id)
    await session.flush()
    await reassess(session, await lock_charges(session, touched), now=now)


async def orphan(session: AsyncSession, blockchain: Blockchain, *, above_height: int, now: datetime) -> int:
    """Blocks above this height are no longer part of the chain: un-count and un-credit; returns how many payments."""
    gone = (Payment.blockchain_id == blockchain.id, Payment.block_height > above_height)
    charges = await lock_charges(session, await session.scalars(select(Payment.charge_id).where(*gone)))
    query = select(Payment).where(*gone).order_by(Payment.id).with_for_update()
    affected = list(await session.scalars(query, execution_options={"populate_existing": True}))
    reversals = []
    for payment in affected:
        before = facts_of(payment)
        reversals.append(reverse(payment, blockchain, now=now))
        # What a balance showed of one block comes back under another block's hash, if it does.
        payment.status = PaymentStatus.ORPHANED if payment.found_above is None else PaymentStatus.REPLACED
        payment.block_height = payment.block_hash = payment.confirmed_at = payment.reason = None
        payment.confirmations = 0
        note_reversal(session, payment, before=before, now=now)
    await post_entries(session, reversals)
    await reassess(session, charges, now=now)
    return len(affected)


def _absent(status: PaymentStatus) -> PaymentStatus:
    return PaymentStatus.REPLACED if status is PaymentStatus.SEEN else status


# --- confirming -------------------------------------------------------------------------------------------------


async def confirm(
    session: AsyncSession,
    blockchain: Blockchain,
    block: Inclusion,
    touched: Collection[str | None] = (),
    *,
    final_height: int | None,
    market: Market,
    now: datetime,
    times: Mapping[int, datetime] = MappingProxyType({}),
) -> None:
    """Counts confirmations of every payment in a block; those deep enough are final and are credited.

    They are final since `block`, or since the block that made them final, when `times` has its height. Charges that
    were `touched` before are brought up to date as well.
    """
    confirming = list(await session.scalars(confirming_on(blockchain)))
    charges = await lock_charges(session, {*touched, *(payment.charge_id for payment in confirming)})
    for payment in confirming:
        assert payment.block_height is not None
        depth = block.height - payment.block_height + 1
        payment.confirmations = min(depth, payment.confirmations_required)
        if depth >= payment.confirmations_required and _may_be_final(blockchain, payment.block_height, final_height):
            payment.status = PaymentStatus.CONFIRMED
            payment.confirmed_at = min(now, times.get(deep_enough_at(payment), block.mined_at))
    by_id: Mapping[str | None, Charge] = {charge.id: charge for charge in charges}
    credits_ = [
        await credit(session, payment, by_id.get(payment.charge_id), blockchain, market=market, now=now)
        for payment in confirming
        if payment.status is PaymentStatus.CONFIRMED and payment.credited_nanos is None
    ]
    await post_entries(session, credits_)
    await reassess(session, charges, now=now)


def confirming_on(blockchain: Blockchain) -> Select[Payment]:
    return (
        select(Payment)
        .where(Payment.blockchain_id == blockchain.id, Payment.status == PaymentStatus.CONFIRMING)
        .order_by(Payment.id)
    )


def deep_enough_at(payment: Payment) -> int:
    """Height of the block that gives a payment in a block its last confirmation."""
    assert payment.block_height is not None
    return payment.block_height + payment.confirmations_required - 1


def _may_be_final(blockchain: Blockchain, height: int, final_height: int | None) -> bool:
    return blockchain.finality is Finality.DEPTH or (final_height is not None and height <= final_height)
