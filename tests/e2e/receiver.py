"""A platform service's webhook receiver: a real HTTP server that believes nothing without its signature."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook
from tests.builders import MASTER_KEY

from keyserver.kit.secrets import MasterKey
from keyserver.webhooks.secrets import TenantSecrets

Told = dict[str, Any]


@dataclass
class Receiver:
    """`url` goes into a charge's `callbackUrl`. What carries no valid signature of the tenant is refused with 401."""

    url: str = ""
    refused: int = 0
    _by_message: dict[str, Told] = field(default_factory=dict)

    def told_of(self, charge_id: str) -> list[Told]:
        """The verified bodies about this charge in the order of their sequence; one told twice is here once."""
        bodies = [body for body in self._by_message.values() if body["chargeId"] == charge_id]
        return sorted(bodies, key=lambda body: int(body["sequence"]))

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        webhook = Webhook(TenantSecrets(MasterKey(MASTER_KEY)).secret("platform"))
        try:
            told = webhook.verify(body, dict(request.headers))
        except Exception:  # noqa: BLE001 - whatever is wrong with it, it is refused and counted
            self.refused += 1
            return web.Response(status=401)
        self._by_message[request.headers["webhook-id"]] = told
        return web.Response(status=204)


@asynccontextmanager
async def a_receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    application = web.Application()
    application.router.add_post("/hook", receiver._take)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        yield receiver
    finally:
        await runner.cleanup()
