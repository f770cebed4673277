"""Calls that are made elsewhere and billed here: whoever made one holds credit before, and states its cost after.

Settling or voiding a hold again with the same content gives the same answer; anything else on a closed hold is refused.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from keyserver.gateway.billing import Metered, Outcome, settle
from keyserver.gateway.errors import HoldClosed, HoldNotFound
from keyserver.gateway.payer import Payer
from keyserver.gateway.tariff import CostSource, charge_nanos
from keyserver.kit.db import Connect
from keyserver.ledger import holds
from keyserver.ledger.models import HoldStatus
from keyserver.ledger.terms import terms_of


@dataclass(frozen=True, slots=True)
class Statement:
    """What the caller says a call came to. `request_id` is the call's own name, charged once by tenant."""

    cost_nanos: int
    request_id: str
    provider: str | None
    units: Decimal | None
    unit_type: str | None


@dataclass(frozen=True, slots=True)
class Bill:
    """`available_nanos` is of now; all else is the same however often it is asked for."""

    hold_id: str
    capability: str
    entry_id: str | None
    cost_nanos: int
    charged_nanos: int
    available_nanos: int


_HOLD = """
    SELECT capability, instance_id, attributed_tenant_id, status, created_at FROM holds
     WHERE id = $1 AND tenant_id = $2
"""
_STATED = "SELECT cost_nanos, request_id, upstream, units, unit_type FROM usage_records WHERE hold_id = $1"


async def settle_stated(
    connect: Connect, *, hold_id: str, payer: Payer, statement: Statement, default_margin: Decimal, now: datetime
) -> Bill:
    """Charges the cost times the tenant's margin, else the default one, rounded up to a nanodollar.

    Raises HoldNotFound, HoldClosed and RequestIdUsed.
    """
    async with connect() as connection:
        hold = await _hold(connection, hold_id, payer)
        margin = (await terms_of(connection, payer.tenant_id)).margin or default_margin
    payer = Payer(payer.tenant_id, payer.unlimited, payer.key_id, hold["instance_id"], hold["attributed_tenant_id"])
    metered = _metered(statement, hold, margin=margin, now=now)
    settled = await settle(connect, hold_id=hold_id, payer=payer, metered=metered, now=now, late=False)
    if settled.replayed:
        async with connect() as connection:
            if Statement(*await connection.fetchrow(_STATED, hold_id)) != statement:
                raise HoldClosed("This hold was settled with other content")
    return Bill(
        hold_id=hold_id,
        capability=hold["capability"],
        entry_id=settled.entry_id,
        cost_nanos=statement.cost_nanos,
        charged_nanos=settled.charged_nanos,
        available_nanos=settled.available_nanos,
    )


async def void_hold(connect: Connect, *, hold_id: str, payer: Payer, now: datetime) -> None:
    """Raises HoldNotFound, and HoldClosed for one that is posted or has expired."""
    async with connect() as connection:
        if await holds.void(connection, hold_id=hold_id, tenant_id=payer.tenant_id, now=now):
            return
        status = (await _hold(connection, hold_id, payer))["status"]
    if status != HoldStatus.VOIDED:
        raise HoldClosed(f"This hold is {status} already")


async def _hold(connection: Any, hold_id: str, payer: Payer) -> Any:
    found = await connection.fetchrow(_HOLD, hold_id, payer.tenant_id)
    if found is None:
        raise HoldNotFound
    return found


def _metered(statement: Statement, hold: Any, *, margin: Decimal, now: datetime) -> Metered:
    return Metered(
        request_id=statement.request_id,
        capability=hold["capability"],
        model=None,
        upstream=statement.provider,
        input_tokens=0,
        output_tokens=0,
        units=statement.units,
        unit_type=statement.unit_type,
        cost_nanos=statement.cost_nanos,
        charge_nanos=charge_nanos(statement.cost_nanos, margin=margin),
        cost_source=CostSource.STATED,
        started_at=hold["created_at"],
        duration_ms=max(0, round((now - hold["created_at"]).total_seconds() * 1000)),
        first_byte_ms=None,
        outcome=Outcome.COMPLETED,
        upstream_status=None,
        streamed=False,
    )
