"""Two-phase transfers: credit is held first (pending), then posted, voided or expired (TigerBeetle's words).

All that guards a tenant's credit stands in its one balance row: balance, held, spent. Whoever changes a hold changes
that row in the same statement, which PostgreSQL judges anew when it had to wait for the row; a sum over the holds would
be of the moment before the wait. Placing a hold is in gateway/admission.py, posting it in gateway/billing.py: both are
single statements with what else belongs to a call.
"""

from dataclasses import dataclass
from datetime import date, datetime

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.kit import metrics
from keyserver.kit.clock import utc_day
from keyserver.kit.db import Connection
from keyserver.ledger.chart import TENANT_PREFIX, tenant_account
from keyserver.ledger.models import Hold, HoldStatus

#: Holds expired in one statement, and so in one transaction.
BATCH = 500
_log = structlog.get_logger("keyserver.holds")

#: What `b`, a tenant's balance row, has spent on a day and in a month. A row of a later day than asked for (another
#: process's clock is ahead) counts, so that two clocks round midnight never reset each other.
SPENT_ON_DAY = "CASE WHEN b.spent_on >= {day} THEN b.day_spent_nanos ELSE 0 END"
SPENT_IN_MONTH = "CASE WHEN b.spent_on >= {month} THEN b.month_spent_nanos ELSE 0 END"


@dataclass(frozen=True, slots=True)
class Credit:
    """A tenant's credit in nanodollars; `day_spent_nanos` and `month_spent_nanos` are of the UTC day and month."""

    balance_nanos: int = 0
    held_nanos: int = 0
    credited: bool = False
    day_spent_nanos: int = 0
    month_spent_nanos: int = 0

    @property
    def available_nanos(self) -> int:
        return self.balance_nanos - self.held_nanos


_CREDIT = f"""
    SELECT balance_nanos, held_nanos, credited, {SPENT_ON_DAY.format(day="$2::date")},
           {SPENT_IN_MONTH.format(month="$3::date")}
      FROM account_balances AS b WHERE account_code = $1 AND stripe = 0
"""  # noqa: S608 - a constant

_VOID = f"""
    WITH closing AS (
        UPDATE holds SET status = 'voided', closed_at = $3
         WHERE id = $1 AND status = 'pending' AND ($2::text IS NULL OR tenant_id = $2)
        RETURNING tenant_id, estimate_nanos
    )
    UPDATE account_balances AS b SET held_nanos = b.held_nanos - estimate_nanos
      FROM closing WHERE b.account_code = '{TENANT_PREFIX}' || tenant_id AND b.stripe = 0
    RETURNING b.held_nanos
"""  # noqa: S608 - a constant

#: Balance rows are taken in the order every posting takes them in; see journal.py.
_EXPIRE = f"""
    WITH due AS (
        SELECT id FROM holds WHERE status = 'pending' AND expires_at <= $1
         ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
    ), closing AS (
        UPDATE holds SET status = 'expired', closed_at = $1 FROM due WHERE holds.id = due.id
        RETURNING holds.id, tenant_id, capability, estimate_nanos
    ), released AS (
        INSERT INTO account_balances AS b (account_code, stripe, held_nanos)
        SELECT '{TENANT_PREFIX}' || tenant_id, 0, sum(estimate_nanos) FROM closing GROUP BY tenant_id ORDER BY 1
        ON CONFLICT (account_code, stripe) DO UPDATE SET held_nanos = b.held_nanos - excluded.held_nanos
    )
    SELECT id, tenant_id, capability, estimate_nanos FROM closing
"""  # noqa: S608 - a constant


def month_of(day: date) -> date:
    """The first day of its month."""
    return day.replace(day=1)


async def credit_of(connection: Connection, tenant_id: str, *, now: datetime) -> Credit:
    """All zeros for a tenant nothing was ever posted or held for."""
    day = utc_day(now)
    row = await connection.fetchrow(_CREDIT, tenant_account(tenant_id).code, day, month_of(day))
    return Credit() if row is None else Credit(*row)


async def void(connection: Connection, *, hold_id: str, now: datetime, tenant_id: str | None = None) -> bool:
    """Gives a pending hold's credit back; False when it is not pending, or not that tenant's."""
    return await connection.fetchval(_VOID, hold_id, tenant_id, now) is not None


async def expire_due(connection: Connection, *, now: datetime) -> int:
    """Gives the credit of overdue holds back, and reports each; returns how many: a full batch means more."""
    expired = await connection.fetch(_EXPIRE, now, BATCH)
    for hold in expired:
        _log.warning(
            "hold_expired",
            hold_id=hold["id"],
            tenant=hold["tenant_id"],
            capability=hold["capability"],
            estimate_nanos=hold["estimate_nanos"],
        )
    metrics.HOLDS_EXPIRED.inc(len(expired))
    return len(expired)


async def get_hold(session: AsyncSession, hold_id: str, *, tenant_id: str) -> Hold | None:
    """The tenant's hold; None for any other's."""
    hold = await session.get(Hold, hold_id)
    return hold if hold is not None and hold.tenant_id == tenant_id else None


@dataclass(frozen=True, slots=True)
class Filter:
    """What to list; None leaves a question open."""

    status: HoldStatus | None = None
    tenant_id: str | None = None


async def list_holds(session: AsyncSession, *, wanted: Filter, before_id: str | None, limit: int) -> list[Hold]:
    """Newest first. The expired ones are what was asked for and never billed."""
    query = select(Hold).order_by(Hold.id.desc()).limit(limit)
    if wanted.status is not None:
        query = query.where(Hold.status == wanted.status)
    if wanted.tenant_id is not None:
        query = query.where(Hold.tenant_id == wanted.tenant_id)
    if before_id is not None:
        query = query.where(Hold.id < before_id)
    return list(await session.scalars(query))
