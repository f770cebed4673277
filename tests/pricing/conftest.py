"""A payment method to have a price for."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest

from keyserver.addresses.models import KeyRing
from keyserver.chains.models import NATIVE, Blockchain, PaymentMethod
from keyserver.kit.db import Database


@pytest.fixture
async def add_method(database: Database) -> Callable[..., Awaitable[None]]:
    """`await add_method(token, oracle_id=None, enabled=True, type="evm", blockchain_id="chain")`: one more method."""
    created = datetime(2025, 1, 1, tzinfo=UTC)
    ring = KeyRing(
        id="ring", coin_type=60, account_index=0, curve="secp256k1", xpub="", material="", index_sequence="none"
    )
    async with database.transaction() as session:
        session.add_all([Blockchain(id="chain", chain="chain", network="regtest", family="evm"), ring])
    added = 0

    async def add(
        token: str,
        *,
        oracle_id: str | None = None,
        enabled: bool = True,
        type: str = "evm",  # noqa: A002
        blockchain_id: str = "chain",
    ) -> None:
        nonlocal added
        added += 1
        method = PaymentMethod(
            id=f"method-{added}",
            blockchain_id=blockchain_id,
            key_ring_id="ring",
            type=type,
            token=token,
            asset=NATIVE,
            decimals=18,
            address_type="evm",
            display_name=token,
            is_testnet=True,
            confirmations=1,
            oracle_asset_id=oracle_id,
            enabled=enabled,
            created_at=created,
        )
        async with database.transaction() as session:
            session.add(method)

    return add
