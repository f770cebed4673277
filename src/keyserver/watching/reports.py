"""What followers found out about their nodes, written down for operators, and read for `/admin/scanners`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.chains.models import Blockchain, Finality
from keyserver.kit import metrics
from keyserver.kit.clock import iso_z
from keyserver.watching.models import JobKind, JobStatus, NodeReport, Scanner, WatchJob
from keyserver.watching.nodes import NodeHealth

#: Fewer blocks than this behind the tip is following it.
_FEW = 3
#: Tries that have failed for so long make a scanner stuck, and so does hearing nothing of it for so long.
_STUCK_AFTER = timedelta(minutes=1)
_SILENT_AFTER = timedelta(minutes=5)


class ScannerState(StrEnum):
    FOLLOWING = "following"
    CATCHING_UP = "catching up"
    STUCK = "stuck"
    NOT_STARTED = "not started"


# --- writing ----------------------------------------------------------------------------------------------------


async def report(session: AsyncSession, blockchain_id: str, **found: Any) -> None:
    values = {"blockchain_id": blockchain_id, **found}
    stored = insert(NodeReport).values(values)
    await session.execute(stored.on_conflict_do_update(index_elements=["blockchain_id"], set_=found))


async def report_failure(session: AsyncSession, blockchain_id: str, sentence: str, *, now: datetime) -> None:
    """The last try failed; it may not be the first."""
    found = {"last_error": sentence[:500], "last_error_at": now}
    stored = insert(NodeReport).values(blockchain_id=blockchain_id, failing_since=now, **found)
    since = func.coalesce(NodeReport.failing_since, stored.excluded.failing_since)
    together = {**found, "failing_since": since}
    await session.execute(stored.on_conflict_do_update(index_elements=["blockchain_id"], set_=together))


async def report_recovery(session: AsyncSession, blockchain_id: str) -> None:
    works = update(NodeReport).where(NodeReport.blockchain_id == blockchain_id, NodeReport.failing_since.is_not(None))
    await session.execute(works.values(failing_since=None))


async def report_nodes(session: AsyncSession, blockchain_id: str, nodes: Sequence[NodeHealth]) -> None:
    rows = [asdict(each) for each in nodes]
    for row in rows:
        row["last_error_at"] = None if row["last_error_at"] is None else iso_z(row["last_error_at"])
    await report(session, blockchain_id, nodes=rows)


# --- reading ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScannerStatus:
    """`height` is null until the node was reached for the first time, `lag` in blocks.

    `error_stands`: the last try failed, with `last_error`. `caught_up_in_seconds` at the present rate, when it is
    catching up; `final_height` where the chain's own finality is asked for.
    """

    chain: str
    network: str
    state: ScannerState
    height: int | None
    tip: int | None
    lag: int | None
    moved_at: datetime | None
    tip_seen_at: datetime | None
    blocks_per_second: float | None
    caught_up_in_seconds: int | None
    finality: Finality
    final_height: int | None
    last_error: str | None
    last_error_at: datetime | None
    error_stands: bool
    nodes: list[dict[str, Any]]
    capabilities: dict[str, Any]


async def scanner_statuses(session: AsyncSession, *, now: datetime) -> list[ScannerStatus]:
    query = (
        select(Blockchain, Scanner, NodeReport)
        .outerjoin(Scanner, Scanner.blockchain_id == Blockchain.id)
        .outerjoin(NodeReport, NodeReport.blockchain_id == Blockchain.id)
        .order_by(Blockchain.id)
    )
    rows = await session.execute(query)
    return [_status(*row, now=now) for row in rows]


def _status(
    blockchain: Blockchain, scanner: Scanner | None, found: NodeReport | None, *, now: datetime
) -> ScannerStatus:
    node = found or NodeReport()
    height = scanner.height if scanner else None
    moved_at = scanner.moved_at if scanner else None
    tip = node.tip_height
    lag = max(0, tip - height) if tip is not None and height is not None else None
    # Another process may have followed on, after the one that failed last was gone.
    stands = node.failing_since is not None and not _is_after(moved_at, node.last_error_at)
    state = _state(blockchain, node, moved_at, lag, failing_since=node.failing_since if stands else None, now=now)
    rate = node.blocks_per_second
    return ScannerStatus(
        chain=blockchain.chain,
        network=blockchain.network,
        state=state,
        height=height,
        tip=tip,
        lag=lag,
        moved_at=moved_at,
        tip_seen_at=node.tip_seen_at,
        blocks_per_second=None if rate is None else round(rate, 3),
        caught_up_in_seconds=round(lag / rate) if lag and rate and state is ScannerState.CATCHING_UP else None,
        finality=blockchain.finality,
        final_height=None if blockchain.finality is Finality.DEPTH else node.final_height,
        last_error=node.last_error,
        last_error_at=node.last_error_at,
        error_stands=stands,
        nodes=node.nodes or [],
        capabilities=node.capabilities or {},
    )


def _state(
    blockchain: Blockchain,
    node: NodeReport,
    moved_at: datetime | None,
    lag: int | None,
    *,
    failing_since: datetime | None,
    now: datetime,
) -> ScannerState:
    if failing_since is not None and now - failing_since >= _STUCK_AFTER:
        return ScannerState.STUCK
    if moved_at is None:
        return ScannerState.NOT_STARTED
    heard_at = max(moved_at, node.tip_seen_at or moved_at)
    if now - heard_at >= max(_SILENT_AFTER, timedelta(seconds=10 * (blockchain.poll_seconds or 0))):
        return ScannerState.STUCK
    return ScannerState.FOLLOWING if lag is None or lag < _FEW else ScannerState.CATCHING_UP


def _is_after(instant: datetime | None, other: datetime | None) -> bool:
    return instant is not None and other is not None and instant > other


# --- audits ----------------------------------------------------------------------------------------------------


async def audit_gauges(session: AsyncSession) -> list[metrics.Gauges]:
    """What the newest audit of each blockchain's last blocks found, and when; audits of other blocks are none of it."""
    done = (WatchJob.kind == JobKind.AUDIT, WatchJob.status == JobStatus.DONE, WatchJob.since_at.is_not(None))
    query = (
        select(Blockchain.chain, Blockchain.network, WatchJob.found, WatchJob.finished_at)
        .join(WatchJob, WatchJob.blockchain_id == Blockchain.id)
        .where(WatchJob.id.in_(select(func.max(WatchJob.id)).where(*done).group_by(WatchJob.blockchain_id)))
        .order_by(Blockchain.id)
    )
    labelled = [
        ({"chain": chain, "network": network}, found, finished_at)
        for chain, network, found, finished_at in await session.execute(query)
    ]
    return [
        (
            "keyserver_audit_differences",
            "Differences between node, payments and ledger that the newest audit of the last blocks found: 0 is right",
            [(labels, found) for labels, found, _ in labelled],
        ),
        (
            "keyserver_audit_timestamp_seconds",
            "When the newest audit of the last blocks was done",
            [(labels, at.timestamp()) for labels, _, at in labelled if at is not None],
        ),
    ]
