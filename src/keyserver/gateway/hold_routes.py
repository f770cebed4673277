"""`/usage/holds` for programs that make a call themselves and bill it here, and `/admin/holds` for operators."""

from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, cast

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response

from keyserver.access.deps import Admin
from keyserver.access.idempotency import answer_hot, kept_answer, tenant_scope
from keyserver.gateway import stated
from keyserver.gateway.admission import admit
from keyserver.gateway.errors import HoldNotFound
from keyserver.gateway.hold_schemas import (
    AdminHoldPage,
    HoldView,
    NewHold,
    NewSettlement,
    PlacedHold,
    SettledHold,
    VoidedHold,
    admin_hold_view,
    hold_view,
    nanos_of,
)
from keyserver.gateway.payer import Payer, payer_of
from keyserver.gateway.rate import RateState
from keyserver.kit.db import Connect
from keyserver.kit.deps import Now, Session
from keyserver.kit.http import StrictRoute
from keyserver.kit.money import format_nanos
from keyserver.kit.paging import Cursor, Limit, decode_cursor, encode_cursor
from keyserver.ledger import holds
from keyserver.ledger.models import HoldStatus

router = APIRouter(prefix="/usage/holds", tags=["usage"], route_class=StrictRoute)
admin_router = APIRouter(prefix="/admin/holds", tags=["admin"], route_class=StrictRoute, dependencies=[Admin])

Paying = Annotated[Payer, Depends(payer_of)]
_REFUSALS: dict[int | str, dict[str, Any]] = {
    402: {"description": "`insufficient_credits`, `credits_exhausted` or `spending_cap_reached`; says what is missing"},
    429: {"description": "`rate_limit_exceeded`; `Retry-After` says when one more is free"},
}


@router.post("", status_code=201, response_model=PlacedHold, responses=_REFUSALS)
async def place_hold(request: Request, payer: Paying, body: NewHold, now: Now) -> Response:
    """Sets credit aside for a call of any capability, until it is settled or voided or expires."""
    scope = tenant_scope(payer.tenant_id)
    if (kept := await kept_answer(request, scope=scope)) is not None:
        return kept
    rate: RateState | None = None

    async def work(connect: Connect) -> tuple[int, Any]:
        nonlocal rate
        placed_at = now()
        ttl = timedelta(seconds=body.ttl_seconds)
        placed = await admit(
            connect,
            payer=payer,
            capability=body.capability,
            estimate_nanos=nanos_of(body.estimate_usd),
            ttl=ttl,
            now=placed_at,
            top_up_url=request.app.state.top_up_url,
        )
        rate = placed.rate
        view = PlacedHold(
            hold_id=placed.hold_id,
            status=HoldStatus.PENDING,
            capability=body.capability,
            estimate_nanodollars=str(placed.estimate_nanos),
            expires_at=placed_at + ttl,
        )
        return 201, view.model_dump(mode="json", by_alias=True)

    answer = await answer_hot(request, work, scope=scope)
    answer.headers.update(rate.headers() if rate else {})
    return answer


@router.get("/{hold_id}")
async def get_hold(payer: Paying, session: Session, hold_id: str) -> HoldView:
    hold = await holds.get_hold(session, hold_id, tenant_id=payer.tenant_id)
    if hold is None:
        raise HoldNotFound
    return hold_view(hold)


@router.post(
    "/{hold_id}/settle",
    response_model=SettledHold,
    responses={
        409: {"description": "`hold_closed`: voided, expired, or settled with other content; `request_id_used`"}
    },
)
async def settle_hold(request: Request, payer: Paying, hold_id: str, body: NewSettlement, now: Now) -> Response:
    """Charges cost times margin, also when that is more than was held, and releases the hold."""
    remaining: int | None = None

    async def work(connect: Connect) -> tuple[int, Any]:
        nonlocal remaining
        bill = await stated.settle_stated(
            connect,
            hold_id=hold_id,
            payer=payer,
            statement=stated.Statement(
                nanos_of(body.cost_usd), body.request_id, body.provider, body.units, body.unit_type
            ),
            default_margin=cast(Decimal, request.app.state.default_margin),
            now=now(),
        )
        remaining = bill.available_nanos
        view = SettledHold(
            hold_id=hold_id,
            status=HoldStatus.POSTED,
            capability=bill.capability,
            cost_nanodollars=str(bill.cost_nanos),
            charged_nanodollars=str(bill.charged_nanos),
            charged_usd=format_nanos(bill.charged_nanos),
            entry_id=bill.entry_id,
        )
        return 200, view.model_dump(mode="json", by_alias=True)

    answer = await answer_hot(request, work, scope=tenant_scope(payer.tenant_id))
    answer.headers["x-credits-charged"] = orjson.loads(answer.body)["chargedUsd"]
    if remaining is not None:
        answer.headers["x-credits-remaining"] = format_nanos(remaining)
    return answer


@router.post(
    "/{hold_id}/void",
    response_model=VoidedHold,
    responses={409: {"description": "`hold_closed`: settled, or expired"}},
)
async def void_hold(request: Request, payer: Paying, hold_id: str, now: Now) -> Response:
    """Gives the credit back: nothing is charged."""

    async def work(connect: Connect) -> tuple[int, Any]:
        await stated.void_hold(connect, hold_id=hold_id, payer=payer, now=now())
        view = VoidedHold(hold_id=hold_id, status=HoldStatus.VOIDED)
        return 200, view.model_dump(mode="json", by_alias=True)

    return await answer_hot(request, work, scope=tenant_scope(payer.tenant_id))


@admin_router.get("")
async def list_holds(
    session: Session,
    status: HoldStatus | None = None,
    tenant_id: Annotated[str | None, Query(max_length=128)] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> AdminHoldPage:
    """Newest first. `status=expired` are those never billed: whoever made the call has died before it settled."""
    before = decode_cursor(cursor)[0] if cursor else None
    wanted = holds.Filter(status, tenant_id)
    found = await holds.list_holds(session, wanted=wanted, before_id=before, limit=limit + 1)
    page = [admin_hold_view(hold) for hold in found[:limit]]
    return AdminHoldPage(holds=page, next_cursor=encode_cursor(page[-1].id) if len(found) > limit else None)
