"""One charge end to end on the simulated chain: asked for, paid, mined, settled, credited, told by signed webhook."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from tests.builders import AS_PLATFORM, MASTER_KEY, charge
from tests.ports import free_port
from tests.server import running_server

from keyserver.kit.secrets import MasterKey
from keyserver.webhooks.secrets import TenantSecrets

pytestmark = pytest.mark.process


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """A real HTTP receiver and what it was sent."""
    received: list[tuple[dict[str, str], bytes]] = []

    async def take(request: web.Request) -> web.Response:
        received.append((dict(request.headers), await request.read()))
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield f"http://127.0.0.1:{port}/hook", received
    await runner.cleanup()


async def until(condition: Callable[[], Any], *, within: float = 15.0) -> None:
    deadline = asyncio.get_running_loop().time() + within
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "waited too long"
        await asyncio.sleep(0.05)


async def test_a_charge_that_is_paid_is_settled_credited_and_told(
    database_url: str, tmp_path: Path, receiver: tuple[str, list[tuple[dict[str, str], bytes]]]
) -> None:
    url, received = receiver
    async with (
        running_server(database_url, tmp_path, KEYSERVER_DEMO="true") as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False) as api,
    ):
        made = await charge(api, "DEMO-BTC", 25, callbackUrl=url)
        assert (await api.post("/demo/pay", json={"chargeId": made["chargeId"]})).status_code == 201
        await until(lambda: received)
        await api.post("/demo/mine", json={"blocks": 2})
        await until(lambda: any(json.loads(body)["status"] == "Settled" for _, body in received))

        found = (await api.get(f"/charges/{made['chargeId']}", headers=AS_PLATFORM)).json()
        assert (found["status"], found["receivedAmount"]) == ("Settled", made["expectedAmount"])
        balance = (await api.get("/ledger/balance", headers=AS_PLATFORM)).json()
        assert balance["balanceUsd"] == found["payments"][0]["creditedUsd"] == "25.000200000"

    secret = base64.b64decode(TenantSecrets(MasterKey(MASTER_KEY)).secret("platform").removeprefix("whsec_"))
    for headers, body in received:
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
    assert sorted(json.loads(body)["sequence"] for _, body in received) == [1, 2, 3]
