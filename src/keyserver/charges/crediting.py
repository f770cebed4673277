"""Credits for confirmed payments, and their reversal: each exactly once, by the ledger's unique references."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.chains.models import Blockchain, PaymentMethod
from keyserver.chains.registry import STABLECOIN
from keyserver.charges.models import Charge, Payment
from keyserver.charges.reassessment import lock_charges, reassess, terms_of
from keyserver.charges.states import PaymentStatus, is_timely
from keyserver.kit.db import Database, driver_connection
from keyserver.kit.money import MAX_NANOS, format_price, units_to_nanos_down
from keyserver.ledger.chart import AccountSpec, holdings_account, tenant_account
from keyserver.ledger.journal import Entry, post, transfer
from keyserver.ledger.models import EntryType
from keyserver.pricing.consensus import Price
from keyserver.pricing.errors import PriceUnavailable

SOURCE = "payment"
LOCKED = "locked"
NO_PRICE = "no_price"


class Market(Protocol):
    """What a token is worth now, read inside the transaction; PriceUnavailable when no source qualifies."""

    async def price_in(self, session: AsyncSession, token: str, *, stablecoin: bool, now: datetime) -> Price: ...


async def credit(
    session: AsyncSession,
    payment: Payment,
    charge: Charge | None,
    blockchain: Blockchain,
    *,
    market: Market,
    now: datetime,
) -> bool:
    """Credits a confirmed payment to its tenant; False when there is no price for it yet: it is listed as unmatched.

    In time for a charge: at the charge's locked rate. Late, or without a charge: at the market's. Rounds down.
    """
    method = await session.get_one(PaymentMethod, payment.payment_method_id)
    if charge is not None and _timely(charge, payment):
        payment.price_usd, payment.price_source = charge.price_usd, f"{LOCKED}: {charge.price_source}"
    else:
        try:
            price = await market.price_in(session, method.token, stablecoin=method.type == STABLECOIN, now=now)
        except PriceUnavailable:
            payment.reason = NO_PRICE
            return False
        payment.price_usd, payment.price_source = price.price_usd, price.source
    nanos = units_to_nanos_down(payment.amount_units, price_usd=payment.price_usd, decimals=method.decimals)
    if nanos > MAX_NANOS // 1000:
        payment.reason = "absurd_value"
        return False
    payment.reason = None
    payment.credited_nanos = nanos
    payment.credits += 1
    if nanos > 0:  # dust worth less than a nanodollar has nothing to post
        await _post(session, payment, blockchain, method, nanos=nanos, now=now, reversing=False)
    return True


async def reverse(session: AsyncSession, payment: Payment, blockchain: Blockchain, *, now: datetime) -> None:
    """Takes back what stands credited, if anything does, with an entry of its own."""
    if payment.credited_nanos is None:
        return
    method = await session.get_one(PaymentMethod, payment.payment_method_id)
    if payment.credited_nanos > 0:
        await _post(session, payment, blockchain, method, nanos=payment.credited_nanos, now=now, reversing=True)
    payment.credited_nanos = None


async def credit_waiting(database: Database, *, market: Market, now: Callable[[], datetime], limit: int = 100) -> int:
    """Credits payments that confirmed while there was no price, each in a transaction of its own; returns how many."""
    query = (
        select(Payment.id)
        .where(Payment.status == PaymentStatus.CONFIRMED, Payment.credited_nanos.is_(None), Payment.reason == NO_PRICE)
        .order_by(Payment.id)
        .limit(limit)
    )
    async with database.transaction() as session:
        waiting = list(await session.scalars(query))
    return sum([await _credit_one(database, payment_id, market=market, now=now()) for payment_id in waiting])


async def _credit_one(database: Database, payment_id: str, *, market: Market, now: datetime) -> bool:
    async with database.transaction() as session:
        charge_id = await session.scalar(select(Payment.charge_id).where(Payment.id == payment_id))
        charges = await lock_charges(session, {charge_id})
        payment = await session.get_one(Payment, payment_id, with_for_update=True, populate_existing=True)
        if payment.status is not PaymentStatus.CONFIRMED or payment.credited_nanos is not None:
            return False
        blockchain = await session.get_one(Blockchain, payment.blockchain_id)
        done = await credit(session, payment, next(iter(charges), None), blockchain, market=market, now=now)
        await session.flush()
        await reassess(session, charges, now=now)
        return done


def _timely(charge: Charge, payment: Payment) -> bool:
    assert payment.confirmed_at is not None
    return is_timely(terms_of(charge), seen_at=payment.seen_at, confirmed_at=payment.confirmed_at)


async def _post(
    session: AsyncSession,
    payment: Payment,
    blockchain: Blockchain,
    method: PaymentMethod,
    *,
    nanos: int,
    now: datetime,
    reversing: bool,
) -> None:
    await session.flush()
    holdings = holdings_account(chain=blockchain.chain, network=blockchain.network, token=method.token)
    tenant = tenant_account(payment.tenant_id)
    debit, credited = _sides(holdings, tenant, reversing=reversing)
    what = "reversal" if reversing else "credit"
    await post(
        await driver_connection(session),
        Entry(
            type=EntryType.CORRECTION if reversing else EntryType.PURCHASE,
            tenant_id=payment.tenant_id,
            source=SOURCE,
            reference_id=f"{payment.id}:{what}:{payment.credits}",
            lines=transfer(debit=debit, credit=credited, amount_nanos=nanos),
            posted_at=now,
            description=_description(payment, blockchain, method, reversing=reversing),
            metadata={
                "paymentId": payment.id,
                "chargeId": payment.charge_id,
                "chain": blockchain.chain,
                "network": blockchain.network,
                "token": method.token,
                "txHash": payment.tx_hash,
                "outputIndex": payment.output_index,
                "amount": str(payment.amount_units),
                "decimals": method.decimals,
                "priceUsd": format_price(payment.price_usd) if payment.price_usd is not None else None,
                "priceSource": payment.price_source,
            },
        ),
    )


def _sides(holdings: AccountSpec, tenant: AccountSpec, *, reversing: bool) -> tuple[AccountSpec, AccountSpec]:
    return (tenant, holdings) if reversing else (holdings, tenant)


def _description(payment: Payment, blockchain: Blockchain, method: PaymentMethod, *, reversing: bool) -> str:
    what = "Reversal: block orphaned, payment" if reversing else "Payment"
    return f"{what} in {method.token} on {blockchain.chain} {blockchain.network}, {payment.tx_hash}"
