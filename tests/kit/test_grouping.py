"""Group commit on a real PostgreSQL: who shares a transaction, and whose failure is whose."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from keyserver.kit.db import Database, is_unavailable
from keyserver.kit.grouping import MOST, Grouped

#: Which transaction a call was in, after a division that fails for 0.
_SHARE = "SELECT 60 / $1::int AS share, pg_current_xact_id()::text AS transaction"


@pytest.fixture
async def server(server_url: str) -> AsyncIterator[Database]:
    database = Database(server_url, pool_size=4)
    yield database
    await database.dispose()


async def _shares(grouped: Grouped, *divisors: Any, key: str = "one") -> list[Any]:
    return await asyncio.gather(*(grouped.fetchrow(key, (each,)) for each in divisors), return_exceptions=True)


async def test_calls_that_come_at_once_are_one_transaction_and_each_gets_its_own_row(server: Database) -> None:
    rows = await _shares(Grouped(server.connection, _SHARE), 1, 2, 3, 4)

    assert [row["share"] for row in rows] == [60, 30, 20, 15]
    assert len({row["transaction"] for row in rows}) == 1


async def test_no_more_than_so_many_calls_are_one_transaction(server: Database) -> None:
    rows = await _shares(Grouped(server.connection, _SHARE), *range(1, 2 * MOST + 2))

    assert [row["share"] for row in rows] == [60 // divisor for divisor in range(1, 2 * MOST + 2)]
    assert len({row["transaction"] for row in rows}) == 3


async def test_a_call_after_another_is_a_transaction_of_its_own(server: Database) -> None:
    grouped = Grouped(server.connection, _SHARE)

    first, second = [(await _shares(grouped, 1))[0] for _ in range(2)]

    assert first["transaction"] != second["transaction"]


@pytest.mark.parametrize("wrong", [0, "no number"], ids=["refused by the server", "refused by the driver"])
async def test_a_call_that_fails_fails_alone(server: Database, wrong: Any) -> None:
    one, failed, three = await _shares(Grouped(server.connection, _SHARE), 1, wrong, 3)

    assert (one["share"], three["share"]) == (60, 20)
    assert isinstance(failed, asyncpg.DataError)


async def test_what_a_failing_call_took_along_is_written_once(server: Database, database_url: str) -> None:
    database = Database(database_url, pool_size=4)
    async with database.connection() as connection:
        await connection.execute("CREATE TABLE written (id int PRIMARY KEY)")
    grouped = Grouped(database.connection, "INSERT INTO written VALUES ($1) RETURNING id")

    rows = await _shares(grouped, 1, 2, 1, 3)

    async with database.connection() as connection:
        assert await connection.fetchval("SELECT array_agg(id ORDER BY id) FROM written") == [1, 2, 3]
    assert [isinstance(row, asyncpg.UniqueViolationError) for row in rows] == [False, False, True, False]
    await database.dispose()


async def test_calls_of_another_key_do_not_wait(server: Database) -> None:
    grouped = Grouped(server.connection, "SELECT pg_advisory_xact_lock($1)")
    async with server.connection() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(77)")
        blocked = asyncio.create_task(grouped.fetchrow("blocked", (77,)))
        await asyncio.sleep(0)

        async with asyncio.timeout(30):
            await grouped.fetchrow("free", (78,))
        assert not blocked.done()
    await blocked


async def test_a_caller_that_leaves_before_its_call_has_left_takes_it_back(database_url: str) -> None:
    database = Database(database_url, pool_size=4)
    async with database.connection() as connection:
        await connection.execute("CREATE TABLE made (id int)")
    grouped = Grouped(database.connection, "INSERT INTO made VALUES ($1) RETURNING id")
    calls = [asyncio.create_task(grouped.fetchrow("one", (number,))) for number in range(3)]
    await asyncio.sleep(0)  # they stand in the queue, and its server has not begun

    calls[1].cancel()
    await asyncio.wait(calls)

    async with database.connection() as connection:
        assert await connection.fetchval("SELECT array_agg(id) FROM made") == [0, 2]
    await database.dispose()


async def test_every_call_learns_that_the_database_is_away() -> None:
    database = Database("postgresql://nobody@127.0.0.1:1/none", pool_size=4)

    failed = await _shares(Grouped(database.connection, _SHARE), 1, 2, 3)

    assert all(isinstance(each, Exception) and is_unavailable(each) for each in failed)
    await database.dispose()
