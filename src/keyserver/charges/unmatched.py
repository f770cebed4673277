"""Confirmed payments that nobody is credited for: an operator credits them, or dismisses them with a reason.

Both lock as every settlement does (the charge, the payment, then ledger balances), so that whoever comes second, a
price, a reorganisation or another operator, finds what the first one made of the payment.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.access.tenants import get_tenant
from keyserver.chains.models import Blockchain
from keyserver.charges.crediting import (
    MOST_CREDITED_NANOS,
    OPERATOR,
    Market,
    credit_at,
    market_price,
    post_entries,
)
from keyserver.charges.errors import (
    InvalidCredit,
    PaymentCredited,
    PaymentDismissed,
    PaymentHasTenant,
    PaymentNotConfirmed,
)
from keyserver.charges.history import facts_of, last_action, note
from keyserver.charges.models import Action, Payment
from keyserver.charges.reassessment import lock_payment, reassess
from keyserver.charges.states import PaymentStatus
from keyserver.kit.money import NANOS_PER_USD, format_nanos, format_price, units_to_nanos_down


@dataclass(frozen=True, slots=True)
class WantedCredit:
    """At a price for a whole coin, of so much in all, or (neither given) at the market's price of now.

    `tenant_id` may be left out when the payment has its tenant.
    """

    tenant_id: str | None
    price_usd: Decimal | None
    amount_nanos: int | None
    note: str


async def credit_by_hand(
    session: AsyncSession, payment_id: str, wanted: WantedCredit, *, market: Market, request_id: str, now: datetime
) -> None:
    """Credits a confirmed payment, dismissed or not, to its tenant or to the one that is named.

    Asked again with the same content it changes nothing; with other content PaymentCredited. Raises PaymentNotFound,
    PaymentNotConfirmed, PaymentHasTenant, TenantNotFound, InvalidCredit, and PriceUnavailable when no price is given.
    """
    payment, charges = await lock_payment(session, payment_id)
    asked = _asked(payment, wanted)
    if payment.credited_nanos is not None:
        if not await _is_repeated(session, payment, Action.CREDIT, asked=asked, reason=wanted.note):
            raise PaymentCredited
        return
    _require_confirmed(payment)
    before = facts_of(payment)
    payment.tenant_id = await _tenant(session, payment, wanted)
    nanos, price_usd, source = await _value(session, payment, wanted, market=market, now=now)
    blockchain = await session.get_one(Blockchain, payment.blockchain_id)
    entry = credit_at(payment, blockchain, nanos=nanos, price_usd=price_usd, source=source, now=now, note=wanted.note)
    note(
        session, payment, Action.CREDIT, before=before, asked=asked, reason=wanted.note, request_id=request_id, now=now
    )
    await post_entries(session, [entry])
    await reassess(session, charges, now=now)


async def dismiss(session: AsyncSession, payment_id: str, *, reason: str, request_id: str, now: datetime) -> None:
    """Nobody is credited for this confirmed payment, unless an operator does so after all.

    Asked again with the same reason it changes nothing; with another PaymentDismissed. Raises PaymentNotFound,
    PaymentNotConfirmed and PaymentCredited.
    """
    payment, _ = await lock_payment(session, payment_id)
    if payment.credited_nanos is not None:
        raise PaymentCredited
    if payment.dismissed_at is not None:
        if not await _is_repeated(session, payment, Action.DISMISS, asked={}, reason=reason):
            raise PaymentDismissed
        return
    _require_confirmed(payment)
    before = facts_of(payment)
    payment.dismissed_at = now
    note(session, payment, Action.DISMISS, before=before, asked={}, reason=reason, request_id=request_id, now=now)
    await session.flush()


def _require_confirmed(payment: Payment) -> None:
    if payment.status is not PaymentStatus.CONFIRMED:
        raise PaymentNotConfirmed


def _asked(payment: Payment, wanted: WantedCredit) -> dict[str, Any]:
    """The content of a credit, the same however its numbers were written."""
    return {
        "tenant_id": wanted.tenant_id or payment.tenant_id,
        "price_usd": None if wanted.price_usd is None else format_price(wanted.price_usd),
        "amount_usd": None if wanted.amount_nanos is None else format_nanos(wanted.amount_nanos),
    }


async def _is_repeated(
    session: AsyncSession, payment: Payment, action: Action, *, asked: dict[str, Any], reason: str
) -> bool:
    last = await last_action(session, payment.id)
    return last is not None and (last.action, last.asked, last.reason) == (action, asked, reason)


async def _tenant(session: AsyncSession, payment: Payment, wanted: WantedCredit) -> str:
    if payment.tenant_id is not None:
        if wanted.tenant_id not in {None, payment.tenant_id}:
            raise PaymentHasTenant
        return payment.tenant_id
    if wanted.tenant_id is None:
        raise InvalidCredit.at("/tenant_id", "Nobody was given the address of this payment: name the tenant to credit")
    return (await get_tenant(session, wanted.tenant_id)).id


async def _value(
    session: AsyncSession, payment: Payment, wanted: WantedCredit, *, market: Market, now: datetime
) -> tuple[int, Decimal | None, str]:
    """Nanodollars, the price they were reckoned at, and where that came from."""
    if wanted.amount_nanos is not None:
        nanos, price_usd, source = wanted.amount_nanos, None, OPERATOR
    else:
        price_usd, source = wanted.price_usd, OPERATOR
        if price_usd is None:
            price = await market_price(session, payment, market=market, now=now)
            price_usd, source = price.price_usd, f"{OPERATOR}: {price.source}"
        nanos = units_to_nanos_down(payment.amount_units, price_usd=price_usd, decimals=payment.decimals)
    if nanos > MOST_CREDITED_NANOS:
        most = MOST_CREDITED_NANOS // NANOS_PER_USD
        raise InvalidCredit.at("/amount_usd", f"That is more than {most:,} dollars, the most credited for one payment")
    return nanos, price_usd, source
