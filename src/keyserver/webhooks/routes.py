"""Webhook secrets and deliveries, for operators. A tenant is made here, since its webhook secret is shown with it."""

from datetime import datetime
from typing import Annotated, Any, cast

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.access import tenants
from keyserver.access.deps import Admin
from keyserver.access.idempotency import answer_once
from keyserver.access.schemas import NewTenant, TenantView
from keyserver.kit.deps import Now, Session
from keyserver.kit.http import StrictRoute
from keyserver.kit.paging import Cursor, Limit, decode_cursor, encode_cursor
from keyserver.kit.problems import BadRequest
from keyserver.kit.secrets import MasterKey
from keyserver.webhooks import deliveries, secrets
from keyserver.webhooks.models import DeliveryStatus, WebhookDelivery
from keyserver.webhooks.schemas import (
    AttemptView,
    CreatedTenant,
    DeliveryDetail,
    DeliveryPage,
    DeliveryView,
    RotatedSecret,
)
from keyserver.webhooks.secrets import OVERLAP, TenantSecrets

router = APIRouter(prefix="/admin", tags=["admin"], route_class=StrictRoute, dependencies=[Admin])

TenantFilter = Annotated[str | None, Query(max_length=128)]
SubjectFilter = Annotated[str | None, Query(max_length=128, description="The charge's id")]


def _secrets(request: Request) -> TenantSecrets:
    return TenantSecrets(cast(MasterKey, request.app.state.master_key))


# --- tenants and their secrets ----------------------------------------------------------------------------------


@router.post("/tenants", status_code=201, response_model=CreatedTenant)
async def create_tenant(request: Request, body: NewTenant, now: Now) -> Response:
    """`webhook_secret` is shown once; rotating makes a new one."""

    async def work(session: AsyncSession) -> tuple[int, Any]:
        tenant = await tenants.create_tenant(
            session,
            tenant_id=body.id,
            name=body.name,
            slug=body.slug,
            type=body.type,
            owner_id=body.owner_id,
            billing_email=body.billing_email,
            metadata=body.metadata,
            now=now(),
        )
        shown = TenantView.model_validate(tenant).model_dump(mode="json")
        return 201, {**shown, "webhook_secret": _secrets(request).secret(tenant.id)}

    return await answer_once(request, work, scope="admin")


@router.post("/tenants/{tenant_id}/webhook-secret", response_model=RotatedSecret)
async def rotate_webhook_secret(request: Request, tenant_id: str, now: Now) -> Response:
    """A new secret, shown once. The one before signs beside it for 24 h."""

    async def work(session: AsyncSession) -> tuple[int, Any]:
        await tenants.get_tenant(session, tenant_id)
        row = await secrets.rotate(session, tenant_id, now=now())
        view = RotatedSecret(
            tenant_id=tenant_id,
            webhook_secret=_secrets(request).secret(tenant_id, row.version),
            previous_valid_until=row.rotated_at + OVERLAP,
        )
        return 200, view.model_dump(mode="json")

    return await answer_once(request, work, scope="admin")


# --- deliveries -------------------------------------------------------------------------------------------------


@router.get("/webhooks/deliveries")
async def list_deliveries(
    session: Session,
    status: DeliveryStatus | None = None,
    tenant_id: TenantFilter = None,
    charge_id: SubjectFilter = None,
    subject_id: SubjectFilter = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> DeliveryPage:
    """Newest first. `subject_id` is another name for `charge_id`."""
    found = await deliveries.list_deliveries(
        session,
        wanted=deliveries.Filter(status=status, tenant_id=tenant_id, subject_id=charge_id or subject_id),
        before=None if cursor is None else _before(cursor),
        limit=limit + 1,
    )
    page = found[:limit]
    more = len(found) > limit
    return DeliveryPage(
        deliveries=[_view(delivery) for delivery in page],
        next_cursor=encode_cursor(page[-1].created_at.isoformat(), page[-1].id) if more else None,
    )


@router.get("/webhooks/deliveries/{delivery_id}")
async def get_delivery(session: Session, delivery_id: str) -> DeliveryDetail:
    """One delivery with what it says and every attempt at it."""
    delivery = await deliveries.get_delivery(session, delivery_id)
    log = await deliveries.attempts_of(session, delivery_id)
    return DeliveryDetail(
        **_view(delivery).model_dump(),
        payload=delivery.payload,
        attempt_log=[AttemptView.model_validate(attempt) for attempt in log],
    )


@router.post("/webhooks/deliveries/{delivery_id}/redeliver", status_code=202)
async def redeliver(session: Session, delivery_id: str, now: Now) -> DeliveryView:
    """Sends it again now, with the same `webhook-id`, whatever became of it before."""
    return _view(await deliveries.redeliver(session, delivery_id, now=now()))


def _before(cursor: str) -> tuple[datetime, str]:
    created_at, delivery_id = decode_cursor(cursor, parts=2)
    try:
        instant = datetime.fromisoformat(created_at)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise BadRequest.at("#query/cursor", "The cursor is not one we gave; leave it out to start anew")
    return instant, delivery_id


def _view(delivery: WebhookDelivery) -> DeliveryView:
    view = DeliveryView.model_validate(delivery)
    return view if delivery.finished_at is None else view.model_copy(update={"next_attempt_at": None})
