"""Posting: balanced, once, append-only, and the same whatever else is posted at the same moment."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from datetime import UTC, datetime

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.watching.world import add_tenant

from keyserver.kit.db import Database, driver_connection
from keyserver.ledger.balances import discrepancies, tenant_balance, tenant_history, trial_balance
from keyserver.ledger.chart import BREAKAGE, CASH, AccountSpec, expense_account, holdings_account, tenant_account
from keyserver.ledger.journal import Entry, Line, post, post_all, transfer
from keyserver.ledger.models import STRIPES, EntryType, Side

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ACME, OTHER = tenant_account("acme"), tenant_account("other")
HOLDINGS = holdings_account(chain="coin", network="regtest", token="COIN")
_references = itertools.count(1)


def entry(*lines: Line, reference: str | None = None) -> Entry:
    return Entry(EntryType.GRANT, "acme", "test", reference or f"r{next(_references)}", lines, posted_at=NOW)


def give(nanos: int, *, to: AccountSpec = ACME, by: AccountSpec = CASH, reference: str | None = None) -> Entry:
    return entry(*transfer(debit=by, credit=to, amount_nanos=nanos), reference=reference)


def take(nanos: int, *, of: AccountSpec = ACME, by: AccountSpec = BREAKAGE) -> Entry:
    return entry(*transfer(debit=of, credit=by, amount_nanos=nanos))


@pytest.fixture(autouse=True)
async def tenants(database: Database) -> None:
    await add_tenant(database, "acme")
    await add_tenant(database, "other")


async def do(database: Database, *entries: Entry) -> None:
    for each in entries:
        async with database.connection() as connection:
            await post(connection, each)


async def books(database: Database) -> dict[str, int]:
    """Balances by account, after making sure that they are right."""
    async with database.transaction() as session:
        assert await discrepancies(session) == []
        trial = await trial_balance(session)
    assert trial.difference_nanos == 0
    return {code: balance for code, _, _, balance in trial.accounts if balance}


async def test_an_entry_moves_both_its_accounts(database: Database) -> None:
    await do(database, give(100), take(30))
    assert await books(database) == {"1000": 100, "2000:acme": 70, "4900": 30}


async def test_the_trial_balance_puts_what_is_below_zero_into_the_other_column(database: Database) -> None:
    await do(database, take(30), entry(*transfer(debit=ACME, credit=CASH, amount_nanos=5)))
    async with database.transaction() as session:
        trial = await trial_balance(session)
    # The tenant owes 35 (a debit), cash is short of 5 and breakage earned 30 (credits).
    assert (trial.total_debits_nanos, trial.total_credits_nanos) == (35, 35)
    assert await books(database) == {"1000": -5, "2000:acme": -35, "4900": 30}


async def test_a_tenant_sees_its_lines_numbered_with_the_balance_after_each(database: Database) -> None:
    await do(database, give(100), give(7, to=OTHER), take(30), give(5))
    async with database.transaction() as session:
        history = await tenant_history(session, "acme", before_version=None, limit=10)
        older = await tenant_history(session, "acme", before_version=3, limit=1)
    assert [(line.account_version, line.balance_after_nanos) for _, line in history] == [(3, 75), (2, 70), (1, 100)]
    assert [line.account_version for _, line in older] == [2]


async def test_a_reference_is_posted_once(database: Database) -> None:
    await do(database, give(100, reference="once"))
    with pytest.raises(asyncpg.UniqueViolationError):
        await do(database, give(100, reference="once"))
    assert (await books(database))["2000:acme"] == 100


async def test_a_tenants_account_stands_once_in_an_entry(database: Database) -> None:
    twice = entry(Line(CASH, Side.DEBIT, 3), Line(ACME, Side.CREDIT, 1), Line(ACME, Side.CREDIT, 2))
    with pytest.raises(asyncpg.UniqueViolationError):
        await do(database, twice)
    assert await books(database) == {}


@pytest.mark.parametrize("nanos", [0, -1])
async def test_an_amount_is_positive(database: Database, nanos: int) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await do(database, give(nanos))
    assert await books(database) == {}


@pytest.mark.parametrize(
    "lines",
    [
        (Line(CASH, Side.DEBIT, 100), Line(ACME, Side.CREDIT, 99)),
        (Line(CASH, Side.DEBIT, 100),),
        (Line(CASH, Side.DEBIT, 100), Line(ACME, Side.DEBIT, 100)),
        (),
    ],
)
async def test_an_entry_that_does_not_balance_is_refused_at_commit(database: Database, lines: Sequence[Line]) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="does not balance"):
        await do(database, entry(*lines))
    assert await books(database) == {}


async def test_a_line_cannot_be_added_to_an_entry_of_before(database: Database) -> None:
    await do(database, give(100))
    async with database.connection() as connection:
        with pytest.raises(asyncpg.CheckViolationError, match="does not balance"):
            await connection.execute(
                "INSERT INTO journal_lines (entry_id, line, account_code, stripe, side, amount_nanos)"
                " SELECT id, 9, '1000', 0, 'debit', 1 FROM journal_entries"
            )


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE journal_entries SET description = 'another'",
        "UPDATE journal_lines SET amount_nanos = 1",
        "DELETE FROM journal_lines",
        "DELETE FROM journal_entries",
        "TRUNCATE journal_lines",
        "TRUNCATE journal_entries, journal_lines",
    ],
)
async def test_history_is_append_only(database: Database, statement: str) -> None:
    await do(database, give(100))
    async with database.connection() as connection:
        with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
            await connection.execute(statement)
    assert (await books(database))["2000:acme"] == 100


async def test_system_accounts_spread_over_stripes_and_tenants_do_not(database: Database) -> None:
    pick = random.Random(1)  # noqa: S311 - the same stripes in every run
    async with database.connection() as connection:
        for _ in range(80):
            await post(connection, give(1, by=HOLDINGS), pick=pick)
        rows = await connection.fetch(
            "SELECT account_code, count(*) AS rows, sum(balance_nanos) AS sum FROM account_balances"
            " WHERE balance_nanos <> 0 GROUP BY 1 ORDER BY 1"
        )
    assert [tuple(row) for row in rows] == [(HOLDINGS.code, STRIPES, 80), (ACME.code, 1, 80)]


async def test_the_check_finds_a_balance_that_was_tampered_with(database: Database) -> None:
    await do(database, give(100))
    async with database.connection() as connection:
        await connection.execute("UPDATE account_balances SET balance_nanos = 101 WHERE account_code = '2000:acme'")
    async with database.transaction() as session:
        (found,) = await discrepancies(session)
        assert (found.account_code, found.balance_nanos, found.lines_nanos) == ("2000:acme", 101, 100)
        assert (await trial_balance(session)).difference_nanos == -1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE journal_lines SET amount_nanos = 99",
        "DELETE FROM journal_lines",
        "UPDATE journal_lines SET account_code = '1100' WHERE account_code = '1000'",
    ],
)
async def test_the_check_finds_history_that_was_tampered_with_behind_its_guards(
    database: Database, statement: str
) -> None:
    await do(database, give(100))
    async with database.connection() as connection:
        await connection.execute("ALTER TABLE journal_lines DISABLE TRIGGER ALL")
        await connection.execute(statement)
        await connection.execute("ALTER TABLE journal_lines ENABLE TRIGGER ALL")
    async with database.transaction() as session:
        assert await discrepancies(session) != []


# --- at the same time -------------------------------------------------------------------------------------------


async def chain_is_whole(database: Database, tenant_id: str) -> int:
    """Versions without gaps, each balance the one before plus its line; returns the number of lines."""
    async with database.transaction() as session:
        history = [line for _, line in await tenant_history(session, tenant_id, before_version=None, limit=10_000)]
        assert await tenant_balance(session, tenant_id) == (history[0].balance_after_nanos if history else 0)
    balance = 0
    for version, line in enumerate(reversed(history), start=1):
        balance += line.amount_nanos if line.side is Side.CREDIT else -line.amount_nanos
        assert (line.account_version, line.balance_after_nanos) == (version, balance)
    return len(history)


async def test_many_that_post_to_few_accounts_neither_wait_for_ever_nor_lose_anything(database: Database) -> None:
    """Also between tenants in both directions, whose lines stand in either order."""

    async def worker(number: int) -> None:
        for turn in range(8):
            back = (number + turn) % 2
            one, two = (ACME, OTHER) if back else (OTHER, ACME)
            async with database.connection() as connection:
                await post(connection, entry(Line(one, Side.DEBIT, 3), Line(two, Side.CREDIT, 3)))
                await post(connection, give(2, to=one, by=HOLDINGS))

    async with asyncio.timeout(30):
        await asyncio.gather(*(worker(number) for number in range(16)))
    found = await books(database)
    assert found["2000:acme"] + found["2000:other"] == found[HOLDINGS.code] == 16 * 8 * 2
    assert await chain_is_whole(database, "acme") + await chain_is_whole(database, "other") == 16 * 8 * 3


async def test_transactions_of_several_entries_in_opposite_order_do_not_deadlock(database: Database) -> None:
    names = [f"tenant{number}" for number in range(6)]
    for name in names:
        await add_tenant(database, name)

    async def together(order: Sequence[str]) -> None:
        async with database.transaction() as session:
            connection = await driver_connection(session)
            assert len(await post_all(connection, [give(1, to=tenant_account(name)) for name in order])) == 6

    async with asyncio.timeout(30):
        await asyncio.gather(*(together(names[::-1] if turn % 2 else names) for turn in range(12)))
        await asyncio.gather(*(do(database, give(1, to=tenant_account(name))) for name in names))
    for name in names:
        assert await chain_is_whole(database, name) == 13
    assert (await books(database))["1000"] == 78


async def test_an_entry_that_fails_among_others_leaves_nothing_of_any(database: Database) -> None:
    await do(database, give(1, reference="taken"))
    with pytest.raises(asyncpg.UniqueViolationError):
        async with database.transaction() as session:
            await post_all(await driver_connection(session), [give(5, to=OTHER), give(5, reference="taken")])
    assert await books(database) == {"1000": 1, "2000:acme": 1}
    assert await chain_is_whole(database, "other") == 0


async def test_no_entries_are_posted_without_a_word(database: Database) -> None:
    async with database.connection() as connection:
        assert await post_all(connection, []) == []


#: (gives, nanos, tenant, other side) of each posting; some references are used twice.
POSTINGS = st.lists(
    st.tuples(
        st.booleans(),
        st.integers(1, 10**15),
        st.sampled_from([ACME, OTHER]),
        st.sampled_from([CASH, HOLDINGS, BREAKAGE, expense_account("grant")]),
        st.integers(0, 12),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(postings=POSTINGS)
async def test_any_interleaving_keeps_the_books_whole(
    database: Database, postings: list[tuple[bool, int, AccountSpec, AccountSpec, int]]
) -> None:
    """All at once, on top of the examples before; a reference that comes twice counts once."""
    example = next(_references)

    async def one(gives: bool, nanos: int, tenant: AccountSpec, other: AccountSpec, reference: int) -> int:
        debit, credit = (other, tenant) if gives else (tenant, other)
        lines = transfer(debit=debit, credit=credit, amount_nanos=nanos)
        try:
            await do(database, entry(*lines, reference=f"{example}:{reference}"))
        except asyncpg.UniqueViolationError:
            return 0
        return nanos if gives else -nanos

    before = await books(database)
    moved = await asyncio.gather(*(one(*posting) for posting in postings))
    after = await books(database)
    both = (ACME.code, OTHER.code)
    assert sum(after.get(code, 0) - before.get(code, 0) for code in both) == sum(moved)
    assert sum(each != 0 for each in moved) == len({posting[4] for posting in postings})
    for tenant_id in ("acme", "other"):
        await chain_is_whole(database, tenant_id)
