"""What an operator agreed with a tenant: rates, caps, grace, margin, warnings. Unset is the default."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.access.tenants import get_tenant
from keyserver.gateway.capabilities import Group
from keyserver.gateway.models import RateWindow
from keyserver.kit.cache import LIFETIME, KeyedCache
from keyserver.kit.db import Database
from keyserver.ledger.models import CreditTerms


async def set_limits(
    session: AsyncSession, *, tenant_id: str, terms: Mapping[str, Any], per_minute: Mapping[Group, int | None]
) -> None:
    """Changes what is named and leaves the rest; None puts a default back. `terms` are columns of credit_terms.

    Raises TenantNotFound.
    """
    await get_tenant(session, tenant_id)
    if terms:
        row = insert(CreditTerms).values(tenant_id=tenant_id, **terms)
        await session.execute(row.on_conflict_do_update(index_elements=[CreditTerms.tenant_id], set_=dict(terms)))
    for group, limit in sorted(per_minute.items()):
        window = insert(RateWindow).values(tenant_id=tenant_id, rate_group=group, per_minute=limit)
        await session.execute(
            window.on_conflict_do_update(
                index_elements=[RateWindow.tenant_id, RateWindow.rate_group], set_={"per_minute": limit}
            )
        )


async def get_limits(session: AsyncSession, *, tenant_id: str) -> tuple[CreditTerms, dict[Group, int]]:
    """The tenant's own terms and rates, where it has any. Raises TenantNotFound."""
    await get_tenant(session, tenant_id)
    terms = await session.get(CreditTerms, tenant_id, populate_existing=True) or CreditTerms(tenant_id=tenant_id)
    query = select(RateWindow.rate_group, RateWindow.per_minute)
    rows = await session.execute(query.where(RateWindow.tenant_id == tenant_id, RateWindow.per_minute.is_not(None)))
    return terms, {group: limit for group, limit in rows if limit is not None}


class TenantMargins:
    """Tenants' own margins as hot requests read them; None for a tenant without one."""

    def __init__(self, database: Database, *, cache_lifetime: float = LIFETIME) -> None:
        self._database = database
        self._cache = KeyedCache(self._load, lifetime=cache_lifetime)

    async def of(self, tenant_id: str) -> Decimal | None:
        return await self._cache.get(tenant_id)

    async def _load(self, tenant_id: str) -> Decimal | None:
        async with self._database.connection() as connection:
            margin: Decimal | None = await connection.fetchval(
                "SELECT margin FROM credit_terms WHERE tenant_id = $1", tenant_id
            )
        return margin
