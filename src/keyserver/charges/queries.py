"""Reading charges and payments; every query of a tenant's is held to that tenant in SQL."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.chains.models import Blockchain, PaymentMethod
from keyserver.charges.errors import ChargeNotFound, PaymentNotFound
from keyserver.charges.models import Charge, Payment
from keyserver.charges.states import ChargeStatus, PaymentStatus


@dataclass(frozen=True, slots=True)
class Found:
    """A charge with its blockchain's name, its token, and its payments in the order they were seen."""

    charge: Charge
    chain: str
    token: str
    payments: list[Payment]


@dataclass(frozen=True, slots=True)
class Filter:
    status: ChargeStatus | None = None
    chain: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


def _charges(tenant_id: str) -> Select[Charge, str, str]:
    return (
        select(Charge, Blockchain.chain, PaymentMethod.token)
        .join(PaymentMethod, PaymentMethod.id == Charge.payment_method_id)
        .join(Blockchain, Blockchain.id == PaymentMethod.blockchain_id)
        .where(Charge.tenant_id == tenant_id)
    )


async def get_charge(session: AsyncSession, charge_id: str, *, tenant_id: str) -> Found:
    row = (await session.execute(_charges(tenant_id).where(Charge.id == charge_id))).first()
    if row is None:
        raise ChargeNotFound
    payments = await payments_of(session, [charge_id])
    return Found(row[0], row[1], row[2], payments[charge_id])


async def list_charges(
    session: AsyncSession, *, tenant_id: str, wanted: Filter, before_id: str | None, limit: int
) -> list[Found]:
    """Newest first. Ids are ordered by time, so the id alone is the cursor."""
    query = _charges(tenant_id).order_by(Charge.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(Charge.id < before_id)
    if wanted.status is not None:
        query = query.where(Charge.status == wanted.status)
    if wanted.chain is not None:
        query = query.where(or_(Charge.payment_method_id == wanted.chain, Blockchain.chain == wanted.chain))
    if wanted.created_after is not None:
        query = query.where(Charge.created_at > wanted.created_after)
    if wanted.created_before is not None:
        query = query.where(Charge.created_at < wanted.created_before)
    rows = (await session.execute(query)).all()
    payments = await payments_of(session, [charge.id for charge, _, _ in rows])
    return [Found(charge, chain, token, payments[charge.id]) for charge, chain, token in rows]


async def payments_of(
    session: AsyncSession, charge_ids: Iterable[str], *, refresh: bool = False
) -> dict[str, list[Payment]]:
    """Payments by charge, in the order they were seen; `refresh` overwrites what the session has read before."""
    query = select(Payment).where(Payment.charge_id.in_(list(charge_ids))).order_by(Payment.seen_at, Payment.id)
    found: dict[str, list[Payment]] = defaultdict(list)
    for payment in await session.scalars(query, execution_options={"populate_existing": refresh}):
        found[payment.charge_id or ""].append(payment)
    return found


# --- payments, for operators ------------------------------------------------------------------------------------

#: Confirmed, but neither credited to anybody nor dismissed.
UNMATCHED = (
    Payment.status == PaymentStatus.CONFIRMED,
    Payment.credited_nanos.is_(None),
    Payment.dismissed_at.is_(None),
)


@dataclass(frozen=True, slots=True)
class PaymentFilter:
    unmatched: bool = False
    status: PaymentStatus | None = None
    chain: str | None = None
    tenant_id: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class FoundPayment:
    payment: Payment
    chain: str
    network: str


def _payments() -> Select[Payment, str, str]:
    return select(Payment, Blockchain.chain, Blockchain.network).join(
        Blockchain, Blockchain.id == Payment.blockchain_id
    )


async def get_payment(session: AsyncSession, payment_id: str) -> FoundPayment:
    row = (await session.execute(_payments().where(Payment.id == payment_id))).first()
    if row is None:
        raise PaymentNotFound
    return FoundPayment(*row)


async def list_payments(
    session: AsyncSession, *, wanted: PaymentFilter, before_id: str | None, limit: int
) -> list[FoundPayment]:
    """Newest first. `chain` is a payment method's id or a blockchain's name."""
    query = _payments().order_by(Payment.id.desc()).limit(limit)
    if wanted.unmatched:
        query = query.where(*UNMATCHED)
    if wanted.status is not None:
        query = query.where(Payment.status == wanted.status)
    if wanted.chain is not None:
        query = query.where(or_(Payment.payment_method_id == wanted.chain, Blockchain.chain == wanted.chain))
    if wanted.tenant_id is not None:
        query = query.where(Payment.tenant_id == wanted.tenant_id)
    if wanted.reason is not None:
        query = query.where(Payment.reason == wanted.reason)
    if before_id is not None:
        query = query.where(Payment.id < before_id)
    return [FoundPayment(*row) for row in await session.execute(query)]
