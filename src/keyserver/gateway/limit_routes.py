"""`/admin/tenants/{id}/limits`."""

from fastapi import APIRouter, Request

from keyserver.access.deps import Admin
from keyserver.gateway.limit_schemas import LimitsView, NewLimits, limits_view
from keyserver.gateway.limits import get_limits, set_limits
from keyserver.kit.deps import Session, Settled
from keyserver.kit.egress import RefusedUrl
from keyserver.kit.http import StrictRoute
from keyserver.kit.problems import BadRequest

router = APIRouter(
    prefix="/admin/tenants/{tenant_id}/limits", tags=["admin"], route_class=StrictRoute, dependencies=[Admin]
)


@router.put("", dependencies=[Settled])
async def put_limits(request: Request, session: Session, tenant_id: str, body: NewLimits) -> LimitsView:
    """Members left out stay as they are; null puts the default back. In force when the answer is there."""
    if body.credits_callback_url is not None:
        try:
            request.app.state.egress.check_url(body.credits_callback_url)
        except RefusedUrl as error:
            raise BadRequest.at("/credits_callback_url", str(error)) from None
    await set_limits(session, tenant_id=tenant_id, terms=body.terms(), per_minute=body.per_minute())
    return limits_view(*await get_limits(session, tenant_id=tenant_id))


@router.get("")
async def show_limits(session: Session, tenant_id: str) -> LimitsView:
    return limits_view(*await get_limits(session, tenant_id=tenant_id))
