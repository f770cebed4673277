"""Credits for confirmed payments, and their reversal: each exactly once, by the ledger's unique references."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.chains.models import Blockchain, PaymentMethod
from keyserver.chains.registry import STABLECOIN
from keyserver.charges.models import Charge, Payment
from keyserver.charges.reassessment import terms_of
from keyserver.charges.states import is_timely
from keyserver.kit.db import driver_connection
from keyserver.kit.money import NANOS_PER_USD, format_price, units_to_nanos_down
from keyserver.ledger.chart import AccountSpec, holdings_account, tenant_account
from keyserver.ledger.journal import Entry, post_all, transfer
from keyserver.ledger.models import EntryType
from keyserver.pricing.consensus import Price
from keyserver.pricing.errors import PriceUnavailable

SOURCE = "payment"
LOCKED = "locked"
#: An operator decided the credit; the source of its price follows, when it was the market's.
OPERATOR = "operator"
NO_PRICE = "no_price"
ABSURD_VALUE = "absurd_value"
NEVER_ISSUED = "never_issued"

#: Ten charges of the highest amount: more than that in one payment is a wrong price or a worthless token.
MOST_CREDITED_NANOS = 100_000_000 * NANOS_PER_USD


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
) -> Entry | None:
    """Decides what a confirmed payment is worth to its tenant; returns the entry to post, if there is one.

    In time for a charge: at the charge's locked rate. Late, or without a charge: at the market's. Rounds down.
    Without a tenant, without a price, or beyond all measure, it stays uncredited and is listed as unmatched with a
    `reason`; so does, but unlisted, what an operator has dismissed.
    """
    if payment.never_issued:
        payment.reason = NEVER_ISSUED
        return None
    if payment.dismissed_at is not None:
        return None
    if charge is not None and _timely(charge, payment):
        price_usd, source = charge.price_usd, f"{LOCKED}: {charge.price_source}"
    else:
        try:
            price = await market_price(session, payment, market=market, now=now)
        except PriceUnavailable:
            payment.reason = NO_PRICE
            return None
        price_usd, source = price.price_usd, price.source
    nanos = units_to_nanos_down(payment.amount_units, price_usd=price_usd, decimals=payment.decimals)
    if nanos > MOST_CREDITED_NANOS:
        payment.reason = ABSURD_VALUE
        return None
    return credit_at(payment, blockchain, nanos=nanos, price_usd=price_usd, source=source, now=now)


def credit_at(
    payment: Payment,
    blockchain: Blockchain,
    *,
    nanos: int,
    price_usd: Decimal | None,
    source: str,
    now: datetime,
    note: str | None = None,
) -> Entry | None:
    """Credits a payment that has a tenant with so much, whatever kept it from being credited; returns the entry."""
    payment.price_usd, payment.price_source = price_usd, source
    payment.reason = payment.dismissed_at = None
    payment.credited_nanos = nanos
    payment.credits += 1
    return _entry(payment, blockchain, nanos=nanos, now=now, reversing=False, note=note)


def reverse(payment: Payment, blockchain: Blockchain, *, now: datetime) -> Entry | None:
    """Takes back what stands credited; returns the entry to post, if there is one.

    Whom an operator credited for an address that was never handed out is for an operator to say again.
    """
    if payment.credited_nanos is None:
        return None
    entry = _entry(payment, blockchain, nanos=payment.credited_nanos, now=now, reversing=True)
    payment.credited_nanos = None
    if payment.never_issued:
        payment.tenant_id = None
    return entry


def is_by_hand(payment: Payment) -> bool:
    """Whether an operator decided its last credit."""
    return payment.price_source is not None and payment.price_source.partition(":")[0] == OPERATOR


async def market_price(session: AsyncSession, payment: Payment, *, market: Market, now: datetime) -> Price:
    """What a whole coin of the payment's asset is worth now. Raises PriceUnavailable."""
    stablecoin = await _is_stablecoin(session, payment)
    return await market.price_in(session, payment.token, stablecoin=stablecoin, now=now)


async def post_entries(session: AsyncSession, entries: Iterable[Entry | None]) -> None:
    """Posts what `credit` and `reverse` returned, together with the payments they changed."""
    await session.flush()
    found = [entry for entry in entries if entry is not None]
    if found:
        await post_all(await driver_connection(session), found)


async def _is_stablecoin(session: AsyncSession, payment: Payment) -> bool:
    """Only a payment method makes one; a chain's own coin without a method is none."""
    if payment.payment_method_id is None:
        return False
    return (await session.get_one(PaymentMethod, payment.payment_method_id)).type == STABLECOIN


def _timely(charge: Charge, payment: Payment) -> bool:
    assert payment.confirmed_at is not None
    return is_timely(terms_of(charge), seen_at=payment.seen_at, confirmed_at=payment.confirmed_at)


def _entry(
    payment: Payment,
    blockchain: Blockchain,
    *,
    nanos: int,
    now: datetime,
    reversing: bool,
    note: str | None = None,
) -> Entry | None:
    if nanos == 0:  # dust worth less than a nanodollar has nothing to post
        return None
    assert payment.tenant_id is not None, "nobody's payment is credited to nobody"
    holdings = holdings_account(chain=blockchain.chain, network=blockchain.network, token=payment.token)
    tenant = tenant_account(payment.tenant_id)
    debit, credited = _sides(holdings, tenant, reversing=reversing)
    what = "reversal" if reversing else "credit"
    return Entry(
        type=EntryType.CORRECTION if reversing else EntryType.PURCHASE,
        tenant_id=payment.tenant_id,
        source=SOURCE,
        reference_id=f"{payment.id}:{what}:{payment.credits}",
        lines=transfer(debit=debit, credit=credited, amount_nanos=nanos),
        posted_at=now,
        description=_description(payment, blockchain, reversing=reversing),
        metadata={
            "paymentId": payment.id,
            "chargeId": payment.charge_id,
            "chain": blockchain.chain,
            "network": blockchain.network,
            "token": payment.token,
            "txHash": payment.tx_hash,
            "outputIndex": payment.output_index,
            "amount": str(payment.amount_units),
            "decimals": payment.decimals,
            "priceUsd": format_price(payment.price_usd) if payment.price_usd is not None else None,
            "priceSource": payment.price_source,
            **({} if note is None else {"note": note}),
        },
    )


def _sides(holdings: AccountSpec, tenant: AccountSpec, *, reversing: bool) -> tuple[AccountSpec, AccountSpec]:
    return (tenant, holdings) if reversing else (holdings, tenant)


def _description(payment: Payment, blockchain: Blockchain, *, reversing: bool) -> str:
    what = "Reversal: block orphaned, payment" if reversing else "Payment"
    return f"{what} in {payment.token} on {blockchain.chain} {blockchain.network}, {payment.tx_hash}"
