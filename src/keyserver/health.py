"""`/health/*` and `/metrics`: for orchestrators and Prometheus."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.charges.models import Payment
from keyserver.charges.queries import UNMATCHED
from keyserver.kit import metrics
from keyserver.kit.deps import Now, Session, database_of
from keyserver.kit.migrations import is_current
from keyserver.kit.problems import Unavailable
from keyserver.pricing import listing as prices
from keyserver.pricing.deps import Prices
from keyserver.watching.nodes import USABLE
from keyserver.watching.reports import ScannerState, ScannerStatus, audit_gauges, scanner_statuses
from keyserver.webhooks import deliveries

router = APIRouter(tags=["operations"])


@router.get("/health/live")
async def live() -> dict[str, str]:
    """This process answers."""
    return {"status": "ok"}


@router.get("/health/ready")
async def ready(request: Request, session: Session, now: Now) -> dict[str, Any]:
    """The database answers, its schema is this code's, how far behind each scanner is, and how it fares.

    A chain that is not followed makes no API process unready: `scannerState` says so.
    """
    if not await is_current(database_of(request)):
        raise Unavailable("The database's schema is not the one this version needs: run `keyserver migrate`")
    scanners = {f"{each.chain}:{each.network}": each for each in await scanner_statuses(session, now=now())}
    return {
        "status": "ok",
        "database": "ok",
        "migrations": "ok",
        "scannerLag": {name: each.lag for name, each in scanners.items()},
        "scannerState": {name: each.state for name, each in scanners.items()},
    }


@router.get("/metrics", response_class=Response)
async def expose(session: Session, market: Prices, now: Now) -> Response:
    gauges = [
        *await _scanner_gauges(session, now=now()),
        await _unmatched_gauge(session),
        *await audit_gauges(session),
        *await prices.database_gauges(session, policy=market.policy, now=now()),
        *await deliveries.backlog(session, now=now()),
    ]
    return Response(metrics.render(database_gauges=gauges), media_type=metrics.CONTENT_TYPE)


async def _scanner_gauges(session: AsyncSession, *, now: datetime) -> list[metrics.Gauges]:
    statuses = await scanner_statuses(session, now=now)

    def gauge(name: str, text: str, value: Callable[[ScannerStatus], float | None]) -> metrics.Gauges:
        """A sample for each blockchain that has the value."""
        found = [({"chain": each.chain, "network": each.network}, value(each)) for each in statuses]
        return (name, text, [(labels, number) for labels, number in found if number is not None])

    def age(instant: datetime | None) -> float | None:
        return None if instant is None else (now - instant).total_seconds()

    nodes = [
        (
            {"chain": each.chain, "network": each.network, "node": node["node"]},
            float(node["state"] in USABLE),
        )
        for each in statuses
        for node in each.nodes
    ]
    return [
        gauge("keyserver_scanner_height", "Last block applied", lambda each: each.height),
        gauge(
            "keyserver_scanner_lag_blocks", "Blocks between the node's tip and the last applied", lambda each: each.lag
        ),
        gauge(
            "keyserver_scanner_cursor_age_seconds", "Since a block was applied last", lambda each: age(each.moved_at)
        ),
        gauge(
            "keyserver_scanner_contact_age_seconds",
            "Since a node told its tip last",
            lambda each: age(each.tip_seen_at),
        ),
        gauge(
            "keyserver_scanner_stuck",
            "1 when a blockchain is not followed: tries fail, or nobody tries",
            lambda each: each.state is ScannerState.STUCK,
        ),
        ("keyserver_node_usable", "1 when a node serves, or could take over at once", nodes),
    ]


async def _unmatched_gauge(session: AsyncSession) -> metrics.Gauges:
    count = await session.scalar(select(func.count(Payment.id)).where(*UNMATCHED))
    return ("keyserver_payments_unmatched", "Confirmed payments neither credited nor dismissed", [({}, count or 0)])
