"""`GET /usage` for tenants and `GET /admin/usage` for operators: what was spent, as JSON or CSV."""

from datetime import datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.access.deps import Admin, Authenticated
from keyserver.gateway import usage
from keyserver.gateway.usage import Dimension
from keyserver.gateway.usage_schemas import CSV, From, GroupBy, To, UsageView, as_csv, dimensions, period, wants_csv
from keyserver.kit.clock import iso_z
from keyserver.kit.deps import Now, Session
from keyserver.kit.http import StrictRoute
from keyserver.kit.problems import BadRequest
from keyserver.kit.wire import Identifier

router = APIRouter(tags=["usage"], route_class=StrictRoute)
admin_router = APIRouter(prefix="/admin", tags=["admin"], route_class=StrictRoute, dependencies=[Admin])

_OWN = [dimension for dimension in Dimension if dimension is not Dimension.TENANT]
_ANSWERS: dict[int | str, dict[str, Any]] = {200: {"content": {CSV: {}}}}
TenantFilter = Annotated[Identifier | None, Query(description="Of this tenant alone")]


@router.get("/usage", response_model=UsageView, response_model_exclude_unset=True, responses=_ANSWERS)
async def get_usage(
    request: Request,
    caller: Authenticated,
    session: Session,
    now: Now,
    group_by: GroupBy = None,
    begins: From = None,
    ends: To = None,
) -> Response:
    """The own tenant's calls. `instance`: of which key's instance; `attributedTo`: on whose behalf they were paid."""
    wanted = dimensions(group_by, allowed=_OWN)
    return await _report(
        request, session, group_by=wanted, begins=begins, ends=ends, now=now(), tenant_id=caller.tenant_id
    )


@admin_router.get("/usage", response_model=UsageView, response_model_exclude_unset=True, responses=_ANSWERS)
async def get_usage_of_all(
    request: Request,
    session: Session,
    now: Now,
    group_by: GroupBy = None,
    begins: From = None,
    ends: To = None,
    tenant: TenantFilter = None,
) -> Response:
    """Every tenant's calls; `groupBy` knows `tenant` as well. Platform services: `groupBy=tenant,attributedTo`."""
    wanted = dimensions(group_by, allowed=Dimension)
    return await _report(request, session, group_by=wanted, begins=begins, ends=ends, now=now(), tenant_id=tenant)


async def _report(
    request: Request,
    session: AsyncSession,
    *,
    group_by: list[Dimension],
    begins: str | None,
    ends: str | None,
    now: datetime,
    tenant_id: str | None,
) -> Response:
    span = period(begins, ends, now=now)
    rows = await usage.usage(session, period=span, group_by=group_by, tenant_id=tenant_id)
    if len(rows) > usage.MOST_ROWS:
        raise BadRequest(
            f"This has more than {usage.MOST_ROWS} rows: take a shorter time, or group by less", code="too_many_rows"
        )
    headers = {"vary": "accept"}
    if wants_csv(request.headers.get("accept")):
        text = as_csv(rows, names=usage.column_names(group_by))
        headers["content-disposition"] = 'attachment; filename="usage.csv"'
        return Response(text, media_type=f"{CSV}; charset=utf-8; header=present", headers=headers)
    document = {"from": iso_z(span.begins_at), "to": iso_z(span.ends_at), "rows": rows}
    return Response(orjson.dumps(document), media_type="application/json", headers=headers)
