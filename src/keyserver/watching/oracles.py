"""Chainlink feeds of payment methods that name one, read over their own chain's node."""

import contextlib

from sqlalchemy import select

from keyserver.chains.catalog import Family
from keyserver.chains.models import Blockchain, PaymentMethod
from keyserver.kit.db import Database, is_unavailable
from keyserver.kit.jsonrpc import JsonRpc, RpcUnavailable
from keyserver.kit.secrets import MasterKey, NotDecryptable
from keyserver.pricing.ports import SourceFailed
from keyserver.pricing.sources.chainlink import ChainlinkFeed, EthCall
from keyserver.watching.targets import NodeAddress, nodes_of


class OracleFeeds:
    """The feeds there are now; one JSON-RPC client a node, kept between ticks."""

    def __init__(self, database: Database, master: MasterKey) -> None:
        self._database = database
        self._master = master
        self._clients: dict[NodeAddress, JsonRpc] = {}

    async def feeds(self) -> list[ChainlinkFeed]:
        """SourceFailed while the database is away: there is nothing wrong with the source itself."""
        try:
            methods = await self._methods()
        except Exception as error:
            if is_unavailable(error):
                raise SourceFailed("The database does not answer") from error
            raise
        found = []
        for method in methods:
            try:
                call = self._call(method)
            except NotDecryptable:
                continue  # the watcher says so, once, for the same node
            found.append(ChainlinkFeed(method.token, method.oracle_address or "", call))
        return found

    async def _methods(self) -> list[PaymentMethod]:
        query = (
            select(PaymentMethod)
            .join(Blockchain, Blockchain.id == PaymentMethod.blockchain_id)
            .where(
                Blockchain.family == Family.EVM,
                PaymentMethod.oracle_address.is_not(None),
                PaymentMethod.rpc_url_encrypted.is_not(None),
            )
            .order_by(PaymentMethod.id)
        )
        async with self._database.transaction() as session:
            return list(await session.scalars(query))

    def _call(self, method: PaymentMethod) -> EthCall:
        clients = [self._client(address) for address in nodes_of(method, self._master)]

        async def call(to: str, data: str) -> str:
            """By the first of the method's nodes that answers."""
            for client in clients[:-1]:
                with contextlib.suppress(RpcUnavailable):
                    return await _eth_call(client, to, data)
            return await _eth_call(clients[-1], to, data)

        return call

    def _client(self, address: NodeAddress) -> JsonRpc:
        if address not in self._clients:
            self._clients[address] = JsonRpc(address.url, headers=dict(address.headers))
        return self._clients[address]

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()


async def _eth_call(client: JsonRpc, to: str, data: str) -> str:
    return str(await client.call("eth_call", {"to": to, "data": data}, "latest"))
