"""The hot queries use the index made for them: a table that grows must not make them slower.

The code's own statements are noted as they go out, and explained with sequential scans and sorting made dear: a plan
that still has one could not do without.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asyncpg.connection import LoggedQuery
from sqlalchemy import event
from tests.gateway.books import metered, payer
from tests.watching.world import add_tenant

from keyserver.access.keys import KeyRing
from keyserver.addresses.owners import owners_of
from keyserver.charges.errors import ChargeNotFound
from keyserver.charges.expiry import expire_due
from keyserver.charges.queries import Filter, get_charge, list_charges
from keyserver.charges.states import ChargeStatus
from keyserver.gateway.admission import admit
from keyserver.gateway.billing import settle, void
from keyserver.gateway.usage import Dimension, Period, usage
from keyserver.kit.db import Database
from keyserver.ledger.balances import tenant_history
from keyserver.ledger.holds import Filter as HoldFilter
from keyserver.ledger.holds import expire_due as expire_holds
from keyserver.ledger.holds import list_holds
from keyserver.ledger.models import HoldStatus
from keyserver.webhooks.claims import claim_due

NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Noted:
    """The statements that went out since the last look, and what the planner would do with them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries: list[tuple[str, Sequence[Any]]] = []
        event.listen(database.engine.sync_engine, "before_cursor_execute", self._note_sqlalchemy)

    def note(self, query: LoggedQuery) -> None:
        """For the bare driver's statements."""
        self._queries.append((query.query, query.args))

    def _note_sqlalchemy(self, _: object, __: object, statement: str, parameters: Sequence[Any], *___: object) -> None:
        self._queries.append((statement, parameters))

    async def plans(self) -> str:
        taken, self._queries = self._queries, []
        plans = ""
        async with self._database.connection() as connection:
            for query, arguments in taken:
                if query.lstrip().upper().startswith(("SELECT", "WITH")):
                    plans += "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {query}", *arguments))
        self._queries.clear()
        assert "Seq Scan" not in plans, plans
        return plans


@pytest.fixture
async def noted(database_url: str) -> AsyncIterator[tuple[Database, Noted]]:
    """A database of one connection, whose statements are noted."""
    database = Database(database_url, pool_size=1)
    async with database.connection() as connection:
        for kind in ("seqscan", "sort", "bitmapscan"):
            await connection.execute(f"SET enable_{kind} = off")
        noted = Noted(database)
        connection.add_query_logger(noted.note)
    yield database, noted
    await database.dispose()


async def test_a_key_is_looked_up_by_its_digest(noted: tuple[Database, Noted]) -> None:
    database, seen = noted
    keys = KeyRing(database, service_key=None, clock=lambda: NOW)
    assert await keys.owner("ks_a-key-that-nobody-has-0123456789") is None
    assert "uq_service_keys_digest" in await seen.plans()


async def test_charges_are_found_by_id_and_paged_in_the_order_of_their_index(noted: tuple[Database, Noted]) -> None:
    database, seen = noted
    async with database.transaction() as session:
        with pytest.raises(ChargeNotFound):
            await get_charge(session, "ch_x", tenant_id="acme")
    plans = await seen.plans()
    assert "pk_charges" in plans or "ix_charges_tenant_id_id" in plans
    for wanted, before in ((Filter(), None), (Filter(), "ch_y"), (Filter(chain="LTC"), None)):
        async with database.transaction() as session:
            await list_charges(session, tenant_id="acme", wanted=wanted, before_id=before, limit=50)
        plans = await seen.plans()
        assert "Index Scan Backward using ix_charges_tenant_id_id" in plans, plans
        assert "Sort Key: charges.id" not in plans


async def test_charges_that_have_not_ended_are_found_without_reading_those_that_have(
    noted: tuple[Database, Noted],
) -> None:
    database, seen = noted
    for status in (ChargeStatus.NEW, ChargeStatus.PROCESSING, ChargeStatus.INVALID):
        async with database.transaction() as session:
            await list_charges(session, tenant_id="acme", wanted=Filter(status=status), before_id=None, limit=50)
        assert "ix_charges_unended" in await seen.plans()


async def test_a_page_of_the_ledger_is_read_from_the_account_s_history(noted: tuple[Database, Noted]) -> None:
    database, seen = noted
    for version in (None, 7):
        async with database.transaction() as session:
            await tenant_history(session, "acme", before_version=version, limit=50)
        plans = await seen.plans()
        assert "Scan Backward using uq_journal_lines_history" in plans and "pk_journal_entries" in plans, plans
        assert "Sort Key" not in plans


async def test_a_block_s_addresses_are_looked_up_by_what_they_match(noted: tuple[Database, Noted]) -> None:
    database, seen = noted
    async with database.transaction() as session:
        await owners_of(session, {"an-address", "another"}, now=NOW)
    plans = await seen.plans()
    assert "uq_addresses_match_key" in plans and "uq_lookahead_addresses_match_key" in plans, plans


async def test_due_deadlines_and_due_webhooks_are_read_from_their_partial_indexes(
    noted: tuple[Database, Noted],
) -> None:
    database, seen = noted
    await expire_due(database, clock=lambda: NOW)
    assert "ix_charges_deadline" in await seen.plans()
    async with database.connection() as connection:
        await claim_due(connection, now=NOW, until=NOW + timedelta(seconds=20), free=10, per_receiver=2, taken={})
    assert "ix_webhook_deliveries_due" in await seen.plans()


@pytest.mark.parametrize("tenant_id", ["acme", None])
async def test_usage_is_added_up_by_one_query_over_an_index_of_its_time(
    noted: tuple[Database, Noted], tenant_id: str | None
) -> None:
    database, seen = noted
    period = Period(NOW, NOW + timedelta(days=30))
    async with database.transaction() as session:
        await usage(session, period=period, group_by=list(Dimension), tenant_id=tenant_id)
    plans = await seen.plans()
    assert plans.count("Scan") == plans.count("Index Scan using ix_usage_records_") == 1, plans
    assert "Index Cond: ((" in plans and "settled_at >=" in plans.partition("Index Cond")[2], plans


async def test_a_call_is_admitted_settled_and_voided_by_primary_keys(noted: tuple[Database, Noted]) -> None:
    database, seen = noted
    await add_tenant(database, "acme")
    await seen.plans()
    by = payer(unlimited=True)
    ttl = timedelta(seconds=9)
    held = await admit(database.connection, payer=by, capability="chat", estimate_nanos=5, ttl=ttl, now=NOW)
    plans = await seen.plans()
    assert "pk_account_balances" in plans and "pk_credit_terms" in plans
    await settle(database.connection, hold_id=held.hold_id, payer=by, metered=metered(5), now=NOW)
    assert "pk_holds" in await seen.plans()
    await void(database.connection, hold_id=held.hold_id, now=NOW)
    assert "pk_holds" in await seen.plans()


async def test_overdue_and_unbilled_holds_are_read_from_their_partial_indexes(noted: tuple[Database, Noted]) -> None:
    database, seen = noted
    async with database.connection() as connection:
        await expire_holds(connection, now=NOW)
    assert "ix_holds_due" in await seen.plans()
    async with database.transaction() as session:
        await list_holds(session, wanted=HoldFilter(HoldStatus.EXPIRED), before_id=None, limit=50)
    plans = await seen.plans()
    assert "ix_holds_unbilled" in plans and "Sort Key" not in plans
