"""`GET /admin/scanners`: how far each blockchain has been followed."""

from fastapi import APIRouter
from pydantic import Field

from keyserver.access.deps import Admin
from keyserver.chains.models import Finality
from keyserver.kit.deps import Now, Session
from keyserver.kit.wire import Instant, View
from keyserver.watching.nodes import NodeState
from keyserver.watching.reports import ScannerState, scanner_statuses

router = APIRouter(prefix="/admin", tags=["admin"], dependencies=[Admin])


class NodeView(View):
    """`node` is host and port."""

    node: str
    state: NodeState
    last_error: str | None
    last_error_at: Instant | None


class ScannerView(View):
    """One blockchain: where we are on it, and what its nodes said."""

    chain: str
    network: str
    state: ScannerState
    height: int | None = Field(description="The newest block applied; null until a node was reached for the first time")
    tip: int | None = Field(description="The node's newest block, as of `tip_seen_at`")
    lag: int | None = Field(description="Blocks from `height` to `tip`")
    moved_at: Instant | None
    tip_seen_at: Instant | None
    blocks_per_second: float | None = Field(description="Over the last minute")
    caught_up_in_seconds: int | None = Field(description="At that rate, while catching up")
    finality: Finality
    final_height: int | None = Field(description="The newest block that the chain calls so; null with `depth`")
    last_error: str | None
    last_error_at: Instant | None
    error_stands: bool = Field(description="Whether the last try failed, with `last_error`")
    nodes: list[NodeView] = Field(description="In the order of preference")
    capabilities: dict[str, str] = Field(description="What the node in use is and can do, in words")


class ScannerList(View):
    scanners: list[ScannerView]


@router.get("/scanners")
async def list_scanners(session: Session, now: Now) -> ScannerList:
    """How each blockchain is followed, and how its nodes are."""
    found = await scanner_statuses(session, now=now())
    return ScannerList(scanners=[ScannerView.model_validate(each) for each in found])
