"""Payments that confirmed while there was no price for them: credited once there is one."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from keyserver.chains.models import Blockchain, PaymentMethod
from keyserver.chains.registry import STABLECOIN
from keyserver.charges.crediting import NO_PRICE, Market, credit, post_entries
from keyserver.charges.models import Payment
from keyserver.charges.queries import UNMATCHED
from keyserver.charges.reassessment import lock_payment, reassess
from keyserver.charges.states import PaymentStatus
from keyserver.kit.db import Database
from keyserver.pricing.errors import PriceUnavailable

_WAITING = (*UNMATCHED, Payment.reason == NO_PRICE)


@dataclass(frozen=True, slots=True)
class _Asset:
    payment_method_id: str | None
    token: str
    stablecoin: bool


async def credit_waiting(database: Database, *, market: Market, now: Callable[[], datetime], limit: int = 100) -> int:
    """Credits payments whose token has a price by now, each in a transaction of its own; returns how many.

    At most `limit` payments of each payment method, and of each coin without one: those of a token that never gets a
    price hold up no others.
    """
    credited = 0
    for asset in await _assets_waiting(database):
        if not await _has_price(database, asset, market=market, now=now()):
            continue
        same = (Payment.payment_method_id.is_not_distinct_from(asset.payment_method_id), Payment.token == asset.token)
        query = select(Payment.id).where(*_WAITING, *same)
        async with database.transaction() as session:
            waiting = list(await session.scalars(query.order_by(Payment.id).limit(limit)))
        for payment_id in waiting:
            credited += await _credit_one(database, payment_id, market=market, now=now())
    return credited


async def _assets_waiting(database: Database) -> list[_Asset]:
    query = (
        select(Payment.payment_method_id, Payment.token, PaymentMethod.type)
        .outerjoin(PaymentMethod, PaymentMethod.id == Payment.payment_method_id)
        .where(*_WAITING)
        .distinct()
    )
    async with database.transaction() as session:
        rows = (await session.execute(query)).all()
    return [_Asset(method_id, token, stablecoin=type_ == STABLECOIN) for method_id, token, type_ in rows]


async def _has_price(database: Database, asset: _Asset, *, market: Market, now: datetime) -> bool:
    try:
        async with database.transaction() as session:
            await market.price_in(session, asset.token, stablecoin=asset.stablecoin, now=now)
    except PriceUnavailable:
        return False
    return True


async def _credit_one(database: Database, payment_id: str, *, market: Market, now: datetime) -> bool:
    async with database.transaction() as session:
        payment, charges = await lock_payment(session, payment_id)
        if payment.status is not PaymentStatus.CONFIRMED or payment.credited_nanos is not None:
            return False
        blockchain = await session.get_one(Blockchain, payment.blockchain_id)
        entry = await credit(session, payment, next(iter(charges), None), blockchain, market=market, now=now)
        await post_entries(session, [entry])
        await reassess(session, charges, now=now)
        return payment.credited_nanos is not None
