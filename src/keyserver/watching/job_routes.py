"""Rescans and audits, for operators: asked for here, done by the background work, followed by their id."""

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.access.deps import Admin
from keyserver.access.idempotency import answer_once
from keyserver.chains.models import Blockchain
from keyserver.kit.deps import Now, Session
from keyserver.kit.http import StrictRoute
from keyserver.kit.paging import Cursor, Limit, decode_cursor, encode_cursor
from keyserver.kit.wire import Body, Instant, View
from keyserver.watching import jobs
from keyserver.watching.comparison import Kind
from keyserver.watching.models import JobKind, JobStatus, WatchJob

router = APIRouter(prefix="/admin", tags=["admin"], route_class=StrictRoute, dependencies=[Admin])

Height = Annotated[int, Field(ge=0, le=2**62)]


class RescanRequest(Body):
    from_height: Height
    to_height: Annotated[Height | None, Field(description="The last height; left out: the last one followed")] = None


class AuditRequest(Body):
    from_height: Annotated[Height | None, Field(description="Left out: the blocks of the last day")] = None
    to_height: Annotated[Height | None, Field(description="The last height; left out: the last one followed")] = None


class TotalsView(View):
    """Sums over the blocks read: base units, and nanodollars, as strings."""

    decimals: int
    node_units: str
    payments_units: str
    credited_nanos: str
    ledger_nanos: str


class DifferenceView(View):
    """What each of the three books says of one output (null: nothing), and what to do about it."""

    kind: Kind
    tx_hash: str
    output_index: int
    token: str
    height: int | None
    payment_id: str | None
    node: str | None
    payments: str | None
    ledger: str | None
    advice: str


class JobSummary(View):
    """`found`: payments recorded by a rescan, differences found by an audit. `next_height`: the next one to read."""

    id: str
    kind: JobKind
    chain: str
    network: str
    status: JobStatus
    nightly: bool
    from_height: int | None
    to_height: int
    next_height: int | None
    found: int
    error: Annotated[str | None, Field(description="Why the last try failed, while it is tried again or given up")]
    created_at: Instant
    finished_at: Instant | None


class JobView(JobSummary):
    """With what an audit found so far; the first 500 differences are kept."""

    tokens: dict[str, TotalsView]
    differences: list[DifferenceView]


class JobPage(View):
    jobs: list[JobSummary]
    next_cursor: str | None


@router.post("/scanners/{chain}/{network}/rescan", status_code=202, response_model=JobView)
async def rescan(request: Request, chain: str, network: str, body: RescanRequest, now: Now) -> Response:
    """Reads blocks again that were followed already, and records the payments that were missed in them.

    Nothing is recorded or credited twice, and following goes on meanwhile. `GET /admin/jobs/{id}` tells its progress;
    jobs of one blockchain are done one after the other.
    """
    return await _asked(request, chain, network, JobKind.RESCAN, body.from_height, body.to_height, now)


@router.post("/scanners/{chain}/{network}/audit", status_code=202, response_model=JobView)
async def audit(request: Request, chain: str, network: str, body: AuditRequest, now: Now) -> Response:
    """Compares what the node shows, the payments stored and the ledger over a range of blocks; changes nothing."""
    return await _asked(request, chain, network, JobKind.AUDIT, body.from_height, body.to_height, now)


async def _asked(
    request: Request, chain: str, network: str, kind: JobKind, first: int | None, last: int | None, now: Now
) -> Response:
    async def work(session: AsyncSession) -> tuple[int, Any]:
        blockchain = await jobs.find_blockchain(session, chain=chain, network=network)
        job = await jobs.enqueue(session, blockchain, kind=kind, from_height=first, to_height=last, now=now())
        return 202, _view(job, blockchain).model_dump(mode="json")

    return await answer_once(request, work, scope="admin")


@router.get("/jobs")
async def list_jobs(session: Session, limit: Limit = 50, cursor: Cursor = None) -> JobPage:
    """Rescans and audits, newest first."""
    before = None if cursor is None else decode_cursor(cursor)[0]
    found = await jobs.list_jobs(session, before_id=before, limit=limit + 1)
    page = found[:limit]
    return JobPage(
        jobs=[JobSummary.model_validate(_members(job, blockchain)) for job, blockchain in page],
        next_cursor=encode_cursor(page[-1][0].id) if len(found) > limit else None,
    )


@router.get("/jobs/{job_id}")
async def get_job(session: Session, job_id: str) -> JobView:
    """How far a rescan or an audit has come, and what it found."""
    return _view(*await jobs.get_job(session, job_id))


@router.delete("/jobs/{job_id}", status_code=204)
async def cancel_job(session: Session, job_id: str, now: Now) -> None:
    """Ends a job before its time. What a rescan recorded stays; a job that is over stays as it is."""
    await jobs.cancel(session, job_id, now=now())


def _view(job: WatchJob, blockchain: Blockchain) -> JobView:
    report = job.report or {"tokens": {}, "differences": []}
    return JobView.model_validate(_members(job, blockchain) | report)


def _members(job: WatchJob, blockchain: Blockchain) -> dict[str, Any]:
    own = {name: getattr(job, name) for name in JobSummary.model_fields if name not in {"chain", "network"}}
    return {**own, "chain": blockchain.chain, "network": blockchain.network}
