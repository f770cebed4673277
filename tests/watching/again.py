"""Rescans and audits at hand: asked for, claimed and worked off in the test's own process."""

import asyncio
from typing import Any

from sqlalchemy import text
from tests.builders import MASTER_KEY
from tests.watching.chain_in_memory import ChainInMemory
from tests.watching.world import BLOCKCHAIN, World

from keyserver.chains.models import Blockchain, PaymentMethod
from keyserver.kit.secrets import MasterKey
from keyserver.kit.supervise import Backoff
from keyserver.watching import jobs
from keyserver.watching.models import JobKind, WatchJob
from keyserver.watching.runner import JobRunner

MASTER = MasterKey(MASTER_KEY)


def runner(world: World, chain: ChainInMemory | None = None, *, give_up_after: int = 20) -> JobRunner:
    return JobRunner(
        world.database,
        lambda _: chain or world.chain,
        market=world.market,
        master=MASTER,
        clock=world.clock,
        told=lambda: None,
        backoff=Backoff(first=0.01, most=0.02),
        give_up_after=give_up_after,
    )


async def reach_node(world: World) -> None:
    """Jobs find a blockchain's node by its payment methods, as followers do."""
    async with world.database.transaction() as session:
        (await session.get_one(PaymentMethod, "COIN")).rpc_url_encrypted = MASTER.encrypt("http://node")


async def ask(world: World, kind: JobKind = JobKind.RESCAN, first: int | None = 0, last: int | None = None) -> WatchJob:
    await reach_node(world)
    async with world.database.transaction() as session:
        blockchain = await session.get_one(Blockchain, BLOCKCHAIN)
        return await jobs.enqueue(session, blockchain, kind=kind, from_height=first, to_height=last, now=world.clock())


async def claim(world: World) -> WatchJob | None:
    async with world.database.transaction() as session:
        return await jobs.claim(session, now=world.clock())


async def look_at(world: World, job: WatchJob) -> WatchJob:
    async with world.database.transaction() as session:
        found, _ = await jobs.get_job(session, job.id)
        return found


async def work_off(world: World, job: WatchJob, **options: Any) -> WatchJob:
    """The job, claimed and worked on to its end."""
    claimed = await claim(world)
    assert claimed is not None and claimed.id == job.id
    async with asyncio.timeout(20):
        await runner(world, **options).work(claimed, asyncio.Event())
    return await look_at(world, job)


async def rescan(world: World, first: int = 0, last: int | None = None, **options: Any) -> WatchJob:
    return await work_off(world, await ask(world, JobKind.RESCAN, first, last), **options)


async def audit(world: World, first: int | None = 0, last: int | None = None, **options: Any) -> WatchJob:
    return await work_off(world, await ask(world, JobKind.AUDIT, first, last), **options)


def kinds(job: WatchJob) -> list[str]:
    """What an audit found, in the order of the words."""
    assert job.status == "done", job.error
    found = sorted(each["kind"] for each in (job.report or {}).get("differences", ()))
    assert job.found == len(found)
    return found


async def by_hand(world: World, *statements: str) -> None:
    """What nobody should do: changes the database past triggers and foreign keys."""
    async with world.database.transaction() as session:
        await session.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in statements:
            await session.execute(text(statement))


async def everything(world: World) -> dict[str, list[Any]]:
    """Every row that a payment moves, by table, to be compared with what it is later."""
    rows: dict[str, list[Any]] = {}
    async with world.database.transaction() as session:
        for table in (
            "payments",
            "charges",
            "journal_entries",
            "journal_lines",
            "account_balances",
            "webhook_deliveries",
        ):
            found = await session.execute(text(f"SELECT to_jsonb(t) FROM {table} t ORDER BY to_jsonb(t)::text"))
            rows[table] = [row[0] for row in found]
    return rows
