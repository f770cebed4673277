"""Service keys: made, found by their SHA-256, revoked."""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.access.errors import KeyEnded, KeyNotFound, TenantNotFound
from keyserver.access.models import ServiceKey, Tenant, TenantType
from keyserver.kit.cache import LIFETIME, KeyedCache
from keyserver.kit.clock import Clock
from keyserver.kit.db import Database
from keyserver.kit.ids import new_id

PLATFORM_TENANT = "platform"
_PREFIX_LENGTH = 10
#: What a bearer token may look like at all; anything else is refused before it reaches a query.
_WELL_FORMED = re.compile(r"[\x21-\x7e]{1,512}")


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """Whom a key speaks for. `key_id` is None for the key of the environment."""

    key_id: str | None
    tenant_id: str
    tenant_type: TenantType
    instance_id: str | None
    expires_at: datetime | None


def digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


class KeyRing:
    """Finds the owner of a key, from memory for as long as kit/cache.py allows."""

    _QUERY = """
        SELECT k.id, k.tenant_id, t.type, k.instance_id, k.expires_at
          FROM service_keys k JOIN tenants t ON t.id = k.tenant_id
         WHERE k.digest = $1 AND k.revoked_at IS NULL
    """

    def __init__(
        self, database: Database, *, service_key: str | None, clock: Clock, cache_lifetime: float = LIFETIME
    ) -> None:
        self._database = database
        self._clock = clock
        self._builtin = digest(service_key) if service_key else None
        self._cache = KeyedCache(self._load, lifetime=cache_lifetime)

    async def owner(self, key: str) -> KeyOwner | None:
        """The owner of a valid key; None for any other text."""
        if not _WELL_FORMED.fullmatch(key):
            return None
        hashed = digest(key)
        if self._builtin is not None and hmac.compare_digest(hashed, self._builtin):
            return KeyOwner(None, PLATFORM_TENANT, TenantType.PLATFORM_SERVICE, None, None)
        owner = await self._cache.get(hashed)
        if owner is None or (owner.expires_at is not None and owner.expires_at <= self._clock()):
            return None
        return owner

    def has_known(self, key: str) -> bool:
        """Whether this process has found the key valid before, as far as it remembers."""
        hashed = digest(key)
        return hashed == self._builtin or self._cache.last(hashed) is not None

    async def _load(self, hashed: bytes) -> KeyOwner | None:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(self._QUERY, hashed)
        return None if row is None else KeyOwner(row[0], row[1], TenantType(row[2]), row[3], row[4])


async def create_key(
    session: AsyncSession, *, tenant_id: str, instance_id: str | None, expires_at: datetime | None, now: datetime
) -> tuple[ServiceKey, str]:
    """A new key of 256 random bits and its row; the text is not kept."""
    if await session.get(Tenant, tenant_id) is None:
        raise TenantNotFound
    key = f"ks_{secrets.token_urlsafe(32)}"
    row = ServiceKey(
        id=new_id("key"),
        tenant_id=tenant_id,
        instance_id=instance_id,
        digest=digest(key),
        prefix=key[:_PREFIX_LENGTH],
        expires_at=expires_at,
        created_at=now,
    )
    session.add(row)
    await session.flush()
    return row, key


async def list_keys(session: AsyncSession, *, tenant_id: str) -> list[ServiceKey]:
    if await session.get(Tenant, tenant_id) is None:
        raise TenantNotFound
    query = select(ServiceKey).where(ServiceKey.tenant_id == tenant_id).order_by(ServiceKey.id)
    return list(await session.scalars(query))


async def rotate_key(
    session: AsyncSession, *, key_id: str, overlap: timedelta, expires_at: datetime | None, now: datetime
) -> tuple[ServiceKey, ServiceKey, str]:
    """The old key, a new one for the same tenant and instance, and its text. The old one ends after `overlap`.

    Raises KeyNotFound, and KeyEnded for a key that has ended already.
    """
    old = await session.get(ServiceKey, key_id, with_for_update=True)
    if old is None:
        raise KeyNotFound
    if old.revoked_at is not None or (old.expires_at is not None and old.expires_at <= now):
        raise KeyEnded
    until = now + overlap
    old.expires_at = until if old.expires_at is None else min(old.expires_at, until)
    new, key = await create_key(
        session, tenant_id=old.tenant_id, instance_id=old.instance_id, expires_at=expires_at, now=now
    )
    return old, new, key


async def revoke_key(session: AsyncSession, *, key_id: str, now: datetime) -> None:
    """Revoking twice is no error: the key stays revoked since the first time."""
    revoked = (
        update(ServiceKey).where(ServiceKey.id == key_id).values(revoked_at=func.coalesce(ServiceKey.revoked_at, now))
    )
    if (await session.execute(revoked.returning(ServiceKey.id))).first() is None:
        raise KeyNotFound
