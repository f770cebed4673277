"""Changing and disabling payment methods. None is ever deleted: what was asked for goes on being watched."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.chains.catalog import Family
from keyserver.chains.errors import MethodNotFound
from keyserver.chains.models import Blockchain, Finality, PaymentMethod
from keyserver.chains.schemas import ChainChange
from keyserver.kit.problems import BadRequest
from keyserver.kit.secrets import MasterKey


def encrypted_urls(master: MasterKey, urls: Sequence[str]) -> bytes:
    """Node URLs, one a line, encrypted."""
    return master.encrypt("\n".join(urls))


def encrypted_headers(master: MasterKey, headers: dict[str, str] | None) -> bytes | None:
    """HTTP headers as lines of `name: value`, encrypted; None for none."""
    return master.encrypt("\n".join(f"{name}: {value}" for name, value in headers.items())) if headers else None


async def change_method(session: AsyncSession, method_id: str, change: ChainChange, *, master: MasterKey) -> None:
    """Writes the members that were given; the rest stays."""
    values: dict[str, Any] = change.model_dump(exclude_unset=True, exclude={"rpc_url", "rpc_headers", "finality"})
    if change.rpc_url is not None:
        values["rpc_url_encrypted"] = encrypted_urls(master, change.rpc_url)
    if "rpc_headers" in change.model_fields_set:
        values["rpc_headers_encrypted"] = encrypted_headers(master, change.rpc_headers)
    await _write(session, method_id, values or {"id": method_id})
    if "finality" in change.model_fields_set:
        await _change_finality(session, method_id, change.finality)


async def _change_finality(session: AsyncSession, method_id: str, finality: Finality) -> None:
    method = await session.get_one(PaymentMethod, method_id)
    blockchain = await session.get_one(Blockchain, method.blockchain_id, with_for_update=True)
    check_finality(finality, Family(blockchain.family), chain=blockchain.chain)
    blockchain.finality = finality
    await session.flush()


def check_finality(finality: Finality, family: Family, *, chain: str) -> None:
    """BadRequest for a block tag on a chain that has none."""
    if finality is not Finality.DEPTH and family is Family.UTXO:
        raise BadRequest.at("/finality", f"{chain} has no {finality} blocks: its payments are final by depth")


async def disable_method(session: AsyncSession, method_id: str) -> None:
    """Disabling twice is no error."""
    await _write(session, method_id, {"enabled": False})


async def _write(session: AsyncSession, method_id: str, values: dict[str, Any]) -> None:
    written = update(PaymentMethod).where(PaymentMethod.id == method_id).values(values).returning(PaymentMethod.id)
    if await session.scalar(written) is None:
        raise MethodNotFound
