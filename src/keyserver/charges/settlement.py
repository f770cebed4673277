"""From what a chain shows to what a charge is worth: payments, credits, states, webhooks, in the caller's transaction.

Told here are transfers of a block (`include`), coin of older blocks that no transfer showed (`find`), transfers waiting
for a block (`see`), and blocks that are no longer part of the chain (`orphan`). Each may be told again; the second time
changes nothing. Locks are taken in one order everywhere: charges by id, then ledger balances by account.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ARRAY, ColumnElement, Text, any_, literal, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.addresses.owners import Owned, owners_of
from keyserver.chains.catalog import Family
from keyserver.chains.models import NATIVE, Blockchain, PaymentMethod
from keyserver.charges.crediting import Market, credit, post_entries, reverse
from keyserver.charges.history import facts_of, note_reversal
from keyserver.charges.models import Charge, Payment
from keyserver.charges.paid_asset import PaidAsset, methods_on, paid_asset
from keyserver.charges.reassessment import lock_charges, reassess
from keyserver.charges.states import PaymentStatus
from keyserver.kit.ids import new_id


@dataclass(frozen=True, slots=True)
class Arrival:
    """One output or token transfer that a chain shows. `match_key` is the receiver's, `amount_units` base units.

    `found_above`: no transfer showed it, but the balance rose, in a block above this height.
    """

    tx_hash: str
    output_index: int
    asset: str
    match_key: str
    amount_units: int
    found_above: int | None = None


@dataclass(frozen=True, slots=True)
class Inclusion:
    """The block that holds an arrival."""

    height: int
    block_hash: str
    mined_at: datetime


async def include(
    session: AsyncSession,
    blockchain: Blockchain,
    arrivals: Sequence[Arrival],
    block: Inclusion,
    *,
    market: Market,
    now: datetime,
) -> None:
    """A block on top of what was told before: its arrivals, and one more confirmation for those below it."""
    await _record(session, blockchain, arrivals, block=block, now=now)
    await _confirm(session, blockchain, block, market=market, now=now)


async def find(
    session: AsyncSession,
    blockchain: Blockchain,
    found: Sequence[tuple[Arrival, Inclusion]],
    tip: Inclusion,
    *,
    market: Market,
    now: datetime,
) -> None:
    """Coin in blocks that were told before, below or at the `tip`, which decides how deep it is."""
    for arrival, block in found:
        await _record(session, blockchain, [arrival], block=block, now=now)
    await _confirm(session, blockchain, tip, market=market, now=now)


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
    touched = await _record(session, blockchain, arrivals, block=None, now=now)
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


# --- recording --------------------------------------------------------------------------------------------------


async def _record(
    session: AsyncSession,
    blockchain: Blockchain,
    arrivals: Sequence[Arrival],
    *,
    block: Inclusion | None,
    now: datetime,
) -> set[str | None]:
    """Stores arrivals at addresses of ours; returns the charges they may change."""
    ours = await owners_of(session, {arrival.match_key for arrival in arrivals}, now=now)
    if not ours:
        return set()
    methods = await methods_on(session, blockchain)
    found_already = await _found_already(session, blockchain, ours.values(), block)
    touched: set[str | None] = set()
    for arrival in arrivals:
        address = ours.get(arrival.match_key)
        if address is None:
            continue
        paid = paid_asset(blockchain, methods, arrival.asset, address)
        if paid is None:
            continue
        is_coin = arrival.asset == NATIVE
        if is_coin and arrival.match_key in found_already and not await _stands(session, blockchain, arrival):
            continue
        touched.add(await _store(session, blockchain, arrival, address, paid, block=block, now=now))
    await session.flush()
    if block is not None:
        here = {arrival.tx_hash for arrival in arrivals if arrival.match_key in ours}
        await _give_up_moved(session, blockchain, here)
    return touched


async def _give_up_moved(session: AsyncSession, blockchain: Blockchain, tx_hashes: set[str]) -> None:
    """A transaction that took effect in another block left there what it has: an output it no longer has is gone.

    A token transfer's log index depends on its block, so the same transfer may come back as another output.
    """
    moved = (
        update(Payment)
        .where(Payment.blockchain_id == blockchain.id, Payment.status == PaymentStatus.ORPHANED)
        .where(Payment.tx_hash == any_(literal(sorted(tx_hashes), ARRAY(Text))))
        .values(status=PaymentStatus.REPLACED)
    )
    await session.execute(moved)


async def _found_already(
    session: AsyncSession, blockchain: Blockchain, ours: Collection[Owned], block: Inclusion | None
) -> set[str]:
    """Match keys at which a comparison of balances found this block's coin: what a trace shows later is the same."""
    if block is None or blockchain.family == Family.UTXO:
        return set()
    places = {(address.key_ring_id, address.address_index): address.match_key for address in ours}
    query = (
        select(Payment.key_ring_id, Payment.address_index)
        .where(tuple_(Payment.key_ring_id, Payment.address_index).in_(list(places)))
        .where(Payment.blockchain_id == blockchain.id, Payment.asset == NATIVE)
        .where(Payment.found_above < block.height, Payment.block_height >= block.height)
    )
    return {places[key_ring_id, index] for key_ring_id, index in await session.execute(query)}


async def _stands(session: AsyncSession, blockchain: Blockchain, arrival: Arrival) -> bool:
    """Whether this very arrival is in a block already: to tell it again changes nothing."""
    query = select(Payment.block_hash).where(*_identity(blockchain, arrival))
    return await session.scalar(query) is not None


def _identity(blockchain: Blockchain, arrival: Arrival) -> tuple[ColumnElement[bool], ...]:
    return (
        Payment.blockchain_id == blockchain.id,
        Payment.tx_hash == arrival.tx_hash,
        Payment.output_index == arrival.output_index,
        Payment.asset == arrival.asset,
    )


async def _store(
    session: AsyncSession,
    blockchain: Blockchain,
    arrival: Arrival,
    address: Owned,
    paid: PaidAsset,
    *,
    block: Inclusion | None,
    now: datetime,
) -> str | None:
    payment = await session.scalar(select(Payment).where(*_identity(blockchain, arrival)))
    if payment is None:
        charge = await _charge_at(session, address, blockchain, arrival.asset)
        payment = Payment(
            id=new_id("pay"),
            blockchain_id=blockchain.id,
            tx_hash=arrival.tx_hash,
            output_index=arrival.output_index,
            asset=arrival.asset,
            key_ring_id=address.key_ring_id,
            address_index=address.address_index,
            address=address.address,
            tenant_id=address.tenant_id,
            never_issued=address.tenant_id is None,
            charge_id=None if charge is None else charge.id,
            payment_method_id=paid.payment_method_id,
            token=paid.token,
            decimals=paid.decimals,
            amount_units=arrival.amount_units,
            confirmations_required=paid.confirmations if charge is None else charge.confirmations_required,
            status=PaymentStatus.SEEN,
            confirmations=0,
            credits=0,
            seen_at=now,
            found_above=arrival.found_above,
        )
        session.add(payment)
    if block is not None and payment.block_hash != block.block_hash:
        payment.status = PaymentStatus.CONFIRMING
        payment.block_height, payment.block_hash = block.height, block.block_hash
        # A block says that its payments were on the chain by then, even to one who was away.
        payment.seen_at = min(payment.seen_at, block.mined_at, now)
    elif block is None and payment.status in {PaymentStatus.REPLACED, PaymentStatus.ORPHANED}:
        payment.status = PaymentStatus.SEEN
    return payment.charge_id


async def _charge_at(session: AsyncSession, address: Owned, blockchain: Blockchain, asset: str) -> Charge | None:
    """The charge this address was made for, when it asked for this asset on this chain."""
    if not address.handed_out:
        return None
    query = (
        select(Charge)
        .join(PaymentMethod, PaymentMethod.id == Charge.payment_method_id)
        .where(Charge.key_ring_id == address.key_ring_id, Charge.address_index == address.address_index)
        .where(PaymentMethod.blockchain_id == blockchain.id, PaymentMethod.asset == asset)
    )
    return await session.scalar(query)


# --- confirming -------------------------------------------------------------------------------------------------


async def _confirm(
    session: AsyncSession, blockchain: Blockchain, block: Inclusion, *, market: Market, now: datetime
) -> None:
    """Counts confirmations of every payment in a block; those deep enough are final and are credited."""
    query = (
        select(Payment)
        .where(Payment.blockchain_id == blockchain.id, Payment.status == PaymentStatus.CONFIRMING)
        .order_by(Payment.id)
    )
    confirming = list(await session.scalars(query))
    charges = await lock_charges(session, {payment.charge_id for payment in confirming})
    for payment in confirming:
        assert payment.block_height is not None
        depth = block.height - payment.block_height + 1
        payment.confirmations = min(depth, payment.confirmations_required)
        if depth >= payment.confirmations_required:
            payment.status = PaymentStatus.CONFIRMED
            payment.confirmed_at = min(now, block.mined_at)
    by_id: Mapping[str | None, Charge] = {charge.id: charge for charge in charges}
    credits_ = [
        await credit(session, payment, by_id.get(payment.charge_id), blockchain, market=market, now=now)
        for payment in confirming
        if payment.status is PaymentStatus.CONFIRMED
    ]
    await post_entries(session, credits_)
    await reassess(session, charges, now=now)
