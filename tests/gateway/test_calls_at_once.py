"""Calls that come at once are judged and charged in groups, each as if it had come alone."""

import asyncio
from datetime import timedelta

import pytest
from tests.gateway.books import NOW, USD, books_are_whole, credit, give, metered, payer
from tests.watching.world import add_tenant

from keyserver.gateway.admission import ADMIT, Admitted, admit
from keyserver.gateway.billing import SETTLE, Settled, settle
from keyserver.gateway.errors import InsufficientCredits, RateLimited
from keyserver.kit.db import Database
from keyserver.kit.grouping import Grouped
from keyserver.ledger.terms import DEFAULT_GRACE_NANOS


@pytest.fixture
def admissions(database: Database) -> Grouped:
    return Grouped(database.connection, ADMIT)


@pytest.fixture
def settlements(database: Database) -> Grouped:
    return Grouped(database.connection, SETTLE)


async def _admit(
    database: Database, grouped: Grouped, nanos: int, *, tenant_id: str = "acme", capability: str = "lookup"
) -> Admitted:
    return await admit(
        database.connection,
        payer=payer(tenant_id),
        capability=capability,
        estimate_nanos=nanos,
        ttl=timedelta(minutes=1),
        now=NOW,
        grouped=grouped,
    )


async def _settle(
    database: Database, grouped: Grouped, admitted: Admitted, nanos: int, *, tenant_id: str = "acme"
) -> Settled:
    return await settle(
        database.connection,
        hold_id=admitted.hold_id,
        payer=payer(tenant_id),
        metered=metered(nanos),
        now=NOW,
        grouped=grouped,
    )


async def test_each_call_is_judged_on_what_those_before_it_have_left(database: Database, admissions: Grouped) -> None:
    await give(database, 10 * USD)

    judged = await asyncio.gather(
        *(_admit(database, admissions, USD) for _ in range(50)),
        return_exceptions=True,
    )

    admitted = [each for each in judged if isinstance(each, Admitted)]
    assert len(admitted) == (10 * USD + DEFAULT_GRACE_NANOS) // USD
    assert sorted(each.available_nanos for each in admitted) == [left * USD for left in range(len(admitted))]
    assert sum(isinstance(each, InsufficientCredits) for each in judged) == 50 - len(admitted)
    assert (await credit(database)).held_nanos == len(admitted) * USD


async def test_no_more_calls_at_once_than_the_rate_allows(database: Database, admissions: Grouped) -> None:
    await give(database, 1_000 * USD)

    judged = await asyncio.gather(
        *(_admit(database, admissions, 1, capability="image") for _ in range(25)), return_exceptions=True
    )

    assert sum(isinstance(each, Admitted) for each in judged) == 10
    assert sum(isinstance(each, RateLimited) for each in judged) == 15


async def test_a_tenant_that_was_never_credited_gets_its_answer_in_a_group_too(
    database: Database, admissions: Grouped
) -> None:
    await add_tenant(database, "newcomer")

    judged = await asyncio.gather(
        *(_admit(database, admissions, 1, tenant_id="newcomer") for _ in range(3)), return_exceptions=True
    )

    assert all(isinstance(each, InsufficientCredits) for each in judged)


async def test_a_hold_that_is_settled_twice_at_once_is_charged_once(
    database: Database, admissions: Grouped, settlements: Grouped
) -> None:
    await give(database, 10 * USD)
    admitted = await _admit(database, admissions, USD)

    settled = await asyncio.gather(*(_settle(database, settlements, admitted, 7) for _ in range(5)))

    assert sorted(each.replayed for each in settled) == [False, True, True, True, True]
    assert {each.charged_nanos for each in settled} == {7}
    assert (await credit(database)).balance_nanos == 10 * USD - 7
    await books_are_whole(database)


async def test_calls_of_many_tenants_from_two_processes_at_once_all_end_and_the_books_are_whole(
    database: Database,
) -> None:
    tenants = [f"tenant-{number}" for number in range(6)]
    for tenant_id in tenants:
        await give(database, 100 * USD, tenant_id=tenant_id)
    processes = [(Grouped(database.connection, ADMIT), Grouped(database.connection, SETTLE)) for _ in range(2)]

    async def call(tenant_id: str, nanos: int, admissions: Grouped, settlements: Grouped) -> int:
        admitted = await _admit(database, admissions, USD, tenant_id=tenant_id)
        settled = await _settle(database, settlements, admitted, nanos, tenant_id=tenant_id)
        return settled.charged_nanos

    calls = [(tenants[n % 6], n % 4, *processes[n % 7 % 2]) for n in range(200)]
    async with asyncio.timeout(120):
        charged = await asyncio.gather(*(call(*each) for each in calls))

    assert charged == [nanos for _, nanos, *_ in calls]
    for tenant_id in tenants:
        spent = sum(nanos for by, nanos, *_ in calls if by == tenant_id)
        left = await credit(database, tenant_id)
        assert (left.balance_nanos, left.held_nanos) == (100 * USD - spent, 0)
    await books_are_whole(database)
