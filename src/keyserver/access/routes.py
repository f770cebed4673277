"""`/admin/tenants` and `/admin/keys`. Making a tenant lives in webhooks/routes.py, which knows its webhook secret."""

from datetime import datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.access import keys, tenants
from keyserver.access.deps import Admin
from keyserver.access.idempotency import answer_once, kept_answer
from keyserver.access.models import ServiceKey
from keyserver.access.schemas import CreatedKey, KeyList, KeyView, NewKey, RotatedKey, Rotation, TenantPage, TenantView
from keyserver.kit.deps import Now, Session, Settled
from keyserver.kit.http import StrictRoute
from keyserver.kit.paging import Cursor, Limit, decode_cursor, encode_cursor
from keyserver.kit.problems import BadRequest

router = APIRouter(prefix="/admin", tags=["admin"], route_class=StrictRoute, dependencies=[Admin])


@router.get("/tenants")
async def list_tenants(session: Session, limit: Limit = 50, cursor: Cursor = None) -> TenantPage:
    after = decode_cursor(cursor)[0] if cursor else None
    found = await tenants.list_tenants(session, after=after, limit=limit + 1)
    page = [TenantView.model_validate(tenant) for tenant in found[:limit]]
    return TenantPage(tenants=page, next_cursor=encode_cursor(page[-1].id) if len(found) > limit else None)


@router.get("/tenants/{tenant_id}")
async def get_tenant(session: Session, tenant_id: str) -> TenantView:
    return TenantView.model_validate(await tenants.get_tenant(session, tenant_id))


@router.post("/tenants/{tenant_id}/keys", status_code=201, response_model=CreatedKey)
async def create_key(request: Request, tenant_id: str, now: Now, body: NewKey | None = None) -> Response:
    if (kept := await kept_answer(request, scope="admin")) is not None:
        return kept
    body = body or NewKey()
    _require_future(body.expires_at, now())

    async def work(session: AsyncSession) -> tuple[int, Any]:
        row, key = await keys.create_key(
            session, tenant_id=tenant_id, instance_id=body.instance_id, expires_at=body.expires_at, now=now()
        )
        return 201, CreatedKey(**_shown(row, key)).model_dump(mode="json")

    return await answer_once(request, work, scope="admin")


@router.post("/keys/{key_id}/rotate", status_code=201, response_model=RotatedKey, dependencies=[Settled])
async def rotate_key(request: Request, key_id: str, now: Now, body: Rotation | None = None) -> Response:
    """A new key for the same tenant and instance, shown once. The old one ends after the overlap."""
    if (kept := await kept_answer(request, scope="admin")) is not None:
        return kept
    body = body or Rotation()
    _require_future(body.expires_at, now())

    async def work(session: AsyncSession) -> tuple[int, Any]:
        old, new, key = await keys.rotate_key(
            session,
            key_id=key_id,
            overlap=timedelta(seconds=body.overlap_seconds),
            expires_at=body.expires_at,
            now=now(),
        )
        view = RotatedKey(**_shown(new, key), replaces=old.id, replaces_until=old.expires_at)
        return 201, view.model_dump(mode="json")

    return await answer_once(request, work, scope="admin")


def _require_future(expires_at: datetime | None, now: datetime) -> None:
    if expires_at is not None and expires_at <= now:
        raise BadRequest.at("/expires_at", "expires_at must be in the future")


def _shown(row: ServiceKey, key: str) -> dict[str, Any]:
    return {
        "id": row.id,
        "key": key,
        "prefix": row.prefix,
        "tenant_id": row.tenant_id,
        "instance_id": row.instance_id,
        "expires_at": row.expires_at,
    }


@router.get("/tenants/{tenant_id}/keys")
async def list_keys(session: Session, tenant_id: str) -> KeyList:
    return KeyList(keys=[KeyView.model_validate(key) for key in await keys.list_keys(session, tenant_id=tenant_id)])


@router.delete("/keys/{key_id}", status_code=204, dependencies=[Settled])
async def revoke_key(session: Session, key_id: str, now: Now) -> None:
    await keys.revoke_key(session, key_id=key_id, now=now())
