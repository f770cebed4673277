"""What was done about a payment by hand, and undone by the chain: written with the change itself, never changed after.

Automatic credits and their reversals are told by the journal alone.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.charges.crediting import is_by_hand
from keyserver.charges.models import Action, Actor, Payment, PaymentAction
from keyserver.kit.clock import iso_z
from keyserver.kit.money import format_nanos, format_price

Facts = dict[str, str | None]


def facts_of(payment: Payment) -> Facts:
    """What an action may change, as the history shows it before and after."""
    return {
        "status": payment.status,
        "tenant_id": payment.tenant_id,
        "reason": payment.reason,
        "credited_usd": None if payment.credited_nanos is None else format_nanos(payment.credited_nanos),
        "price_usd": None if payment.price_usd is None else format_price(payment.price_usd),
        "price_source": payment.price_source,
        "dismissed_at": None if payment.dismissed_at is None else iso_z(payment.dismissed_at),
    }


def note(
    session: AsyncSession,
    payment: Payment,
    action: Action,
    *,
    before: Facts,
    asked: dict[str, Any],
    reason: str,
    request_id: str,
    now: datetime,
) -> None:
    """An operator's action, in the transaction that does it."""
    session.add(
        PaymentAction(
            payment_id=payment.id,
            action=action,
            actor=Actor.ADMIN,
            asked=asked,
            before=before,
            after=facts_of(payment),
            reason=reason,
            request_id=request_id,
            acted_at=now,
        )
    )


def note_reversal(session: AsyncSession, payment: Payment, *, before: Facts, now: datetime) -> None:
    """A payment whose block was orphaned: noted when what an operator had credited was taken back."""
    if before["credited_usd"] is None or not is_by_hand(payment):
        return
    session.add(
        PaymentAction(
            payment_id=payment.id,
            action=Action.REVERSE,
            actor=Actor.CHAIN,
            asked={},
            before=before,
            after=facts_of(payment),
            reason="block orphaned",
            acted_at=now,
        )
    )


async def history_of(session: AsyncSession, payment_id: str) -> Sequence[PaymentAction]:
    """In the order in which it happened."""
    query = select(PaymentAction).where(PaymentAction.payment_id == payment_id).order_by(PaymentAction.id)
    return list(await session.scalars(query))


async def last_action(session: AsyncSession, payment_id: str) -> PaymentAction | None:
    query = select(PaymentAction).where(PaymentAction.payment_id == payment_id).order_by(PaymentAction.id.desc())
    return await session.scalar(query.limit(1))
