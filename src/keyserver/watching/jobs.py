"""The queue of jobs that read blocks again: one at a time for each blockchain, by whichever worker is free."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.chains.models import Blockchain
from keyserver.kit.ids import new_id
from keyserver.kit.problems import BadRequest
from keyserver.watching.errors import BlockchainNotFound, JobNotFound, NotFollowedYet
from keyserver.watching.models import JobKind, JobStatus, Scanner, WatchJob

#: How long a worker that has gone silent keeps a job from others.
LEASE = timedelta(seconds=60)
KEPT = timedelta(days=90)
DAY = timedelta(days=1)


class JobGone(Exception):
    """Somebody else went on with the job, or it was cancelled; nothing of ours was written."""


# --- asking -----------------------------------------------------------------------------------------------------


async def find_blockchain(session: AsyncSession, *, chain: str, network: str) -> Blockchain:
    query = select(Blockchain).where(Blockchain.chain == chain, Blockchain.network == network)
    found = await session.scalar(query)
    if found is None:
        raise BlockchainNotFound
    return found


async def enqueue(
    session: AsyncSession,
    blockchain: Blockchain,
    *,
    kind: JobKind,
    from_height: int | None,
    to_height: int | None,
    now: datetime,
    since_at: datetime | None = None,
    nightly: bool = False,
) -> WatchJob:
    """A job over `from_height` (left out: since `since_at`, else the last day's blocks) to `to_height`, both read.

    It never goes further than was followed by now. NotFollowedYet, or BadRequest when there are no such blocks.
    """
    scanner = await session.get(Scanner, blockchain.id)
    if scanner is None:
        raise NotFollowedYet
    last = scanner.height if to_height is None else min(to_height, scanner.height)
    if from_height is not None and from_height > scanner.height:
        raise BadRequest.at("/from_height", f"Only blocks up to {scanner.height} have been followed yet")
    if from_height is not None and from_height > last:
        raise BadRequest.at("/to_height", "to_height must not be below from_height")
    job = WatchJob(
        id=new_id("job"),
        blockchain_id=blockchain.id,
        kind=kind,
        nightly=nightly,
        from_height=from_height,
        since_at=None if from_height is not None else since_at or now - DAY,
        to_height=last,
        status=JobStatus.WAITING,
        found=0,
        created_at=now,
    )
    session.add(job)
    await session.flush()
    return job


async def get_job(session: AsyncSession, job_id: str) -> tuple[WatchJob, Blockchain]:
    query = select(WatchJob, Blockchain).join(Blockchain, Blockchain.id == WatchJob.blockchain_id)
    row = (await session.execute(query.where(WatchJob.id == job_id))).first()
    if row is None:
        raise JobNotFound
    return row[0], row[1]


async def list_jobs(session: AsyncSession, *, before_id: str | None, limit: int) -> list[tuple[WatchJob, Blockchain]]:
    """Newest first."""
    query = (
        select(WatchJob, Blockchain)
        .join(Blockchain, Blockchain.id == WatchJob.blockchain_id)
        .order_by(WatchJob.id.desc())
        .limit(limit)
    )
    if before_id is not None:
        query = query.where(WatchJob.id < before_id)
    return [(job, blockchain) for job, blockchain in await session.execute(query)]


async def cancel(session: AsyncSession, job_id: str, *, now: datetime) -> None:
    """What it recorded stays. A job that is over stays what it is."""
    await get_job(session, job_id)
    await _end(session, job_id, JobStatus.CANCELLED, now=now)


# --- working ----------------------------------------------------------------------------------------------------


async def claim(session: AsyncSession, *, now: datetime) -> WatchJob | None:
    """The oldest job of a blockchain that no worker is at, ours for `LEASE` from now; None when there is none."""
    oldest = select(func.min(WatchJob.id)).where(WatchJob.finished_at.is_(None)).group_by(WatchJob.blockchain_id)
    query = (
        select(WatchJob)
        .where(WatchJob.id.in_(oldest), WatchJob.finished_at.is_(None))
        .where(or_(WatchJob.leased_until.is_(None), WatchJob.leased_until < now))
        .order_by(WatchJob.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    job = await session.scalar(query)
    if job is not None:
        job.status, job.leased_until = JobStatus.RUNNING, now + LEASE
    return job


async def begin(session: AsyncSession, job_id: str, *, from_height: int, now: datetime) -> None:
    """Says where the job begins; JobGone when somebody else has."""
    values = {"from_height": from_height, "next_height": from_height, "leased_until": now + LEASE}
    await _write(session, job_id, WatchJob.next_height.is_(None), values)


async def advance(
    session: AsyncSession,
    job_id: str,
    *,
    before: int,
    after: int,
    found: int,
    now: datetime,
    report: dict[str, Any] | None = None,
) -> None:
    """Moves the job from one next height to another, adding what was found on the way; JobGone when it moved."""
    values: dict[str, Any] = {
        "next_height": after,
        "found": WatchJob.found + found,
        "leased_until": now + LEASE,
        "error": None,
    }
    if report is not None:
        values["report"] = report
    await _write(session, job_id, WatchJob.next_height == before, values)


async def note_error(session: AsyncSession, job_id: str, sentence: str, *, now: datetime, lasting: timedelta) -> None:
    """The worker keeps the job while it waits before the next try."""
    values = {"error": sentence, "leased_until": now + lasting + LEASE}
    await _write(session, job_id, WatchJob.finished_at.is_(None), values)


async def release(session: AsyncSession, job_id: str) -> None:
    """Lets another worker go on with it at once."""
    released = update(WatchJob).where(WatchJob.id == job_id, WatchJob.finished_at.is_(None))
    await session.execute(released.values(leased_until=None))


async def finish(session: AsyncSession, job_id: str, *, now: datetime) -> bool:
    """Whether it was us who finished it."""
    return await _end(session, job_id, JobStatus.DONE, now=now)


async def fail(session: AsyncSession, job_id: str, sentence: str, *, now: datetime) -> None:
    await _end(session, job_id, JobStatus.FAILED, now=now, error=sentence)


async def _end(session: AsyncSession, job_id: str, status: JobStatus, *, now: datetime, **values: Any) -> bool:
    ended = (
        update(WatchJob)
        .where(WatchJob.id == job_id, WatchJob.finished_at.is_(None))
        .values(status=status, finished_at=now, leased_until=None, **values)
        .returning(WatchJob.id)
    )
    return await session.scalar(ended) is not None


async def _write(session: AsyncSession, job_id: str, condition: Any, values: dict[str, Any]) -> None:
    written = (
        update(WatchJob)
        .where(WatchJob.id == job_id, WatchJob.status == JobStatus.RUNNING, condition)
        .values(values)
        .returning(WatchJob.id)
        .execution_options(synchronize_session=False)
    )
    if await session.scalar(written) is None:
        raise JobGone


# --- the schedule -----------------------------------------------------------------------------------------------


async def plan_nightly(session: AsyncSession, *, every: timedelta, now: datetime) -> int:
    """An audit for every blockchain whose last scheduled one, or registration, is so long ago; returns how many.

    It reads the blocks since a day before the last one that was done: what was young then is final now.
    """
    planned = 0
    query = select(Scanner).order_by(Scanner.blockchain_id).with_for_update(skip_locked=True)
    for scanner in await session.scalars(query):
        mine = (WatchJob.blockchain_id == scanner.blockchain_id, WatchJob.kind == JobKind.AUDIT, WatchJob.nightly)
        last = await session.scalar(select(WatchJob).where(*mine).order_by(WatchJob.id.desc()).limit(1))
        blockchain = await session.get_one(Blockchain, scanner.blockchain_id)
        is_open = last is not None and last.finished_at is None
        if is_open or (last or blockchain).created_at > now - every:
            continue
        done_at = await session.scalar(
            select(func.max(WatchJob.created_at)).where(*mine, WatchJob.status == JobStatus.DONE)
        )
        await enqueue(
            session,
            blockchain,
            kind=JobKind.AUDIT,
            from_height=None,
            to_height=None,
            since_at=(done_at or now) - DAY,
            nightly=True,
            now=now,
        )
        planned += 1
    return planned


async def forget_old_jobs(session: AsyncSession, *, now: datetime) -> None:
    await session.execute(delete(WatchJob).where(WatchJob.finished_at < now - KEPT))
