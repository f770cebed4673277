"""Entries an operator posts by hand: grants, refunds, dividends, expiries, corrections, purchases in cash."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.access.tenants import get_tenant
from keyserver.kit.db import driver_connection
from keyserver.ledger.chart import MANUAL, tenant_account
from keyserver.ledger.errors import ReferenceReused
from keyserver.ledger.journal import Entry, post, transfer
from keyserver.ledger.models import EntryType, JournalEntry, JournalLine, Side

SOURCE = "admin"


async def post_manual(
    session: AsyncSession,
    *,
    tenant_id: str,
    type: EntryType,  # noqa: A002 - the wire's word
    amount_nanos: int,
    reference_id: str,
    description: str | None,
    now: datetime,
) -> tuple[JournalEntry, JournalLine, bool]:
    """The entry with the tenant's line, and whether it is new. A negative amount turns a correction round.

    The same reference with the same content gives the entry that is there; with other content ReferenceReused.
    """
    await get_tenant(session, tenant_id)
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"{SOURCE}\x1f{reference_id}", 1))))
    account, gives = MANUAL[type]
    gives = gives == (amount_nanos > 0)
    found = await _find(session, reference_id)
    if found is not None:
        entry, line = found
        same = (entry.type, entry.tenant_id, entry.description) == (type, tenant_id, description)
        side = Side.CREDIT if gives else Side.DEBIT
        if not same or (line.amount_nanos, line.side) != (abs(amount_nanos), side):
            raise ReferenceReused
        return entry, line, False
    tenant = tenant_account(tenant_id)
    debit, credit = (account, tenant) if gives else (tenant, account)
    await post(
        await driver_connection(session),
        Entry(
            type=type,
            tenant_id=tenant_id,
            source=SOURCE,
            reference_id=reference_id,
            lines=transfer(debit=debit, credit=credit, amount_nanos=abs(amount_nanos)),
            posted_at=now,
            description=description,
        ),
    )
    posted = await _find(session, reference_id)
    assert posted is not None
    return *posted, True


async def _find(session: AsyncSession, reference_id: str) -> tuple[JournalEntry, JournalLine] | None:
    query = (
        select(JournalEntry, JournalLine)
        .join(JournalLine, JournalLine.entry_id == JournalEntry.id)
        .where(JournalEntry.source == SOURCE, JournalEntry.reference_id == reference_id)
        .where(JournalLine.account_version.is_not(None))
    )
    row = (await session.execute(query)).first()
    return None if row is None else (row[0], row[1])
