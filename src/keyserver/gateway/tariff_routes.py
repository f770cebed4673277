"""`/admin/rates` and `/admin/upstreams`: what calls cost, and where they go."""

from datetime import datetime
from typing import Any, cast

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.access.deps import Admin
from keyserver.access.idempotency import answer_once
from keyserver.gateway import rates, registering
from keyserver.gateway.tariff import Rate
from keyserver.gateway.tariff_models import UpstreamRow
from keyserver.gateway.tariff_schemas import (
    RATES_EXAMPLE,
    NewRate,
    NewRates,
    NewUpstream,
    RateList,
    RatesView,
    RateView,
    UpstreamChange,
    UpstreamList,
    UpstreamView,
)
from keyserver.gateway.upstreams import Upstream, Upstreams
from keyserver.kit.deps import Now, Session, Settled
from keyserver.kit.http import StrictRoute, json_of
from keyserver.kit.paging import Cursor, Limit, decode_cursor, encode_cursor
from keyserver.kit.problems import BadRequest

router = APIRouter(prefix="/admin", tags=["admin"], route_class=StrictRoute, dependencies=[Admin])

_ONE: TypeAdapter[NewRate] = TypeAdapter(NewRate)
_MANY: TypeAdapter[list[NewRate]] = TypeAdapter(NewRates)
#: `Unit`, which it refers to, is among the document's components as a part of the answers.
_RATE_SCHEMA = NewRate.model_json_schema(ref_template="#/components/schemas/{model}")
_RATE_SCHEMA.pop("$defs")
_RATES_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"oneOf": [_RATE_SCHEMA, {"type": "array", "items": _RATE_SCHEMA}]},
            "example": RATES_EXAMPLE,
        }
    },
}


@router.put("/rates", dependencies=[Settled], openapi_extra={"requestBody": _RATES_BODY})
async def set_rates(request: Request, session: Session, now: Now) -> RatesView:
    """Takes one rate or a list, and sets all or none. Units of one pattern add up; what was charged stays charged.

    The most specific pattern that matches a model decides: its name itself, else the most literal characters.
    """
    given = _rates(await json_of(request))
    wanted = [Rate(**rate.model_dump()) for rate in given]
    written = await rates.set_rates(session, wanted, now=now())
    return RatesView(rates=[RateView.model_validate(row) for row in written])


@router.get("/rates")
async def list_rates(session: Session, limit: Limit = 50, cursor: Cursor = None) -> RateList:
    """Every rate in force, and the history of those that have ended."""
    ended = await rates.ended_rates(session, before=_position(cursor), limit=limit + 1)
    page = [RateView.model_validate(row) for row in ended[:limit]]
    last = ended[limit - 1] if len(ended) > limit else None
    return RateList(
        rates=[RateView.model_validate(row) for row in await rates.rates_in_force(session)],
        history=page,
        next_cursor=encode_cursor(last.valid_to.isoformat(), last.id) if last and last.valid_to else None,
    )


@router.delete("/rates/{rate_id}", status_code=204, dependencies=[Settled])
async def end_rate(session: Session, rate_id: str, now: Now) -> None:
    """The rate ends now, and stays in the history."""
    await rates.end_rate(session, rate_id, now=now())


@router.post("/upstreams", status_code=201, response_model=UpstreamView, dependencies=[Settled])
async def register_upstream(request: Request, body: NewUpstream, now: Now) -> Response:
    """Calls for the models go there. Of several for one model the lowest `priority` is tried first."""

    async def work(session: AsyncSession) -> tuple[int, Any]:
        row = await registering.register_upstream(session, body, master=request.app.state.master_key, now=now())
        return 201, _view(row).model_dump(mode="json")

    return await answer_once(request, work, scope="admin")


@router.get("/upstreams")
async def list_upstreams(request: Request, session: Session) -> UpstreamList:
    """Every upstream in the order they are tried, disabled ones too; last the environment's."""
    views = [_view(row) for row in await registering.list_upstreams(session)]
    configured = cast(Upstreams, request.app.state.upstreams).configured
    return UpstreamList(upstreams=[*views, _configured_view(configured)] if configured else views)


@router.patch("/upstreams/{upstream_id}", dependencies=[Settled])
async def change_upstream(request: Request, session: Session, upstream_id: str, body: UpstreamChange) -> UpstreamView:
    return _view(await registering.change_upstream(session, upstream_id, body, master=request.app.state.master_key))


@router.delete("/upstreams/{upstream_id}", status_code=204, dependencies=[Settled])
async def disable_upstream(session: Session, upstream_id: str) -> None:
    """Disabled, never deleted; calls under way go on."""
    await registering.disable_upstream(session, upstream_id)


def _rates(document: Any) -> list[NewRate]:
    """By hand: of a union of one and many, a problem's pointer would name the alternative."""
    try:
        return _MANY.validate_python(document) if isinstance(document, list) else [_ONE.validate_python(document)]
    except ValidationError as error:
        located = [{**each, "loc": ("body", *each["loc"])} for each in error.errors(include_url=False)]
        raise RequestValidationError(located) from None


def _position(cursor: str | None) -> tuple[datetime, str] | None:
    if cursor is None:
        return None
    ended_at, rate_id = decode_cursor(cursor, parts=2)
    try:
        return datetime.fromisoformat(ended_at), rate_id
    except ValueError:
        raise BadRequest.at("#query/cursor", "The cursor is not one we gave; leave it out to start anew") from None


def _view(row: UpstreamRow) -> UpstreamView:
    return UpstreamView(
        id=row.id,
        base_url=row.base_url,
        has_api_key=row.api_key_encrypted is not None,
        models=row.models,
        margin=row.margin,
        priority=row.priority,
        connect_timeout_seconds=row.connect_timeout_seconds,
        idle_timeout_seconds=row.idle_timeout_seconds,
        enabled=row.enabled,
        configured=False,
        created_at=row.created_at,
    )


def _configured_view(upstream: Upstream) -> UpstreamView:
    return UpstreamView(
        id=upstream.id,
        base_url=upstream.base_url,
        has_api_key=upstream.api_key is not None,
        models=list(upstream.models),
        margin=upstream.margin,
        priority=None,
        connect_timeout_seconds=upstream.connect_seconds,
        idle_timeout_seconds=upstream.idle_seconds,
        enabled=True,
        configured=True,
        created_at=None,
    )
