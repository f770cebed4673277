"""The payment methods as hot requests read them: one query for all, kept as long as kit/cache.py allows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from keyserver.chains.catalog import AddressType, ChainSpec, chain_spec
from keyserver.chains.errors import MethodNotFound
from keyserver.chains.models import NATIVE
from keyserver.kit.cache import LIFETIME, Snapshot
from keyserver.kit.db import Connection, Database

_METHODS = """
    SELECT m.id, m.blockchain_id, b.chain, b.network, b.node_identity, m.key_ring_id, m.type, m.token, m.asset,
           m.contract_address, m.decimals, m.address_type, m.display_name, m.icon_url, m.is_testnet, m.confirmations,
           m.oracle_address, m.oracle_asset_id, m.enabled
      FROM payment_methods m JOIN blockchains b ON b.id = m.blockchain_id
     ORDER BY m.display_order, m.created_at, m.id
"""

STABLECOIN = "stablecoin"


@dataclass(frozen=True, slots=True)
class Method:
    """One payment method with what its blockchain adds. `spec` is what the world knows of that chain."""

    id: str
    blockchain_id: str
    chain: str
    network: str
    node_identity: str | None
    key_ring_id: str
    type: str
    token: str
    asset: str
    contract_address: str | None
    decimals: int
    address_type: AddressType
    display_name: str
    icon_url: str | None
    is_testnet: bool
    confirmations: int
    oracle_address: str | None
    oracle_asset_id: str | None
    enabled: bool
    spec: ChainSpec

    @property
    def is_native(self) -> bool:
        return self.asset == NATIVE

    @property
    def is_stablecoin(self) -> bool:
        """Only a method that says so is priced at par."""
        return self.type == STABLECOIN

    def listed(self) -> dict[str, Any]:
        """The method as `GET /chains` shows it."""
        return {
            "id": self.id,
            "token": self.token,
            "chain": self.chain,
            "network": self.network,
            "type": self.type,
            "decimals": self.decimals,
            "displayName": self.display_name,
            "contractAddress": self.contract_address,
            "confirmations": self.confirmations,
            "iconUrl": self.icon_url,
            "isTestnet": self.is_testnet,
        }


@dataclass(frozen=True, slots=True)
class Methods:
    by_id: Mapping[str, Method]
    listing: bytes

    def offered(self, method_id: str) -> Method:
        """The enabled method with this id; MethodNotFound else."""
        method = self.by_id.get(method_id)
        if method is None or not method.enabled:
            raise MethodNotFound
        return method


async def load_methods(connection: Connection) -> Methods:
    methods = [
        Method(
            **{**row, "address_type": AddressType(row["address_type"])},
            spec=chain_spec(row["chain"], row["network"], type=row["type"]),
        )
        for row in await connection.fetch(_METHODS)
    ]
    listing = orjson.dumps([method.listed() for method in methods if method.enabled])
    return Methods({method.id: method for method in methods}, listing)


class Registry:
    def __init__(self, database: Database, *, cache_lifetime: float = LIFETIME) -> None:
        self._database = database
        self._snapshot = Snapshot(self._load, lifetime=cache_lifetime)

    async def methods(self) -> Methods:
        return await self._snapshot.get()

    async def _load(self) -> Methods:
        async with self._database.connection() as connection:
            return await load_methods(connection)
