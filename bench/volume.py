"""What grows with the years: charges, addresses, journal entries. The same calls over little and over much."""

import asyncio
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import asyncpg
import httpx
from sqlalchemy import make_url, select

import keyserver.tables  # noqa: F401 - every table, for the foreign keys between them
from bench import parts
from keyserver.chains.models import Blockchain
from keyserver.charges.recording import Arrival, Inclusion
from keyserver.charges.settlement import include
from keyserver.kit.db import Database
from keyserver.kit.paging import encode_cursor
from keyserver.ledger.chart import tenant_account
from keyserver.pricing.consensus import Policy
from keyserver.pricing.service import PriceBook

Told = Callable[[int], None]

CHUNK = 100_000
BLOCK_OUTPUTS = 8_000
_PAGES = 40

#: Rows $1 to $2 of a tenant's history, a second apart; ids in order, as kit/ids.py makes them.
_AT = "to_timestamp(1600000000 + n)"
_ID = "lpad(to_hex((1600000000 + n) * 1000::bigint), 12, '0') || left(md5(n::text), 24)"
_ADDRESSES = f"""
    INSERT INTO addresses (key_ring_id, address_index, match_key, address, tenant_id, payment_method_id, created_at)
    SELECT 'bench', n, 'bcrt1qvolume' || n, 'bcrt1qvolume' || n, 'platform', 'DEMO-BTC', {_AT}
      FROM generate_series($1::bigint, $2::bigint) AS n
"""
_CHARGES = f"""
    INSERT INTO charges (id, tenant_id, signing_tenant_id, payment_method_id, key_ring_id, address_index, address,
                         amount_cents, expected_units, price_usd, price_source, priced_at, decimals,
                         confirmations_required, created_at, expires_at, status, credited_at)
    SELECT 'ch_' || {_ID}, 'platform', 'platform', 'DEMO-BTC', 'bench', n, 'bcrt1qvolume' || n,
           2500, 41667, 60000, 'manual', {_AT}, 8, 2, {_AT}, {_AT}, 'Settled', {_AT}
      FROM generate_series($1::bigint, $2::bigint) AS n
"""
_ENTRIES = f"""
    INSERT INTO journal_entries (id, posted_at, type, tenant_id, source, reference_id)
    SELECT 'je_' || {_ID}, {_AT}, 'grant', 'platform', 'bench', n::text
      FROM generate_series($1::bigint, $2::bigint) AS n
"""
_LINES = f"""
    INSERT INTO journal_lines (entry_id, line, account_code, stripe, side, amount_nanos, balance_after_nanos,
                               account_version)
    SELECT 'je_' || {_ID}, 1, '{tenant_account("platform").code}', 0, 'credit', 1000, 1000 * n, n
      FROM generate_series($1::bigint, $2::bigint) AS n
"""


def another_database(url: str, name: str) -> str:
    """A new database beside this one; the server migrates it."""

    async def create() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close()

    asyncio.run(create())
    return make_url(url).set(database=name).render_as_string(hide_password=False)


async def fill(url: str, first: int, last: int, statements: tuple[str, ...], *, told: Told) -> None:
    """Rows `first` to `last` by each statement, in chunks, past triggers and foreign keys; vacuumed at the end."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET session_replication_role = replica")
        for start in range(first, last + 1, CHUNK):
            end = min(last, start + CHUNK - 1)
            for statement in statements:
                await connection.execute(statement, start, end)
            told(end - start + 1)
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


def fill_history(url: str, rows: int, *, told: Told) -> None:
    """So many addresses, charges and journal entries of one tenant."""
    asyncio.run(fill(url, 1, rows, (_ADDRESSES, _CHARGES, _ENTRIES, _LINES), told=told))


def pages(url: str, path: str, cursors: list[str | None]) -> float:
    """Median seconds of one page at each of these cursors, asked one after the other."""
    headers = {"authorization": f"Bearer {parts.SERVICE_KEY}"}
    seconds = []
    with httpx.Client(base_url=url, headers=headers, timeout=60.0) as api:
        for cursor in cursors:
            for _ in range(3):  # the first may read from disk what the next find in memory
                started = time.perf_counter()
                answer = api.get(path, params={"limit": 50} | ({"cursor": cursor} if cursor else {}))
                took = time.perf_counter() - started
                if answer.status_code != 200:
                    raise RuntimeError(f"{path} answered {answer.status_code}: {answer.text[:300]}")
            seconds.append(took)
    return statistics.median(seconds)


def page_ratio(running: parts.Running, path: str, cursor_of: Callable[[int], str], rows: int) -> float:
    """A page anywhere in the history over the first one."""
    first = pages(running.url, path, [None] * _PAGES)
    deep = [encode_cursor(cursor_of(rows * place // (_PAGES + 1))) for place in range(1, _PAGES + 1)]
    return pages(running.url, path, [*deep]) / first


def charge_cursor(row: int) -> str:
    return f"ch_{(1600000000 + row) * 1000:012x}{'0' * 24}"


# --- one block --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Database]:
    database = Database(url, pool_size=2)
    try:
        yield database
    finally:
        await database.dispose()


def grow_addresses(url: str, first: int, last: int, *, told: Told) -> None:
    asyncio.run(fill(url, first, last, (_ADDRESSES,), told=told))


def block_seconds(url: str, addresses: int, *, blocks: int = 15) -> float:
    """Median seconds of applying one block of 8,000 outputs, five of which are to addresses of ours."""
    policy = Policy(max_age=timedelta(minutes=5), max_deviation=Decimal("0.05"), stablecoin_band=Decimal("0.02"))

    async def measured() -> float:
        async with _opened(url) as database:
            market = PriceBook(database, policy=policy)
            async with database.transaction() as session:
                blockchain = (await session.scalars(select(Blockchain))).first()
            assert blockchain is not None
            seconds = []
            for height in range(1, blocks + 1):
                arrivals = _arrivals(addresses, height)
                now = datetime.now(UTC)
                block = Inclusion(height, uuid.uuid4().hex, now)
                started = time.perf_counter()
                async with database.transaction() as session:
                    await include(session, blockchain, arrivals, block, market=market, now=now)
                seconds.append(time.perf_counter() - started)
            return statistics.median(seconds)

    return asyncio.run(measured())


def _arrivals(addresses: int, height: int) -> list[Arrival]:
    ours = {number * BLOCK_OUTPUTS // 5 for number in range(5)}
    return [
        Arrival(
            tx_hash=uuid.uuid4().hex,
            output_index=0,
            asset="native",
            match_key=(
                f"bcrt1qvolume{1 + (number + height * 7) % addresses}"
                if number in ours
                else f"bcrt1q{uuid.uuid4().hex}"
            ),
            amount_units=1000,
        )
        for number in range(BLOCK_OUTPUTS)
    ]
