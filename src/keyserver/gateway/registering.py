"""Registering, changing and disabling upstreams. None is ever deleted: usage records name them."""

from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.gateway.tariff_errors import UpstreamExists, UpstreamNotFound
from keyserver.gateway.tariff_models import UpstreamRow
from keyserver.gateway.tariff_schemas import NewUpstream, UpstreamChange
from keyserver.gateway.upstreams import CONFIGURED
from keyserver.kit.secrets import MasterKey


async def register_upstream(
    session: AsyncSession, new: NewUpstream, *, master: MasterKey, now: datetime
) -> UpstreamRow:
    """Raises UpstreamExists, for the name of the environment's upstream too."""
    if new.id == CONFIGURED:
        raise UpstreamExists
    values = _values(new.model_dump(), master=master) | {"created_at": now}
    written: UpstreamRow | None = await session.scalar(
        insert(UpstreamRow).values(values).on_conflict_do_nothing().returning(UpstreamRow)
    )
    if written is None:
        raise UpstreamExists
    return written


async def change_upstream(
    session: AsyncSession, upstream_id: str, change: UpstreamChange, *, master: MasterKey
) -> UpstreamRow:
    """Writes the members that were given; the rest stays. Raises UpstreamNotFound."""
    return await _write(session, upstream_id, _values(change.model_dump(exclude_unset=True), master=master))


async def disable_upstream(session: AsyncSession, upstream_id: str) -> None:
    """Disabling twice is no error. Raises UpstreamNotFound."""
    await _write(session, upstream_id, {"enabled": False})


async def list_upstreams(session: AsyncSession) -> list[UpstreamRow]:
    """All of them, disabled ones too, in the order they are tried."""
    return list(await session.scalars(select(UpstreamRow).order_by(UpstreamRow.priority, UpstreamRow.id)))


def _values(given: dict[str, Any], *, master: MasterKey) -> dict[str, Any]:
    """The columns of these members: the key is kept encrypted."""
    if "api_key" in given:
        key = given.pop("api_key")
        given["api_key_encrypted"] = None if key is None else master.encrypt(key)
    return given


async def _write(session: AsyncSession, upstream_id: str, values: dict[str, Any]) -> UpstreamRow:
    writing = update(UpstreamRow).where(UpstreamRow.id == upstream_id).values(values or {"id": upstream_id})
    written: UpstreamRow | None = await session.scalar(writing.returning(UpstreamRow))
    if written is None:
        raise UpstreamNotFound
    return written
