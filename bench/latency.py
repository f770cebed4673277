"""How long after the block that confirms a payment its webhook arrives: polled, and told by the node where it can."""

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import httpx
from aiohttp import web
from tests.builders import ether, litecoin
from tests.nodes.anvil import AnvilNode
from tests.nodes.litecoin import FIRST_HEIGHT, LitecoinNode

from bench import parts

ADMIN_TOKEN = "admin-token-of-the-bench"
#: A chain that is asked this seldom is only followed in time when its node tells.
SELDOM = 30.0
_ADMIN = {"authorization": f"Bearer {ADMIN_TOKEN}"}
_SERVICE = {"authorization": f"Bearer {parts.SERVICE_KEY}"}


class Coin(Protocol):
    method: str

    async def register(self, api: httpx.AsyncClient) -> None: ...

    async def pay(self, api: httpx.AsyncClient, charge: dict[str, Any]) -> None: ...

    async def mine(self, api: httpx.AsyncClient) -> None: ...


class Demo:
    method = "DEMO-BTC"

    async def register(self, api: httpx.AsyncClient) -> None:
        (await api.patch(f"/admin/chains/{self.method}", json={"confirmations": 1}, headers=_ADMIN)).raise_for_status()

    async def pay(self, api: httpx.AsyncClient, charge: dict[str, Any]) -> None:
        (await api.post("/demo/pay", json={"chargeId": charge["chargeId"]})).raise_for_status()

    async def mine(self, api: httpx.AsyncClient) -> None:
        (await api.post("/demo/mine", json={"blocks": 1})).raise_for_status()


class OnNode:
    """The coin of a real node."""

    def __init__(self, node: LitecoinNode | AnvilNode) -> None:
        self._node = node
        on_litecoin = isinstance(node, LitecoinNode)
        body = litecoin(start_height=FIRST_HEIGHT) if on_litecoin else ether()
        self._body = {**body, "rpc_url": node.url, "confirmations": 1}
        self.method = str(body["id"])

    async def register(self, api: httpx.AsyncClient) -> None:
        (await api.post("/admin/chains", json=self._body, headers=_ADMIN)).raise_for_status()
        price = await api.put(f"/admin/prices/{self._body['token']}", json={"price_usd": "100"}, headers=_ADMIN)
        price.raise_for_status()

    async def pay(self, api: httpx.AsyncClient, charge: dict[str, Any]) -> None:  # noqa: ARG002 - as Demo does
        if isinstance(self._node, LitecoinNode):
            await self._node.send(charge["address"], charge["displayAmount"])
        else:
            await self._node.send(charge["address"], int(charge["expectedAmount"]))

    async def mine(self, api: httpx.AsyncClient) -> None:  # noqa: ARG002 - as Demo does
        await self._node.mine()


class Settled:
    """A receiver: the moment at which each charge was told to be settled."""

    def __init__(self) -> None:
        self.url = ""
        self._moments: dict[str, asyncio.Future[float]] = {}

    async def moment(self, charge_id: str, *, within: float) -> float:
        future = self._moments.setdefault(charge_id, asyncio.get_running_loop().create_future())
        return await asyncio.wait_for(future, within)

    async def take(self, request: web.Request) -> web.Response:
        now, event = time.monotonic(), await request.json()
        if event["status"] == "Settled":
            loop = asyncio.get_running_loop()
            future = self._moments.setdefault(event["chargeId"], loop.create_future())
            if not future.done():
                future.set_result(now)
        return web.Response(status=204)


@contextlib.asynccontextmanager
async def a_receiver() -> AsyncIterator[Settled]:
    receiver = Settled()
    application = web.Application()
    application.router.add_post("/hook", receiver.take)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        yield receiver
    finally:
        await runner.cleanup()


def seconds_to_webhook(database_url: str, log: Path, *, chain: str, poll_seconds: float, blocks: int) -> float:
    """Median seconds from mining to the webhook, with the chain (demo, litecoind, anvil) polled this often."""
    env = {
        "ADMIN_TOKEN": ADMIN_TOKEN,
        "KEYSERVER_WEBHOOK_ALLOW": "127.0.0.0/8",
        "KEYSERVER_POLL_SECONDS": str(poll_seconds),
    }
    with parts.keyserver(database_url, log, **env) as running:
        return asyncio.run(_measure(running.url, chain=chain, blocks=blocks))


async def _measure(url: str, *, chain: str, blocks: int) -> float:
    async with (
        _coin(chain) as coin,
        a_receiver() as receiver,
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=30.0) as api,
    ):
        await coin.register(api)
        found = [await _one(api, coin, receiver) for _ in range(blocks + 1)]
        return statistics.median(found[1:])  # the first waits for the follower to start


async def _one(api: httpx.AsyncClient, coin: Coin, receiver: Settled) -> float:
    body = {"chain": coin.method, "amountUsd": 25, "callbackUrl": receiver.url}
    charge = (await api.post("/charges", json=body, headers=_SERVICE)).raise_for_status().json()
    await coin.pay(api, charge)
    await asyncio.sleep(0.7)  # whatever was on its way has arrived: no load
    began = time.monotonic()
    await coin.mine(api)
    return await receiver.moment(charge["chargeId"], within=2 * SELDOM) - began


@contextlib.asynccontextmanager
async def _coin(chain: str) -> AsyncIterator[Coin]:
    match chain:
        case "litecoind":
            async with LitecoinNode() as node:
                yield OnNode(node)
        case "anvil":
            with tempfile.TemporaryDirectory() as directory:
                async with AnvilNode(Path(directory) / "anvil") as anvil:
                    yield OnNode(anvil)
        case _:
            yield Demo()
