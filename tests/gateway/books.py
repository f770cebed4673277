"""What tests of billing are built from: a payer with some credit, calls, and the books checked."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import text
from tests.watching.world import add_tenant

from keyserver.gateway.admission import Admitted, admit
from keyserver.gateway.billing import Metered, Outcome, Settled, settle
from keyserver.gateway.payer import Payer
from keyserver.gateway.tariff import CostSource
from keyserver.kit.db import Database
from keyserver.ledger.balances import discrepancies, held_discrepancies, trial_balance
from keyserver.ledger.chart import CASH, tenant_account
from keyserver.ledger.holds import Credit, credit_of
from keyserver.ledger.journal import Entry, post, transfer
from keyserver.ledger.models import EntryType

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
USD = 1_000_000_000


def payer(tenant_id: str = "acme", *, unlimited: bool = False, **members: Any) -> Payer:
    return Payer(tenant_id, unlimited, **{"key_id": None, "instance_id": None, "attributed_tenant_id": None, **members})


def metered(charge_nanos: int, **members: Any) -> Metered:
    """A call of the capability `fax`, which counts against no rate."""
    fields: dict[str, Any] = {
        "request_id": "req_1",
        "capability": "lookup",
        "model": None,
        "upstream": "up",
        "input_tokens": 3,
        "output_tokens": 4,
        "units": Decimal("1.5"),
        "unit_type": "pages",
        "cost_nanos": charge_nanos,
        "charge_nanos": charge_nanos,
        "cost_source": CostSource.USAGE,
        "started_at": NOW,
        "duration_ms": 12,
        "first_byte_ms": None,
        "outcome": Outcome.COMPLETED,
        "upstream_status": 200,
        "streamed": False,
    }
    return Metered(**(fields | members))


async def give(database: Database, nanos: int, *, tenant_id: str = "acme", reference: str = "first") -> None:
    """Opens the tenant when it is not there, and credits it."""
    await add_tenant(database, tenant_id)
    lines = transfer(debit=CASH, credit=tenant_account(tenant_id), amount_nanos=nanos)
    async with database.connection() as connection:
        await post(connection, Entry(EntryType.GRANT, tenant_id, "test", f"{tenant_id}:{reference}", lines, NOW))


async def hold(
    database: Database,
    nanos: int,
    *,
    by: Payer | None = None,
    capability: str = "lookup",
    seconds: int = 60,
    now: datetime = NOW,
) -> Admitted:
    return await admit(
        database.connection,
        payer=by or payer(),
        capability=capability,
        estimate_nanos=nanos,
        ttl=timedelta(seconds=seconds),
        now=now,
    )


async def charge(
    database: Database,
    admitted: Admitted,
    nanos: int,
    *,
    by: Payer | None = None,
    now: datetime = NOW,
    late: bool = True,
    **members: Any,
) -> Settled:
    return await settle(
        database.connection,
        hold_id=admitted.hold_id,
        payer=by or payer(),
        metered=metered(nanos, **members),
        now=now,
        late=late,
    )


async def credit(database: Database, tenant_id: str = "acme", *, now: datetime = NOW) -> Credit:
    async with database.connection() as connection:
        return await credit_of(connection, tenant_id, now=now)


#: Of every tenant: what its usage records charge against what its usage entries took; those that differ.
_USAGE_DIFFERS = """
    SELECT tenant_id, sum(recorded) AS recorded, sum(posted) AS posted FROM (
        SELECT tenant_id, charge_nanos AS recorded, 0 AS posted FROM usage_records
        UNION ALL
        SELECT tenant_id, 0, amount_nanos FROM journal_entries AS e JOIN journal_lines AS l ON l.entry_id = e.id
         WHERE e.type = 'usage' AND l.side = 'debit'
    ) AS both_books GROUP BY tenant_id HAVING sum(recorded) <> sum(posted)
"""


async def books_are_whole(database: Database) -> None:
    """Balances are the sums of their lines, held is the sum of pending holds, records say what the ledger took."""
    async with database.transaction() as session:
        assert (await session.execute(text(_USAGE_DIFFERS))).all() == []
        assert await discrepancies(session) == []
        assert await held_discrepancies(session) == []
        assert (await trial_balance(session)).difference_nanos == 0
