"""Changing and disabling payment methods. None is ever deleted: what was asked for goes on being watched."""

from typing import Any

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.chains.errors import MethodNotFound
from keyserver.chains.models import PaymentMethod
from keyserver.chains.schemas import ChainChange
from keyserver.kit.secrets import MasterKey


def encrypted_headers(master: MasterKey, headers: dict[str, str] | None) -> bytes | None:
    """HTTP headers as lines of `name: value`, encrypted; None for none."""
    return master.encrypt("\n".join(f"{name}: {value}" for name, value in headers.items())) if headers else None


async def change_method(session: AsyncSession, method_id: str, change: ChainChange, *, master: MasterKey) -> None:
    """Writes the members that were given; the rest stays."""
    values: dict[str, Any] = change.model_dump(exclude_unset=True, exclude={"rpc_url", "rpc_headers"})
    if change.rpc_url is not None:
        values["rpc_url_encrypted"] = master.encrypt(change.rpc_url)
    if "rpc_headers" in change.model_fields_set:
        values["rpc_headers_encrypted"] = encrypted_headers(master, change.rpc_headers)
    await _write(session, method_id, values or {"id": method_id})


async def disable_method(session: AsyncSession, method_id: str) -> None:
    """Disabling twice is no error."""
    await _write(session, method_id, {"enabled": False})


async def _write(session: AsyncSession, method_id: str, values: dict[str, Any]) -> None:
    written = update(PaymentMethod).where(PaymentMethod.id == method_id).values(values).returning(PaymentMethod.id)
    if await session.scalar(written) is None:
        raise MethodNotFound
