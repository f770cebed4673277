"""Tenants: made by an operator, or on first use by a platform service."""

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.access.errors import TenantExists, TenantNotFound
from keyserver.access.models import Tenant, TenantType
from keyserver.kit.db import Database
from keyserver.kit.ids import new_id

_TYPE = "SELECT type FROM tenants WHERE id = $1"
_ENSURE = "INSERT INTO tenants (id, name, type) VALUES ($1, $1, 'org') ON CONFLICT (id) DO NOTHING"
_REMEMBERED = 100_000


class KnownTenants:
    """Tenants are never deleted, so having seen one once is enough."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: set[str] = set()
        self._types: dict[str, TenantType] = {}

    async def ensure(self, tenant_id: str) -> None:
        """The tenant exists from here on; created with type `org` when it did not."""
        if tenant_id in self._known:
            return
        async with self._database.connection() as connection:
            await connection.execute(_ENSURE, tenant_id)
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known.add(tenant_id)

    async def type_of(self, tenant_id: str) -> TenantType | None:
        """What it is, which never changes; None when there is no such tenant (yet)."""
        if (known := self._types.get(tenant_id)) is not None:
            return known
        async with self._database.connection() as connection:
            word = await connection.fetchval(_TYPE, tenant_id)
        if word is None:
            return None
        if len(self._types) >= _REMEMBERED:
            self._types.clear()
        kind = self._types[tenant_id] = TenantType(word)
        return kind


async def create_tenant(
    session: AsyncSession,
    *,
    tenant_id: str | None,
    name: str,
    slug: str | None,
    type: TenantType,  # noqa: A002 - the wire's word
    owner_id: str | None,
    billing_email: str | None,
    metadata: dict[str, Any],
    now: datetime,
) -> Tenant:
    values = {
        "id": tenant_id or new_id("ten"),
        "name": name,
        "slug": slug,
        "type": type,
        "owner_id": owner_id,
        "billing_email": billing_email,
        "metadata_": metadata,
        "created_at": now,
    }
    created: Tenant | None = await session.scalar(
        insert(Tenant).values(values).on_conflict_do_nothing().returning(Tenant)
    )
    if created is None:
        raise TenantExists
    return created


async def get_tenant(session: AsyncSession, tenant_id: str) -> Tenant:
    tenant = await session.get(Tenant, tenant_id)
    if tenant is None:
        raise TenantNotFound
    return tenant


async def list_tenants(session: AsyncSession, *, after: str | None, limit: int) -> list[Tenant]:
    query = select(Tenant).order_by(Tenant.id).limit(limit)
    return list(await session.scalars(query.where(Tenant.id > after) if after is not None else query))
