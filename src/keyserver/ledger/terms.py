"""What was agreed with a tenant about its credit: grace, spending caps, margin, and when to warn whom."""

from dataclasses import dataclass
from decimal import Decimal

from keyserver.kit.db import Connection
from keyserver.kit.money import NANOS_PER_USD

#: How far below zero a tenant may go that was credited before.
DEFAULT_GRACE_NANOS = NANOS_PER_USD // 2


@dataclass(frozen=True, slots=True)
class Terms:
    """None: no cap, no warning, nobody to tell, and for `margin` whatever else decides it."""

    grace_nanos: int = DEFAULT_GRACE_NANOS
    daily_cap_nanos: int | None = None
    monthly_cap_nanos: int | None = None
    margin: Decimal | None = None
    low_balance_nanos: int | None = None
    top_up_below_nanos: int | None = None
    top_up_amount_nanos: int | None = None
    callback_url: str | None = None


_TERMS = """
    SELECT coalesce(grace_nanos, $2), daily_cap_nanos, monthly_cap_nanos, margin, low_balance_nanos,
           top_up_below_nanos, top_up_amount_nanos, callback_url
      FROM credit_terms WHERE tenant_id = $1
"""


async def terms_of(connection: Connection, tenant_id: str) -> Terms:
    row = await connection.fetchrow(_TERMS, tenant_id, DEFAULT_GRACE_NANOS)
    return Terms() if row is None else Terms(*row)
