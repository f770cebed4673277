"""Whether a call may go ahead: spending caps, then rate, then credit, judged and held in one statement.

The tenant's balance row guards credit and caps: PostgreSQL judges the conditions again, on the row as it then is, when
it had to wait for another call's change of it. The row of the rate window guards the rate. They are always taken in
this order. A call is counted against the rate before its credit is judged, and stays counted when that refuses it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from keyserver.gateway.capabilities import Group, group_of
from keyserver.gateway.payer import Payer
from keyserver.gateway.rate import CALLS, DEFAULT_PER_MINUTE, HEAD, ONE_MORE, RateState, instant_of, rate_state
from keyserver.gateway.refusals import refusal
from keyserver.kit.clock import utc_day
from keyserver.kit.db import Connect
from keyserver.kit.grouping import Grouped
from keyserver.kit.ids import new_id
from keyserver.ledger.chart import tenant_account
from keyserver.ledger.holds import SPENT_IN_MONTH, SPENT_ON_DAY, month_of
from keyserver.ledger.journal import open_tenant_account
from keyserver.ledger.terms import DEFAULT_GRACE_NANOS


@dataclass(frozen=True, slots=True)
class Admitted:
    """A pending hold. `rate` is None for a capability that counts against no limit."""

    hold_id: str
    estimate_nanos: int
    available_nanos: int
    rate: RateState | None


_WITHIN_CAPS = f"""(
    $8 OR (coalesce({SPENT_ON_DAY.format(day="$9::date")} + b.held_nanos + $7 <= terms.daily_cap_nanos, true)
       AND coalesce({SPENT_IN_MONTH.format(month="$10::date")} + b.held_nanos + $7 <= terms.monthly_cap_nanos, true))
)"""
_COVERED = "($8 OR b.balance_nanos - b.held_nanos - $7 >= CASE WHEN b.credited THEN -terms.grace_nanos ELSE 0 END)"

ADMIT = f"""
    WITH terms AS (
        SELECT coalesce(grace_nanos, {DEFAULT_GRACE_NANOS}) AS grace_nanos, daily_cap_nanos, monthly_cap_nanos
          FROM (VALUES (1)) AS always LEFT JOIN credit_terms ON tenant_id = $1
    ), seen AS (
        SELECT {_WITHIN_CAPS} AS within_caps FROM account_balances AS b, terms WHERE account_code = $6 AND stripe = 0
    ), counted AS (
        INSERT INTO rate_windows AS w (tenant_id, rate_group, head_second, buckets)
        SELECT $1, $2, $3, ARRAY[1000 + $4] FROM seen WHERE within_caps AND $2::text IS NOT NULL
        ON CONFLICT (tenant_id, rate_group) DO UPDATE SET head_second = {HEAD}, buckets = {ONE_MORE}
         WHERE {CALLS} < coalesce(w.per_minute, $5)
        RETURNING per_minute, head_second, buckets
    ), held AS (
        UPDATE account_balances AS b SET held_nanos = b.held_nanos + $7
          FROM terms
         WHERE b.account_code = $6 AND b.stripe = 0 AND ($2::text IS NULL OR EXISTS (SELECT FROM counted))
           AND {_WITHIN_CAPS} AND {_COVERED}
        RETURNING b.balance_nanos - b.held_nanos AS available_nanos
    ), placed AS (
        INSERT INTO holds (id, tenant_id, instance_id, attributed_tenant_id, capability, estimate_nanos, created_at,
                           expires_at)
        SELECT $11, $1, $12, $13, $14, $7, $15, $16 FROM held
    )
    SELECT EXISTS (SELECT FROM seen) AS opened, per_minute, head_second, buckets, available_nanos
      FROM (VALUES (1)) AS always LEFT JOIN counted ON true LEFT JOIN held ON true
"""  # noqa: S608 - constants


async def admit(
    connect: Connect,
    *,
    payer: Payer,
    capability: str,
    estimate_nanos: int,
    ttl: timedelta,
    now: datetime,
    top_up_url: str | None = None,
    grouped: Grouped | None = None,
) -> Admitted:
    """Holds the estimate until it is settled or voided, or `ttl` has passed.

    Admitted when available (balance - pending holds) covers the estimate, or goes below zero by no more than the grace
    of a tenant that was credited before. Raises SpendingCapReached, RateLimited, InsufficientCredits or
    CreditsExhausted; a platform service is refused for its rate alone. `top_up_url` is what a refusal for credit names.
    `grouped` judges calls of one tenant together that come at once (one after the other, each on what those before
    have left).
    """
    group = group_of(capability)
    hold_id = new_id("hold")
    arguments = (
        *_judged(payer, group, estimate_nanos, now=now),
        hold_id,
        payer.instance_id,
        payer.attributed_tenant_id,
        capability,
        now,
        now + ttl,
    )
    row = await _admit(connect, grouped, payer.tenant_id, arguments)
    if row["available_nanos"] is None:
        async with connect() as connection:
            refused = await refusal(
                connection,
                tenant_id=payer.tenant_id,
                group=group,
                estimate_nanos=estimate_nanos,
                counted=row["buckets"] is not None,
                top_up_url=top_up_url,
                now=now,
            )
        raise refused
    return Admitted(hold_id, estimate_nanos, row["available_nanos"], _rate(row, group, now))


def _judged(payer: Payer, group: Group | None, estimate_nanos: int, *, now: datetime) -> tuple[Any, ...]:
    """$1 to $10: what is asked, of whom, and when."""
    day = utc_day(now)
    second, millisecond = instant_of(now)
    return (
        payer.tenant_id,
        group,
        second,
        millisecond,
        None if group is None else DEFAULT_PER_MINUTE[group],
        tenant_account(payer.tenant_id).code,
        estimate_nanos,
        payer.unlimited,
        day,
        month_of(day),
    )


async def _admit(connect: Connect, grouped: Grouped | None, tenant_id: str, arguments: tuple[Any, ...]) -> Any:
    if grouped is not None:
        # One window's row and then one balance's, so that two groups never wait for each other in a circle.
        row = await grouped.fetchrow(f"{tenant_id} {arguments[1]}", arguments)
        if row["opened"]:
            return row
    async with connect() as connection:
        row = await connection.fetchrow(ADMIT, *arguments)
        if row["opened"]:
            return row
        # Nothing was ever posted for this tenant, so there is no row to guard it by yet.
        await open_tenant_account(connection, tenant_id)
        return await connection.fetchrow(ADMIT, *arguments)


def _rate(row: Any, group: Group | None, now: datetime) -> RateState | None:
    if group is None:
        return None
    limit = DEFAULT_PER_MINUTE[group] if row["per_minute"] is None else row["per_minute"]
    return rate_state(limit=limit, head_second=row["head_second"], buckets=row["buckets"], now=now)
