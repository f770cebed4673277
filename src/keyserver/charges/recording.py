"""Arrivals that a chain shows, stored as payments: whose they are, what was paid, and which charge they count for."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, TypeAlias

import structlog
from sqlalchemy import ARRAY, ColumnElement, Text, any_, literal, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.addresses.owners import Owned, known_owners, owners_of
from keyserver.chains.catalog import Family
from keyserver.chains.models import NATIVE, Blockchain, PaymentMethod
from keyserver.charges.models import Charge, Payment
from keyserver.charges.paid_asset import PaidAsset, methods_on, paid_asset
from keyserver.charges.standing import Output, Standing
from keyserver.charges.states import PaymentStatus
from keyserver.kit.ids import new_id

_log = structlog.get_logger("keyserver.settlement")


@dataclass(frozen=True, slots=True)
class Arrival:
    """One output or token transfer that a chain shows. `match_key` is the receiver's, `amount_units` base units.

    `least_confirmations`: how deep it must be whatever was asked for, as the coins of a block reward must mature.
    `found_above`: no transfer showed it, but the balance rose, in a block above this height.
    """

    tx_hash: str
    output_index: int
    asset: str
    match_key: str
    amount_units: int
    least_confirmations: int = 0
    found_above: int | None = None

    @property
    def output(self) -> tuple[str, int, str]:
        """What a payment is on its blockchain."""
        return self.tx_hash, self.output_index, self.asset


@dataclass(frozen=True, slots=True)
class Inclusion:
    """The block that holds an arrival."""

    height: int
    block_hash: str
    mined_at: datetime


#: An arrival at an address of ours, whose that is, and in what it was paid.
Named: TypeAlias = tuple[Arrival, Owned, PaidAsset]


async def record(
    session: AsyncSession,
    blockchain: Blockchain,
    arrivals: Sequence[Arrival],
    *,
    block: Inclusion | None,
    now: datetime,
    known: Mapping[Output, Standing] = MappingProxyType({}),
) -> set[str | None]:
    """Stores arrivals at addresses of ours; returns the charges they may change."""
    owners = await owners_of(session, {arrival.match_key for arrival in arrivals}, now=now)
    found = await _named(session, blockchain, arrivals, owners)
    touched: set[str | None] = set()
    for arrival, address, paid in await _not_found_by_balance(session, blockchain, found, block):
        standing = known.get((arrival.tx_hash, arrival.output_index, paid.token))
        touched |= await _store(session, blockchain, arrival, address, paid, block=block, now=now, standing=standing)
    await session.flush()
    if found and block is not None:
        await _give_up_moved(session, blockchain, {arrival.tx_hash for arrival, _, _ in found})
    return touched


async def ours(
    session: AsyncSession, blockchain: Blockchain, arrivals: Sequence[Arrival], block: Inclusion
) -> list[Named]:
    """What `record` would store of this block; nothing changes."""
    owners = await known_owners(session, {arrival.match_key for arrival in arrivals})
    found = await _named(session, blockchain, arrivals, owners)
    return await _not_found_by_balance(session, blockchain, found, block)


async def _named(
    session: AsyncSession, blockchain: Blockchain, arrivals: Sequence[Arrival], owners: Mapping[str, Owned]
) -> list[Named]:
    """The arrivals at addresses of ours, in an asset that we can name."""
    if not owners:
        return []
    methods = await methods_on(session, blockchain)
    found = []
    for arrival in arrivals:
        address = owners.get(arrival.match_key)
        paid = None if address is None else paid_asset(blockchain, methods, arrival.asset, address)
        if address is not None and paid is not None:
            found.append((arrival, address, paid))
    return found


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


async def _not_found_by_balance(
    session: AsyncSession, blockchain: Blockchain, found: Sequence[Named], block: Inclusion | None
) -> list[Named]:
    """Without coin that a comparison of balances found: what a trace shows of it later is the same."""
    if block is None or blockchain.family == Family.UTXO:
        return list(found)
    by_balance = await _found_by_balance(session, blockchain, [address for _, address, _ in found], block)
    return [
        each
        for each in found
        if each[0].asset != NATIVE or each[0].match_key not in by_balance or await _stands(session, blockchain, each[0])
    ]


async def _found_by_balance(
    session: AsyncSession, blockchain: Blockchain, ours: Collection[Owned], block: Inclusion
) -> set[str]:
    """Match keys at which a comparison of balances found this block's coin."""
    places = {(address.key_ring_id, address.address_index): address.match_key for address in ours}
    if not places:
        return set()
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
    standing: Standing | None,
) -> set[str | None]:
    """Returns the charges it counts for now, and did before."""
    payment = await session.scalar(select(Payment).where(*_identity(blockchain, arrival)))
    former_charge_id = None if payment is None else payment.charge_id
    if payment is None:
        payment = Payment(
            id=new_id("pay") if standing is None else standing.payment_id,
            blockchain_id=blockchain.id,
            tx_hash=arrival.tx_hash,
            output_index=arrival.output_index,
            asset=arrival.asset,
            status=PaymentStatus.SEEN,
            confirmations=0,
            credits=0,
            seen_at=now,
            **await _facts(session, blockchain, arrival, address, paid),
        )
        if standing is not None:
            payment.credits, payment.credited_nanos = standing.credits, standing.credited_nanos
            payment.price_usd, payment.price_source = standing.price_usd, standing.price_source
            if standing.credited_nanos is not None:  # an operator may have said whose it is
                payment.tenant_id = standing.tenant_id
        session.add(payment)
    elif payment.block_hash is None and not _is_same(payment, arrival, address):
        _change(payment, await _facts(session, blockchain, arrival, address, paid))
    if block is not None and payment.block_hash != block.block_hash:
        payment.status = PaymentStatus.CONFIRMING
        payment.block_height, payment.block_hash = block.height, block.block_hash
        # A block says that its payments were on the chain by then, even to one who was away.
        payment.seen_at = min(payment.seen_at, block.mined_at, now)
    elif block is None and payment.status in {PaymentStatus.REPLACED, PaymentStatus.ORPHANED}:
        payment.status = PaymentStatus.SEEN
    return {payment.charge_id, former_charge_id}


async def _facts(
    session: AsyncSession, blockchain: Blockchain, arrival: Arrival, address: Owned, paid: PaidAsset
) -> dict[str, Any]:
    """Columns of a payment: whom it is for, and what it brings."""
    charge = await _charge_at(session, address, blockchain, arrival.asset)
    asked = paid.confirmations if charge is None else charge.confirmations_required
    return {
        "key_ring_id": address.key_ring_id,
        "address_index": address.address_index,
        "address": address.address,
        "tenant_id": address.tenant_id,
        "never_issued": address.tenant_id is None,
        "charge_id": None if charge is None else charge.id,
        "payment_method_id": paid.payment_method_id,
        "token": paid.token,
        "decimals": paid.decimals,
        "amount_units": arrival.amount_units,
        "confirmations_required": max(asked, arrival.least_confirmations),
        "found_above": arrival.found_above,
    }


def _is_same(payment: Payment, arrival: Arrival, address: Owned) -> bool:
    place = (payment.key_ring_id, payment.address_index)
    told = (payment.amount_units, payment.found_above)
    return place == (address.key_ring_id, address.address_index) and told == (arrival.amount_units, arrival.found_above)


def _change(payment: Payment, facts: dict[str, Any]) -> None:
    """A transaction that takes effect in another block may bring something else there, to somebody else.

    Log indexes count through the whole block, and contracts pay by what they find. Nothing stands credited for the
    payment; what was, and what was taken back, the journal keeps. A decision of an operator was about what it was.
    """
    _log.warning(
        "payment_changed",
        payment=payment.id,
        address=payment.address,
        amount=str(payment.amount_units),
        new_address=facts["address"],
        new_amount=str(facts["amount_units"]),
    )
    for name, value in facts.items():
        setattr(payment, name, value)
    payment.price_usd = payment.price_source = payment.dismissed_at = None


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
