"""`/health/*` and `/metrics`: for orchestrators and Prometheus."""

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
from keyserver.watching.reports import scanner_statuses
from keyserver.webhooks import deliveries

router = APIRouter(tags=["operations"])


@router.get("/health/live")
async def live() -> dict[str, str]:
    """This process answers."""
    return {"status": "ok"}


@router.get("/health/ready")
async def ready(request: Request, session: Session) -> dict[str, Any]:
    """The database answers, its schema is this code's, and how far behind each scanner is."""
    if not await is_current(database_of(request)):
        raise Unavailable("The database's schema is not the one this version needs: run `keyserver migrate`")
    scanners = {f"{each.chain}:{each.network}": each.lag for each in await scanner_statuses(session)}
    return {"status": "ok", "database": "ok", "migrations": "ok", "scannerLag": scanners}


@router.get("/metrics", response_class=Response)
async def expose(session: Session, market: Prices, now: Now) -> Response:
    gauges = [
        *await _scanner_gauges(session),
        await _unmatched_gauge(session),
        *await prices.database_gauges(session, policy=market.policy, now=now()),
        *await deliveries.backlog(session, now=now()),
    ]
    return Response(metrics.render(database_gauges=gauges), media_type=metrics.CONTENT_TYPE)


async def _scanner_gauges(session: AsyncSession) -> list[metrics.Gauges]:
    statuses = await scanner_statuses(session)

    def labels(chain: str, network: str) -> dict[str, str]:
        return {"chain": chain, "network": network}

    return [
        (
            "keyserver_scanner_height",
            "Last block applied",
            [(labels(each.chain, each.network), each.height) for each in statuses if each.height is not None],
        ),
        (
            "keyserver_scanner_lag_blocks",
            "Blocks between the node's tip and the last block applied",
            [(labels(each.chain, each.network), each.lag) for each in statuses if each.lag is not None],
        ),
    ]


async def _unmatched_gauge(session: AsyncSession) -> metrics.Gauges:
    count = await session.scalar(select(func.count(Payment.id)).where(*UNMATCHED))
    return ("keyserver_payments_unmatched", "Confirmed payments neither credited nor dismissed", [({}, count or 0)])
