"""Catching up on a local litecoind: blocks per second followed, beside what the node alone delivers for these calls."""

import asyncio
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime

from tests.nodes.litecoin import FIRST_HEIGHT, GENESIS, LitecoinNode

from keyserver.chains.models import Blockchain
from keyserver.kit.clock import utc_now
from keyserver.kit.db import Database
from keyserver.pricing.consensus import Price
from keyserver.pricing.errors import PriceUnavailable
from keyserver.watching.bitcoind import BitcoindSource
from keyserver.watching.bitcoind_rpc import connect
from keyserver.watching.ports import SourceError
from keyserver.watching.scanner import MOST_AHEAD, Follower

BLOCKS = 400  # fewer than MWEB needs to begin
#: Outputs of each block that the test node does not start with.
OUTPUTS = 50


class _NoMarket:
    async def price_in(self, *_: object, token: str = "", **__: object) -> Price:
        raise PriceUnavailable("nothing is paid here", token=token)


def litecoin(url: str, rounds: int) -> list[tuple[float, float]]:
    """(blocks per second followed, delivered by the node alone) of each round."""
    return asyncio.run(_litecoin(url, rounds))


async def _litecoin(url: str, rounds: int) -> list[tuple[float, float]]:
    database = Database(url, pool_size=4)
    try:
        async with LitecoinNode() as node:
            payees = {await node.address(): "0.001" for _ in range(OUTPUTS)}
            for _ in range(BLOCKS - FIRST_HEIGHT):
                await node.send_many(payees)
                await node.mine()
            return [(await _followed(database, node), await _delivered(node)) for _ in range(rounds)]
    finally:
        await database.dispose()


async def _delivered(node: LitecoinNode) -> float:
    """The calls the follower makes, by the same client, with nothing done about their answers."""
    rpc = connect(node.url)
    try:
        began = time.perf_counter()
        for first in range(1, BLOCKS + 1, MOST_AHEAD):
            heights = range(first, min(first + MOST_AHEAD, BLOCKS + 1))
            hashes = await rpc.batch([("getblockhash", (height,)) for height in heights])
            await rpc.batch([("getblock", (block_hash, 2)) for block_hash in hashes])
        return BLOCKS / (time.perf_counter() - began)
    finally:
        await rpc.close()


async def _followed(database: Database, node: LitecoinNode) -> float:
    network = f"bench-{uuid.uuid4().hex}"
    row = {"id": network, "chain": "litecoin", "network": network, "family": "utxo", "start_height": 1}
    async with database.transaction() as session:
        session.add(Blockchain(**row, created_at=datetime.now(UTC)))
    source = BitcoindSource(node.url, network="regtest", genesis_hash=GENESIS, coinbase_maturity=100)
    follower = Follower(database, network, source, market=_NoMarket(), clock=utc_now)
    try:
        began = time.perf_counter()
        behind = 1
        while behind:
            with suppress(SourceError):
                behind = (await follower.step()).behind
        return BLOCKS / (time.perf_counter() - began)
    finally:
        await source.close()
