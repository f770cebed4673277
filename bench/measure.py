"""The measurements. Each returns one round's figures; bench/__main__.py takes medians of rounds."""

import asyncio
import multiprocessing
import random
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import asyncpg

from bench import parts
from keyserver.addresses import issuing
from keyserver.charges import creation
from keyserver.kit.db import Database
from keyserver.ledger import journal
from keyserver.ledger.chart import expense_account, tenant_account
from keyserver.ledger.models import EntryType

CHARGE = '{"chain":"DEMO-BTC","amountUsd":25}'
ADDRESS = '{"chain":"DEMO-BTC"}'
_TAKE = "SELECT nextval('bench_index'::regclass) AS i \\gset\n"


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def prepare(url: str) -> None:
    """A sequence and tenants for the statements to work on."""
    tenants = "SELECT 't' || n, 't' || n, 'org' FROM generate_series(1, 10000) AS n"
    statements = (
        "CREATE SEQUENCE IF NOT EXISTS bench_index MINVALUE 0 START 0",
        f"INSERT INTO tenants (id, name, type) {tenants} ON CONFLICT DO NOTHING",
    )
    asyncio.run(_execute(url, ";".join(statements)))


# --- the machine's own limit: the same statements by pgbench ----------------------------------------------------

_ISSUED = {
    1: "'bench'",
    2: ":i",
    3: "'bench' || :i",
    4: "'bcrt1qbench' || :i",
    5: "'platform'",
    6: "'DEMO-BTC'",
    7: "now()",
}


def pgbench_charges(url: str, seconds: int) -> float:
    values = _ISSUED | {
        8: "'ch_' || :i::text",
        9: "'platform'",
        10: "2500",
        11: "41667",
        12: "60000",
        13: "'manual'",
        14: "now()",
        15: "8",
        16: "2",
        17: "NULL",
        18: "NULL",
        19: "now() + interval '30 minutes'",
    }
    return parts.pgbench(url, _TAKE + parts.substitute(creation.INSERT_CHARGE, values) + ";", seconds=seconds)


def pgbench_addresses(url: str, seconds: int) -> float:
    return parts.pgbench(url, _TAKE + parts.substitute(issuing.INSERT_ADDRESS, _ISSUED) + ";", seconds=seconds)


def pgbench_postings(url: str, seconds: int, *, tenants: int) -> float:
    """The same statement as ledger/journal.py: a grant to one of so many tenants."""
    setup = f"\\set ten random(1, {tenants})\n\\set str random(0, 15)\n\\set ref random(1, 9000000000000000000)\n"
    values = {
        1: "'je_' || :ref::text",
        2: "now()",
        3: "'grant'",
        4: "'t' || :ten::text",
        5: "'bench'",
        6: "'r' || :ref::text",
        7: "NULL",
        8: "'{}'",
        # pgbench takes a colon for a variable even inside quotes: 58 is its code.
        9: "ARRAY['5000' || chr(58) || 'grant', '2000' || chr(58) || 't' || :ten::text]",
        10: "ARRAY[:str::smallint, 0]",
        11: "ARRAY['debit', 'credit']",
        12: "ARRAY[1000, 1000]",
        13: "ARRAY[1000, 1000]",
        14: "ARRAY['Expense', 'Unearned revenue of t' || :ten::text]",
        15: "ARRAY['expense', 'liability']",
        16: "ARRAY[NULL, 't' || :ten::text]",
    }
    return parts.pgbench(url, setup + parts.substitute(journal.POST, values) + ";", seconds=seconds)


# --- ours -------------------------------------------------------------------------------------------------------


def charges(running: parts.Running, seconds: int) -> parts.Load:
    return parts.wrk(f"{running.url}/charges", seconds=seconds, body=CHARGE)


def addresses(running: parts.Running, seconds: int) -> parts.Load:
    return parts.wrk(f"{running.url}/address", seconds=seconds, body=ADDRESS)


def chains_over_bare(running: parts.Running, seconds: int, log: Path) -> tuple[float, float]:
    """Requests per second of `GET /chains`, and of a bare FastAPI route under as many uvicorn workers."""
    ours = parts.wrk(f"{running.url}/chains", seconds=seconds).per_second
    command = [sys.executable, "-m", "uvicorn", "bench.bare:app", "--port", "{port}", "--workers", "2"]
    with parts.server([*command, "--no-access-log"], path="/chains", log=log) as bare:
        theirs = parts.wrk(f"{bare.url}/chains", seconds=seconds).per_second
    return ours, theirs


def postings(url: str, seconds: int, *, tenants: int, processes: int = 2) -> float:
    """Postings per second through our own code: 32 at a time, spread over processes as over a server's workers."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        share = parts.CONNECTIONS // processes
        done = pool.starmap(_post_for, [(url, seconds, tenants, share)] * processes)
    return sum(done) / seconds


def _post_for(url: str, seconds: int, tenants: int, concurrent: int) -> int:
    import uvloop

    return uvloop.run(_post_all(url, seconds, tenants, concurrent))


async def _post_all(url: str, seconds: int, tenants: int, concurrent: int) -> int:
    database = Database(url, pool_size=concurrent)
    pick = random.Random()
    end = time.monotonic() + seconds

    async def one() -> int:
        done = 0
        while time.monotonic() < end:
            tenant = f"t{pick.randint(1, tenants)}"
            lines = journal.transfer(debit=expense_account("grant"), credit=tenant_account(tenant), amount_nanos=1000)
            entry = journal.Entry(
                type=EntryType.GRANT,
                tenant_id=tenant,
                source="bench",
                reference_id=f"{pick.getrandbits(96):x}",
                lines=lines,
                posted_at=datetime.now(UTC),
            )
            async with database.connection() as connection:
                await journal.post(connection, entry, pick=pick)
            done += 1
        return done

    try:
        return sum(await asyncio.gather(*(one() for _ in range(concurrent))))
    finally:
        await database.dispose()


def memory_after(running: parts.Running, count: int) -> list[float]:
    """Resident megabytes of each process of `serve` after so many charges."""
    made = 0.0
    while made < count:
        seconds = 10
        made += charges(running, seconds).per_second * seconds
    return [parts.resident_megabytes(each) for each in running.process_ids()]
