"""Whatever is held, posted, voided, expired, credited and debited at once: the books stay whole.

Two Database objects stand for two processes; each step does several things at the same moment.
"""

import asyncio
import contextlib
import os
import uuid
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from sqlalchemy import make_url
from tests.gateway.books import NOW, books_are_whole, charge, credit, give, hold, payer

from keyserver.gateway.billing import void
from keyserver.gateway.errors import CreditRefused, HoldClosed
from keyserver.gateway.limits import set_limits
from keyserver.kit.db import Database
from keyserver.ledger.chart import BREAKAGE, tenant_account
from keyserver.ledger.holds import expire_due
from keyserver.ledger.journal import Entry, post, transfer
from keyserver.ledger.models import EntryType

GRACE = 50
TENANTS = ("acme", "other")


class Books(RuleBasedStateMachine):
    server_url: str
    template: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.name = f"books_{uuid.uuid4().hex}"
        self.now = NOW
        self.holds: list[tuple[str, Any]] = []
        self.charged = dict.fromkeys(TENANTS, 0)
        self.given = dict.fromkeys(TENANTS, 0)
        self.references = 0
        self.runner.run(self._open())

    async def _open(self) -> None:
        await self._administer(f'CREATE DATABASE "{self.name}" TEMPLATE "{self.template}"')
        url = make_url(self.server_url).set(database=self.name).render_as_string(hide_password=False)
        self.processes = [Database(url, pool_size=6), Database(url, pool_size=6)]
        for tenant_id in TENANTS:
            await give(self.processes[0], 100, tenant_id=tenant_id)
            self.given[tenant_id] += 100
            async with self.processes[0].transaction() as session:
                await set_limits(session, tenant_id=tenant_id, terms={"grace_nanos": GRACE}, per_minute={})

    async def _administer(self, statement: str) -> None:
        connection = await asyncpg.connect(self.server_url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    # --- what happens -----------------------------------------------------------------------------------------

    @rule(
        steps=st.lists(
            st.tuples(
                st.sampled_from(["hold", "hold", "post", "post", "void", "expire", "credit", "debit"]),
                st.integers(0, 60),
                st.integers(0, 7),
                st.sampled_from(TENANTS),
            ),
            min_size=1,
            max_size=8,
        )
    )
    def at_once(self, steps: list[tuple[str, int, int, str]]) -> None:
        self.runner.run(self._all(steps))

    @rule(seconds=st.integers(1, 40))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    async def _all(self, steps: list[tuple[str, int, int, str]]) -> None:
        async with asyncio.timeout(60):
            await asyncio.gather(*(self._one(self.processes[at % 2], *step) for at, step in enumerate(steps)))

    async def _one(self, database: Database, what: str, nanos: int, pick: int, tenant_id: str) -> None:
        with contextlib.suppress(CreditRefused, HoldClosed):
            match what:
                case "hold":
                    placed = await hold(database, nanos, by=payer(tenant_id), seconds=30, now=self.now)
                    assert placed.available_nanos >= -GRACE
                    self.holds.append((tenant_id, placed))
                case "post" if self.holds:
                    owner, placed = self.holds[pick % len(self.holds)]
                    settled = await charge(database, placed, nanos, by=payer(owner), now=self.now)
                    self.charged[owner] += 0 if settled.replayed else settled.charged_nanos
                case "void" if self.holds:
                    await void(database.connection, hold_id=self.holds[pick % len(self.holds)][1].hold_id, now=self.now)
                case "expire":
                    async with database.connection() as connection:
                        await expire_due(connection, now=self.now)
                case "credit" | "debit" if nanos:
                    await self._post(database, nanos if what == "credit" else -nanos, tenant_id)

    async def _post(self, database: Database, nanos: int, tenant_id: str) -> None:
        self.references += 1
        ours = tenant_account(tenant_id)
        debit, credited = (BREAKAGE, ours) if nanos > 0 else (ours, BREAKAGE)
        lines = transfer(debit=debit, credit=credited, amount_nanos=abs(nanos))
        entry = Entry(EntryType.CORRECTION, tenant_id, "play", f"{self.references}", lines, self.now)
        async with database.connection() as connection:
            await post(connection, entry)
        self.given[tenant_id] += nanos

    # --- what must hold ---------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            self.runner.run(self._check())
        finally:
            self.runner.run(self._close())
            self.runner.close()

    async def _check(self) -> None:
        await books_are_whole(self.processes[0])
        for tenant_id in TENANTS:
            now = await credit(self.processes[1], tenant_id)
            assert now.balance_nanos == self.given[tenant_id] - self.charged[tenant_id]
            assert now.day_spent_nanos == now.month_spent_nanos == self.charged[tenant_id]

    async def _close(self) -> None:
        for database in self.processes:
            await database.dispose()
        await self._administer(f'DROP DATABASE "{self.name}" WITH (FORCE)')


@pytest.mark.timeout(300)
def test_any_interleaving_keeps_balance_the_sum_of_lines_and_held_the_sum_of_pending_holds(server_url: str) -> None:
    Books.server_url, Books.template = server_url, os.environ["KEYSERVER_TEST_TEMPLATE"]
    run_state_machine_as_test(Books, settings=settings(max_examples=10, stateful_step_count=15, deadline=None))
