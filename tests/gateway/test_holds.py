"""Holding credit, and what becomes of it: posted, voided, expired; each once, whoever else is at it."""

import asyncio
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.gateway.books import NOW, USD, books_are_whole, charge, credit, give, hold, metered, payer
from tests.watching.world import add_tenant

from keyserver.gateway.billing import Metered, void
from keyserver.gateway.capabilities import Group
from keyserver.gateway.errors import (
    CreditsExhausted,
    GatewayError,
    HoldClosed,
    InsufficientCredits,
    RateLimited,
    SpendingCapReached,
)
from keyserver.gateway.limits import set_limits
from keyserver.kit.db import Database
from keyserver.ledger.balances import tenant_history
from keyserver.ledger.holds import expire_due


async def limit(database: Database, tenant_id: str = "acme", **terms: Any) -> None:
    async with database.transaction() as session:
        await set_limits(session, tenant_id=tenant_id, terms=terms, per_minute={})


async def expire(database: Database, *, after: int) -> int:
    async with database.connection() as connection:
        return await expire_due(connection, now=NOW + timedelta(seconds=after))


async def record_of(database: Database, hold_id: str) -> dict[str, Any]:
    async with database.connection() as connection:
        return dict(await connection.fetchrow("SELECT * FROM usage_records WHERE hold_id = $1", hold_id))


async def test_a_hold_sets_credit_aside_and_posting_it_charges_what_it_came_to(database: Database) -> None:
    await give(database, 10 * USD)
    placed = await hold(database, 4 * USD)
    assert placed.available_nanos == 6 * USD
    settled = await charge(database, placed, 1 * USD)
    assert (settled.charged_nanos, settled.available_nanos, settled.replayed) == (USD, 9 * USD, False)
    after = await credit(database)
    assert (after.balance_nanos, after.held_nanos) == (9 * USD, 0)
    assert (after.day_spent_nanos, after.month_spent_nanos) == (USD, USD)
    await books_are_whole(database)


async def test_the_entry_and_the_record_of_a_call_say_the_same(database: Database) -> None:
    await give(database, 10 * USD)
    by = payer(key_id="key_1", instance_id="bot", attributed_tenant_id=None)
    placed = await hold(database, USD, by=by)
    settled = await charge(database, placed, 5, by=by, model="gpt", streamed=True, first_byte_ms=7)
    async with database.transaction() as session:
        ((entry, line), _) = await tenant_history(session, "acme", before_version=None, limit=2)
    assert (entry.id, entry.type, entry.source, entry.reference_id) == (
        settled.entry_id,
        "usage",
        "usage",
        placed.hold_id,
    )
    assert (line.amount_nanos, line.side, line.balance_after_nanos) == (5, "debit", 10 * USD - 5)
    assert entry.metadata_ == {"capability": "lookup", "model": "gpt", "requestId": "req_1", "instanceId": "bot"}
    record = await record_of(database, placed.hold_id)
    assert (record["entry_id"], record["charge_nanos"], record["settled_at"]) == (entry.id, 5, entry.posted_at)
    assert (record["key_id"], record["instance_id"], record["model"]) == ("key_1", "bot", "gpt")
    assert (record["streamed"], record["first_byte_ms"], record["late"]) == (True, 7, False)


async def test_more_than_was_held_is_charged_too(database: Database) -> None:
    await give(database, 10 * USD)
    settled = await charge(database, await hold(database, USD), 12 * USD)
    assert settled.available_nanos == -2 * USD
    await books_are_whole(database)


async def test_a_call_that_cost_nothing_leaves_a_record_and_no_entry(database: Database) -> None:
    await give(database, USD)
    placed = await hold(database, USD)
    settled = await charge(database, placed, 0)
    assert (settled.charged_nanos, settled.entry_id, settled.available_nanos) == (0, None, USD)
    assert (await record_of(database, placed.hold_id))["charge_nanos"] == 0
    async with database.transaction() as session:
        assert len(await tenant_history(session, "acme", before_version=None, limit=9)) == 1
    await charge(database, await hold(database, USD), 1)
    await books_are_whole(database)


async def test_a_hold_is_charged_once_and_tells_the_same_again(database: Database) -> None:
    await give(database, 10 * USD)
    placed = await hold(database, USD)
    first = await charge(database, placed, 2)
    again = await charge(database, placed, 3)
    assert again.replayed and (again.charged_nanos, again.entry_id) == (2, first.entry_id)
    assert (await credit(database)).balance_nanos == 10 * USD - 2


async def test_a_voided_hold_gives_its_credit_back_and_is_never_charged(database: Database) -> None:
    await give(database, USD)
    placed = await hold(database, USD)
    for _ in range(2):
        await void(database.connection, hold_id=placed.hold_id, now=NOW)
    assert (await credit(database)).available_nanos == USD
    with pytest.raises(HoldClosed):
        await charge(database, placed, 1)
    await books_are_whole(database)


async def test_what_was_charged_is_not_voided(database: Database) -> None:
    await give(database, USD)
    placed = await hold(database, USD)
    await charge(database, placed, 5)
    await void(database.connection, hold_id=placed.hold_id, now=NOW)
    assert (await credit(database)).available_nanos == USD - 5
    await books_are_whole(database)


async def test_an_expired_hold_gives_its_credit_back_once(database: Database) -> None:
    await give(database, 3 * USD)
    await hold(database, USD, seconds=10)
    await hold(database, USD, seconds=10)
    await hold(database, USD, seconds=60)
    assert await expire(database, after=9) == 0
    assert await expire(database, after=10) == 2
    assert await expire(database, after=10) == 0
    assert (await credit(database)).available_nanos == 2 * USD
    await books_are_whole(database)


async def test_a_call_that_outlived_its_hold_is_charged_late_and_once(database: Database) -> None:
    await give(database, 3 * USD)
    placed = await hold(database, USD, seconds=10)
    await expire(database, after=10)
    with pytest.raises(HoldClosed):
        await charge(database, placed, 5, late=False)
    assert (await charge(database, placed, 5)).available_nanos == 3 * USD - 5
    assert (await charge(database, placed, 5)).replayed
    assert (await record_of(database, placed.hold_id))["late"]
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT status || late FROM holds") == "postedtrue"
    await books_are_whole(database)


async def test_a_hold_that_a_restore_has_lost_is_charged_and_once(database: Database) -> None:
    await give(database, 3 * USD)
    placed = await hold(database, USD)
    await void(database.connection, hold_id=placed.hold_id, now=NOW)
    async with database.connection() as connection:
        await connection.execute("DELETE FROM holds")
    with pytest.raises(HoldClosed):
        await charge(database, placed, 5, late=False)
    both = await asyncio.gather(*(charge(database, placed, 5) for _ in range(4)))
    assert sorted(each.replayed for each in both) == [False, True, True, True]
    assert (await credit(database)).balance_nanos == 3 * USD - 5
    await books_are_whole(database)


async def test_a_refusal_stays_counted_where_every_connection_is_a_transaction(
    database: Database, database_url: str
) -> None:
    await add_tenant(database, "acme")
    async with database.transaction() as session:
        await set_limits(session, tenant_id="acme", terms={}, per_minute={Group.LLM: 1})
    pooled = Database(database_url, pool_size=1, prepared_statements=False)
    try:
        with pytest.raises(InsufficientCredits):
            await hold(pooled, 1, capability="chat")
        with pytest.raises(RateLimited):
            await hold(pooled, 1, capability="chat")
    finally:
        await pooled.dispose()


async def test_another_tenants_hold_is_not_charged(database: Database) -> None:
    await give(database, USD)
    await give(database, USD, tenant_id="other")
    placed = await hold(database, USD)
    with pytest.raises(HoldClosed):
        await charge(database, placed, 5, by=payer("other"))
    assert (await credit(database, "other")).available_nanos == USD


# --- who is admitted --------------------------------------------------------------------------------------------


async def test_a_tenant_that_was_never_credited_has_no_grace(database: Database) -> None:
    await add_tenant(database, "acme")
    with pytest.raises(InsufficientCredits) as refused:
        await hold(database, 1)
    assert refused.value.members == {
        "needsCredits": True,
        "topUpUrl": None,
        "currentBalanceCents": 0,
        "requiredCents": 1,
        "availableUsd": "0.000000000",
        "requiredUsd": "0.000000001",
        "limit": "credit",
        "missingUsd": "0.000000001",
    }
    assert (await hold(database, 0)).available_nanos == 0
    await books_are_whole(database)


async def test_a_tenant_without_any_row_is_refused_by_many_calls_at_once(database: Database) -> None:
    await add_tenant(database, "acme")
    refused = await asyncio.gather(*(hold(database, 1) for _ in range(20)), return_exceptions=True)
    assert {type(each) for each in refused} == {InsufficientCredits}


async def test_whoever_was_credited_may_go_below_zero_by_the_grace(database: Database) -> None:
    await give(database, USD)
    assert (await hold(database, USD + USD // 2)).available_nanos == -USD // 2
    with pytest.raises(CreditsExhausted) as refused:
        await hold(database, 1)
    assert refused.value.members["missingUsd"] == "0.000000001"
    await limit(database, grace_nanos=2 * USD)
    await hold(database, USD + USD // 2)
    await limit(database, grace_nanos=0)
    with pytest.raises(CreditsExhausted):
        await hold(database, 0)


async def test_with_no_grace_the_last_nanodollar_is_admitted_and_no_more(database: Database) -> None:
    await give(database, 10)
    await limit(database, grace_nanos=0)
    with pytest.raises(InsufficientCredits):
        await hold(database, 11)
    assert (await hold(database, 10)).available_nanos == 0


async def test_holds_count_other_holds_whoever_comes_first(database: Database) -> None:
    await give(database, 10 * USD)
    await limit(database, grace_nanos=0)
    tried = await asyncio.gather(*(hold(database, USD) for _ in range(60)), return_exceptions=True)
    admitted = [each for each in tried if not isinstance(each, BaseException)]
    assert len(admitted) == 10
    assert {type(each) for each in tried if isinstance(each, BaseException)} <= {InsufficientCredits, CreditsExhausted}
    assert sorted(each.available_nanos for each in admitted) == [number * USD for number in range(10)]
    await books_are_whole(database)


async def test_a_platform_service_is_never_refused_and_debited_all_the_same(database: Database) -> None:
    await add_tenant(database, "services")
    by = payer("services", unlimited=True)
    await limit(database, "services", daily_cap_nanos=1, grace_nanos=0)
    placed = await asyncio.gather(*(hold(database, 5 * USD, by=by) for _ in range(5)))
    await asyncio.gather(*(charge(database, each, 2 * USD, by=by) for each in placed))
    assert (await credit(database, "services")).balance_nanos == -10 * USD
    await books_are_whole(database)


# --- spending caps ----------------------------------------------------------------------------------------------


def refused_cap(error: GatewayError) -> tuple[Any, ...]:
    return tuple(error.members[name] for name in ("limit", "missingUsd", "spentUsd", "resetsAt", "needsCredits"))


async def test_what_was_spent_and_held_and_is_asked_stays_within_the_daily_cap(database: Database) -> None:
    await give(database, 100 * USD)
    await limit(database, daily_cap_nanos=3 * USD)
    await charge(database, await hold(database, USD), USD)
    await hold(database, USD)
    with pytest.raises(SpendingCapReached) as refused:
        await hold(database, USD + 1)
    assert refused_cap(refused.value) == (
        "daily_cap",
        "0.000000001",
        "1.000000000",
        "2026-03-02T00:00:00.000Z",
        False,
    )
    await hold(database, USD)
    await books_are_whole(database)


async def test_a_new_utc_day_begins_at_nothing_and_the_month_goes_on(database: Database) -> None:
    await give(database, 100 * USD)
    await limit(database, daily_cap_nanos=2 * USD, monthly_cap_nanos=3 * USD)
    end_of_day = datetime(2026, 3, 1, 23, 59, 59, tzinfo=UTC)
    await charge(database, await hold(database, 2 * USD, now=end_of_day), 2 * USD, now=end_of_day)
    with pytest.raises(SpendingCapReached):
        await hold(database, 1, now=end_of_day)
    next_day = end_of_day + timedelta(seconds=1)
    placed = await hold(database, USD, now=next_day)
    with pytest.raises(SpendingCapReached) as refused:
        await hold(database, 1, now=next_day)
    assert refused_cap(refused.value) == (
        "monthly_cap",
        "0.000000001",
        "2.000000000",
        "2026-04-01T00:00:00.000Z",
        False,
    )
    await charge(database, placed, USD, now=next_day)
    assert (await credit(database, now=next_day)).month_spent_nanos == 3 * USD
    next_month = datetime(2026, 4, 1, tzinfo=UTC)
    await charge(database, await hold(database, 2 * USD, now=next_month), 2 * USD, now=next_month)
    assert (await credit(database, now=next_month)).month_spent_nanos == 2 * USD


async def test_clocks_round_midnight_do_not_reset_each_other(database: Database) -> None:
    await give(database, 100 * USD)
    before, after = (datetime(2026, 3, 31, 23, 59, 59, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
    for now in (before, after, before, after):
        await charge(database, await hold(database, USD, now=now), USD, now=now)
    spent = await credit(database, now=after)
    assert (spent.day_spent_nanos, spent.month_spent_nanos) == (3 * USD, 3 * USD)


async def test_many_calls_at_once_stay_within_a_cap(database: Database) -> None:
    await give(database, 100 * USD)
    await limit(database, daily_cap_nanos=7 * USD)
    tried = await asyncio.gather(*(hold(database, USD) for _ in range(40)), return_exceptions=True)
    assert sum(not isinstance(each, BaseException) for each in tried) == 7
    assert {type(each) for each in tried if isinstance(each, BaseException)} == {SpendingCapReached}


# --- at the same time -------------------------------------------------------------------------------------------

ENDINGS: list[Callable[[Database, Any], Any]] = [
    lambda database, placed: charge(database, placed, 3),
    lambda database, placed: void(database.connection, hold_id=placed.hold_id, now=NOW),
    lambda database, _: expire(database, after=60),
]


@pytest.mark.parametrize("pair", list(itertools.combinations_with_replacement(range(3), 2)))
async def test_two_ends_of_one_hold_at_once_release_it_once(database: Database, pair: tuple[int, int]) -> None:
    await give(database, 100 * USD)
    for _ in range(6):
        placed = await hold(database, USD)
        await asyncio.gather(*(ENDINGS[each](database, placed) for each in pair * 2), return_exceptions=True)
        assert (await credit(database)).held_nanos == 0
    await books_are_whole(database)


async def test_metered_calls_survive_the_way_through_json() -> None:
    call = metered(5, model="m", units=None)
    assert Metered.from_json(call.to_json()) == call
    assert Metered.from_json(metered(5).to_json()) == metered(5)
