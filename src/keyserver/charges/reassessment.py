"""Bringing a charge's row to what states.py says of it, and telling its receiver when that changed something."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.chains.models import Blockchain, PaymentMethod
from keyserver.charges.errors import PaymentNotFound
from keyserver.charges.models import Charge, Payment
from keyserver.charges.queries import payments_of
from keyserver.charges.states import (
    COUNTED,
    ChargeStatus,
    PaymentFact,
    Terms,
    assess,
    event_type,
)
from keyserver.kit.clock import iso_z
from keyserver.kit.money import MAX_NANOS, MAX_UNITS, nanos_to_cents_down, units_to_nanos_down
from keyserver.webhooks.outbox import enqueue


async def lock_charges(session: AsyncSession, charge_ids: Iterable[str | None]) -> Sequence[Charge]:
    """The charges, locked until the transaction ends, as they are now; always in the order of their ids."""
    ids = sorted({charge_id for charge_id in charge_ids if charge_id is not None})
    if not ids:
        return []
    query = select(Charge).where(Charge.id.in_(ids)).order_by(Charge.id).with_for_update()
    return list(await session.scalars(query, execution_options={"populate_existing": True}))


async def lock_payment(session: AsyncSession, payment_id: str) -> tuple[Payment, Sequence[Charge]]:
    """The payment and the charge it counts for, if any, both locked and as they are now: the charge first."""
    charge_id = await session.scalar(select(Payment.charge_id).where(Payment.id == payment_id))
    charges = await lock_charges(session, {charge_id})
    payment = await session.get(Payment, payment_id, with_for_update=True, populate_existing=True)
    if payment is None:
        raise PaymentNotFound
    return payment, charges


def terms_of(charge: Charge) -> Terms:
    return Terms(charge.expected_units, charge.expires_at, charge.confirmations_required)


async def reassess(session: AsyncSession, charges: Sequence[Charge], *, now: datetime) -> None:
    """Writes what became of these locked charges, one webhook for each that changed."""
    if not charges:
        return
    # As they are now that the charges are locked, not as this session may have read them before it waited.
    payments = await payments_of(session, [charge.id for charge in charges], refresh=True)
    for charge in charges:
        await _reassess_one(session, charge, payments[charge.id], now=now)
    await session.flush()


async def _reassess_one(session: AsyncSession, charge: Charge, payments: list[Payment], *, now: datetime) -> None:
    outcome = assess(terms_of(charge), [_fact(payment) for payment in payments], now=_not_before(charge, now))
    before, told_before = (charge.status, charge.additional_status), _told(charge)
    charge.status, charge.additional_status = outcome.status, outcome.additional_status
    charge.received_units = min(outcome.received_units, MAX_UNITS)
    charge.confirmed_units = min(outcome.confirmed_units, MAX_UNITS)
    charge.confirmations = outcome.confirmations
    received_nanos = sum(_worth(charge, payment) for payment in payments if payment.status in COUNTED)
    charge.received_nanos = min(received_nanos, MAX_NANOS)
    charge.deadline_at = outcome.deadline_at
    if outcome.status is not ChargeStatus.SETTLED:
        charge.credited_at = None
    elif charge.credited_at is None:
        charge.credited_at = now
    if _told(charge) == told_before:
        return
    charge.sequence += 1
    if charge.callback_url is not None:
        kind = event_type(outcome.status, outcome.additional_status, before=before[0], additional_before=before[1])
        await _tell(session, charge, charge.callback_url, payments, kind=kind, now=now)


def _not_before(charge: Charge, now: datetime) -> datetime:
    """`now`, but never before what was decided already: whoever waited for the lock has an older time in hand."""
    match charge.status:
        case ChargeStatus.EXPIRED:
            return max(now, charge.expires_at)
        case ChargeStatus.INVALID:
            return max(now, terms_of(charge).monitored_until + timedelta(microseconds=1))
        case _:
            return now


def _fact(payment: Payment) -> PaymentFact:
    return PaymentFact(
        amount_units=payment.amount_units,
        status=payment.status,
        confirmations=payment.confirmations,
        seen_at=payment.seen_at,
        confirmed_at=payment.confirmed_at,
        reversed=payment.credits > 0 and payment.credited_nanos is None,
    )


def _worth(charge: Charge, payment: Payment) -> int:
    """Nanodollars: what was credited, or what would be at the locked rate."""
    if payment.credited_nanos is not None:
        return payment.credited_nanos
    return units_to_nanos_down(payment.amount_units, price_usd=charge.price_usd, decimals=charge.decimals)


def _told(charge: Charge) -> tuple[object, ...]:
    """What a receiver knows of a charge; it is told when any of it changes."""
    return (
        charge.status,
        charge.additional_status,
        charge.received_units,
        charge.confirmed_units,
        charge.received_nanos,
        charge.confirmations,
    )


async def _tell(
    session: AsyncSession, charge: Charge, url: str, payments: list[Payment], *, kind: str, now: datetime
) -> None:
    method = await session.get_one(PaymentMethod, charge.payment_method_id)
    blockchain = await session.get_one(Blockchain, method.blockchain_id)
    counted = [payment for payment in payments if payment.status in COUNTED] or payments
    payload = {
        "type": kind,
        "timestamp": iso_z(now),
        "sequence": charge.sequence,
        "chargeId": charge.id,
        "chain": blockchain.chain,
        "token": method.token,
        "address": charge.address,
        "status": charge.status,
        "additionalStatus": charge.additional_status,
        "txHash": counted[-1].tx_hash if counted else None,
        "confirmations": charge.confirmations,
        "confirmationsRequired": charge.confirmations_required,
        "amountExpectedCents": charge.amount_cents,
        "amountReceivedCents": nanos_to_cents_down(charge.received_nanos),
        "expectedAmount": str(charge.expected_units),
        "receivedAmount": str(charge.received_units),
        "metadata": charge.metadata_,
    }
    await enqueue(
        session,
        tenant_id=charge.tenant_id,
        signing_tenant_id=charge.signing_tenant_id,
        subject_id=charge.id,
        sequence=charge.sequence,
        type=kind,
        url=url,
        payload=payload,
        now=now,
    )
