"""Which webhook secrets of a tenant are valid. They are derived, so rotating one is counting its version up."""

from datetime import datetime, timedelta
from typing import Protocol

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.kit.secrets import MasterKey
from keyserver.webhooks.models import SigningSecret
from keyserver.webhooks.signing import derive_secret

#: How long the version before a rotation goes on signing beside the new one.
OVERLAP = timedelta(hours=24)
_PURPOSE = "webhook secrets"


class Rotation(Protocol):
    """The part of a `SigningSecret` row that says what is valid."""

    @property
    def version(self) -> int: ...

    @property
    def rotated_at(self) -> datetime: ...


def active_versions(row: Rotation | None, now: datetime) -> tuple[int, ...]:
    """Versions that sign now, newest first. No row: never rotated, version 1."""
    if row is None:
        return (1,)
    if now < row.rotated_at + OVERLAP:
        return (row.version, row.version - 1)
    return (row.version,)


async def rotate(session: AsyncSession, tenant_id: str, *, now: datetime) -> SigningSecret:
    """The tenant's next version, valid from now on. Two rotations within the overlap retire the first of three."""
    first = insert(SigningSecret).values(tenant_id=tenant_id, version=2, rotated_at=now)
    upsert = first.on_conflict_do_update(
        index_elements=[SigningSecret.tenant_id], set_={"version": SigningSecret.version + 1, "rotated_at": now}
    )
    rows = await session.scalars(upsert.returning(SigningSecret), execution_options={"populate_existing": True})
    return rows.one()


class TenantSecrets:
    """Every tenant's webhook secrets, as the master key gives them."""

    def __init__(self, master_key: MasterKey) -> None:
        self._master = master_key.derive(_PURPOSE)

    def secret(self, tenant_id: str, version: int = 1) -> str:
        return derive_secret(self._master, tenant_id, version)

    def active(self, tenant_id: str, row: Rotation | None, *, now: datetime) -> list[str]:
        """The secrets to sign with now, newest first."""
        return [self.secret(tenant_id, version) for version in active_versions(row, now)]
