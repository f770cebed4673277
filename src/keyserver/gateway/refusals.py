"""Why a call was refused, in figures: a second look at what the admission's one statement had judged."""

from datetime import UTC, datetime, timedelta
from typing import Any

from keyserver.gateway.capabilities import Group
from keyserver.gateway.errors import (
    CreditsExhausted,
    GatewayError,
    InsufficientCredits,
    RateLimited,
    SpendingCapReached,
)
from keyserver.gateway.rate import DEFAULT_PER_MINUTE, rate_state
from keyserver.kit.clock import iso_z
from keyserver.kit.db import Connection
from keyserver.kit.money import NANOS_PER_CENT, format_nanos, nanos_to_cents_down
from keyserver.ledger.holds import Credit, credit_of
from keyserver.ledger.terms import Terms, terms_of

_WINDOW = "SELECT per_minute, head_second, buckets FROM rate_windows WHERE tenant_id = $1 AND rate_group = $2"


async def refusal(
    connection: Connection,
    *,
    tenant_id: str,
    group: Group | None,
    estimate_nanos: int,
    counted: bool,
    top_up_url: str | None,
    now: datetime,
) -> GatewayError:
    """What to raise, in the order of judgement: cap, rate, credit. `counted`: the rate had let the call through."""
    credit = await credit_of(connection, tenant_id, now=now)
    terms = await terms_of(connection, tenant_id)
    cap = _cap_reached(credit, terms, estimate_nanos, now=now)
    if group is not None and not counted and cap is None:
        return await _rate_limited(connection, tenant_id, group, now=now)
    refused = cap or _credit_refused(credit, terms, estimate_nanos)
    refused.members["topUpUrl"] = top_up_url
    return refused


def _cap_reached(credit: Credit, terms: Terms, estimate_nanos: int, *, now: datetime) -> SpendingCapReached | None:
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    next_month = (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
    for name, cap_nanos, spent_nanos, resets_at in (
        ("daily", terms.daily_cap_nanos, credit.day_spent_nanos, midnight + timedelta(days=1)),
        ("monthly", terms.monthly_cap_nanos, credit.month_spent_nanos, next_month),
    ):
        if cap_nanos is None:
            continue
        missing = spent_nanos + credit.held_nanos + estimate_nanos - cap_nanos
        if missing > 0:
            return SpendingCapReached(
                f"The {name} spending cap of ${format_nanos(cap_nanos)} does not allow this call:"
                f" ${format_nanos(missing)} is missing",
                **_members(credit, estimate_nanos, limit=f"{name}_cap", missing_nanos=missing, needs_credits=False),
                capUsd=format_nanos(cap_nanos),
                spentUsd=format_nanos(spent_nanos),
                resetsAt=iso_z(resets_at),
            )
    return None


def _credit_refused(credit: Credit, terms: Terms, estimate_nanos: int) -> GatewayError:
    """Exhausted: nothing is left, not even of the grace. Otherwise there is some, but not enough."""
    floor = -terms.grace_nanos if credit.credited else 0
    missing = max(0, floor + estimate_nanos - credit.available_nanos)
    exhausted = credit.credited and credit.available_nanos <= floor
    kind, what = (
        (CreditsExhausted, "The credit is used up")
        if exhausted
        else (InsufficientCredits, "The credit does not cover this call")
    )
    return kind(
        f"{what}: ${format_nanos(missing)} is missing",
        **_members(credit, estimate_nanos, limit="credit", missing_nanos=missing, needs_credits=True),
    )


def _members(
    credit: Credit, estimate_nanos: int, *, limit: str, missing_nanos: int, needs_credits: bool
) -> dict[str, Any]:
    return {
        "needsCredits": needs_credits,
        "currentBalanceCents": nanos_to_cents_down(credit.balance_nanos),
        "requiredCents": -(-estimate_nanos // NANOS_PER_CENT),
        "availableUsd": format_nanos(credit.available_nanos),
        "requiredUsd": format_nanos(estimate_nanos),
        "limit": limit,
        "missingUsd": format_nanos(missing_nanos),
    }


async def _rate_limited(connection: Connection, tenant_id: str, group: Group, *, now: datetime) -> RateLimited:
    row = await connection.fetchrow(_WINDOW, tenant_id, group)
    limit = DEFAULT_PER_MINUTE[group] if row["per_minute"] is None else row["per_minute"]
    state = rate_state(limit=limit, head_second=row["head_second"], buckets=row["buckets"], now=now)
    wait = max(1, state.reset_seconds)
    return RateLimited(
        f"More than {limit} {group} calls within a minute; try again in {wait} s",
        headers={**state.headers(), "x-ratelimit-remaining": "0", "retry-after": str(wait)},
        limit=f"{group}_per_minute",
    )
