"""`GET /admin/scanners`: how far each blockchain has been followed."""

from typing import Any

from fastapi import APIRouter

from keyserver.access.deps import Admin
from keyserver.kit.deps import Session
from keyserver.kit.wire import Instant, View
from keyserver.watching.reports import scanner_statuses

router = APIRouter(prefix="/admin", tags=["admin"], dependencies=[Admin])


class ScannerView(View):
    chain: str
    network: str
    height: int | None
    tip: int | None
    lag: int | None
    moved_at: Instant | None
    last_error: str | None
    last_error_at: Instant | None
    capabilities: dict[str, Any]


class ScannerList(View):
    scanners: list[ScannerView]


@router.get("/scanners")
async def list_scanners(session: Session) -> ScannerList:
    return ScannerList(scanners=[ScannerView.model_validate(each) for each in await scanner_statuses(session)])
