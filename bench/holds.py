"""Hold and post, the two statements of every billed call: ours beside pgbench's on the same text."""

import asyncio
import multiprocessing
import random
import time
from datetime import UTC, datetime, timedelta

from bench import parts
from keyserver.gateway import admission, billing
from keyserver.gateway.payer import Payer
from keyserver.gateway.tariff import CostSource
from keyserver.kit.db import Database
from keyserver.kit.grouping import Grouped
from keyserver.ledger.journal import open_tenant_account

CAPABILITY = "bench"
COST = 1000
_TTL = timedelta(minutes=10)


def prepare(url: str, *, tenants: int) -> None:
    """Balance rows of the bench's tenants, with credit that lasts."""
    asyncio.run(_prepare(url, tenants))


async def _prepare(url: str, tenants: int) -> None:
    database = Database(url, pool_size=2)
    try:
        async with database.connection() as connection:
            for number in range(1, tenants + 1):
                await open_tenant_account(connection, f"t{number}")
            await connection.execute(
                "UPDATE account_balances SET balance_nanos = 1000000000000000 WHERE account_code LIKE '2000:%'"
            )
    finally:
        await database.dispose()


def pgbench_pairs(url: str, seconds: int, *, tenants: int) -> float:
    """The same two statements, one after the other on each of 32 connections."""
    # pgbench takes a colon for a variable even inside quotes: 58 is its code.
    account = "('2000' || chr(58) || 't' || :ten::text)"
    hold, tenant = "('hold_' || :ref::text)", "('t' || :ten::text)"
    setup = f"\\set ten random(1, {tenants})\n\\set str random(0, 15)\n\\set ref random(1, 9000000000000000000)\n"
    admit = {
        1: tenant,
        2: "NULL::text",
        3: "0::bigint",
        4: "0::bigint",
        5: "0",
        6: account,
        7: f"{COST}::bigint",
        8: "false",
        9: "current_date",
        10: "date_trunc('month', now())::date",
        11: hold,
        12: "NULL",
        13: "NULL",
        14: f"'{CAPABILITY}'",
        15: "now()",
        16: "now() + interval '10 minutes'",
    }
    posting = {
        1: "('je_' || :ref::text)",
        2: "now()",
        3: hold,
        4: tenant,
        5: f"{COST}::bigint",
        6: "true",
        7: account,
        8: "'Unearned revenue'",
        9: f"('4000' || chr(58) || '{CAPABILITY}')",
        10: ":str::smallint",
        11: f"'Revenue {CAPABILITY}'",
        12: "current_date",
        13: "date_trunc('month', now())::date",
        14: "'{}'",
    }
    record = ("NULL", "NULL", "NULL", "'r'", f"'{CAPABILITY}'", "'model'", "'up'", "1", "1", "NULL", "NULL", "1000")
    more = ("'usage'", "now()", "1", "NULL", "'completed'", "200", "false", f"'{CAPABILITY}'")
    settle = posting | dict(enumerate((*record, *more), start=15))
    script = setup + ";\n".join((_for_pgbench(admission.ADMIT, admit), _for_pgbench(billing.SETTLE, settle), ""))
    return parts.pgbench(url, script, seconds=seconds)


def _for_pgbench(statement: str, values: dict[int, str]) -> str:
    # The array slices' colons, and casts of what was put in, are no variables: a space in front says so.
    return parts.substitute(statement, values).replace("[1:", "[1 :").replace("[2:", "[2 :")


def pairs(url: str, seconds: int, *, tenants: int, processes: int = 2) -> float:
    """Pairs per second through our own code: 32 at a time, spread over processes as over a server's workers."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        done = pool.starmap(_pairs_for, [(url, seconds, tenants, parts.CONNECTIONS // processes)] * processes)
    return sum(done) / seconds


def _pairs_for(url: str, seconds: int, tenants: int, concurrent: int) -> int:
    import uvloop

    return uvloop.run(_pairs(url, seconds, tenants, concurrent))


async def _pairs(url: str, seconds: int, tenants: int, concurrent: int) -> int:
    database = Database(url, pool_size=concurrent)
    admitting, settling = Grouped(database.connection, admission.ADMIT), Grouped(database.connection, billing.SETTLE)
    pick = random.Random()
    end = time.monotonic() + seconds

    async def one() -> int:
        done = 0
        while time.monotonic() < end:
            payer = Payer(f"t{pick.randint(1, tenants)}", False, None, None, None)
            now = datetime.now(UTC)
            held = await admission.admit(
                database.connection,
                payer=payer,
                capability=CAPABILITY,
                estimate_nanos=COST,
                ttl=_TTL,
                now=now,
                grouped=admitting,
            )
            await billing.settle(
                database.connection, hold_id=held.hold_id, payer=payer, metered=_metered(now), now=now, grouped=settling
            )
            done += 1
        return done

    try:
        return sum(await asyncio.gather(*(one() for _ in range(concurrent))))
    finally:
        await database.dispose()


def _metered(now: datetime) -> billing.Metered:
    return billing.Metered(
        request_id="r",
        capability=CAPABILITY,
        model="model",
        upstream="up",
        input_tokens=1,
        output_tokens=1,
        units=None,
        unit_type=None,
        cost_nanos=COST,
        charge_nanos=COST,
        cost_source=CostSource.USAGE,
        started_at=now,
        duration_ms=1,
        first_byte_ms=None,
        outcome=billing.Outcome.COMPLETED,
        upstream_status=200,
        streamed=False,
    )
