"""What followers found out about their nodes, written down for operators, and read for `/admin/scanners`."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.chains.models import Blockchain
from keyserver.kit import metrics
from keyserver.watching.models import JobKind, JobStatus, NodeReport, Scanner, WatchJob


async def report(session: AsyncSession, blockchain_id: str, **found: Any) -> None:
    values = {"blockchain_id": blockchain_id, **found}
    stored = insert(NodeReport).values(values)
    await session.execute(stored.on_conflict_do_update(index_elements=["blockchain_id"], set_=found))


@dataclass(frozen=True, slots=True)
class ScannerStatus:
    """`height` is null until the node was reached for the first time, `lag` in blocks."""

    chain: str
    network: str
    height: int | None
    tip: int | None
    lag: int | None
    moved_at: datetime | None
    last_error: str | None
    last_error_at: datetime | None
    capabilities: dict[str, Any]


async def scanner_statuses(session: AsyncSession) -> list[ScannerStatus]:
    query = (
        select(Blockchain, Scanner, NodeReport)
        .outerjoin(Scanner, Scanner.blockchain_id == Blockchain.id)
        .outerjoin(NodeReport, NodeReport.blockchain_id == Blockchain.id)
        .order_by(Blockchain.id)
    )
    return [_status(*row) for row in await session.execute(query)]


def _status(blockchain: Blockchain, scanner: Scanner | None, node: NodeReport | None) -> ScannerStatus:
    height = scanner.height if scanner else None
    tip = node.tip_height if node else None
    return ScannerStatus(
        chain=blockchain.chain,
        network=blockchain.network,
        height=height,
        tip=tip,
        lag=max(0, tip - height) if tip is not None and height is not None else None,
        moved_at=scanner.moved_at if scanner else None,
        last_error=node.last_error if node else None,
        last_error_at=node.last_error_at if node else None,
        capabilities=(node.capabilities if node else None) or {},
    )


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
