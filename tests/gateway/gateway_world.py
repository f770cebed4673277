"""The gateway served over real HTTP in front of a scripted upstream, with a tenant that has credit."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from pydantic import SecretStr
from sqlalchemy import text
from tests.api.support import a_key, a_tenant
from tests.builders import ADMIN_TOKEN, AS_ADMIN, MASTER_KEY, SERVICE_KEY
from tests.gateway.books import books_are_whole
from tests.gateway.scripted_upstream import KEY, ScriptedUpstream
from tests.ports import free_port

from keyserver.app import create_app
from keyserver.kit.db import Database
from keyserver.kit.money import NANOS_PER_USD
from keyserver.kit.secrets import MasterKey
from keyserver.settings import Settings

#: Dollars for 1,000 tokens: 10 in and 20 out cost 0.05, and 0.065 are charged.
RATES = {"1K-input-tokens": "1", "1K-output-tokens": "2"}
CHARGE_OF_A_COMPLETION = 65_000_000
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 50}


class _Server(uvicorn.Server):
    def capture_signals(self) -> Any:
        return nullcontext()


@dataclass
class World:
    url: str
    api: httpx.AsyncClient
    database: Database
    key: str
    key_id: str

    @property
    def as_acme(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    async def chat(self, **members: Any) -> httpx.Response:
        return await self.api.post("/v1/chat/completions", json=CHAT | members, headers=self.as_acme)

    async def rows(self, query: str) -> list[dict[str, Any]]:
        async with self.database.transaction() as session:
            return [dict(row) for row in (await session.execute(text(query))).mappings()]

    async def records(self) -> list[dict[str, Any]]:
        return await self.rows("SELECT * FROM usage_records ORDER BY settled_at")

    async def charged_nanos(self) -> int:
        """What the ledger has taken from the tenant, by its own lines."""
        rows = await self.rows(
            "SELECT coalesce(sum(amount_nanos), 0) AS nanos FROM journal_lines"
            " WHERE account_code = '2000:acme' AND side = 'debit'"
        )
        return int(rows[0]["nanos"])

    async def held_nanos(self) -> int:
        rows = await self.rows("SELECT held_nanos FROM account_balances WHERE account_code = '2000:acme'")
        return int(rows[0]["held_nanos"])

    async def is_billed(self, count: int = 1) -> list[dict[str, Any]]:
        """Waits until so many calls have their record; returns them."""
        async with asyncio.timeout(30):
            while len(found := await self.records()) < count:  # noqa: ASYNC110 - the database tells no event
                await asyncio.sleep(0.02)
        return found


def settings_for(upstream: ScriptedUpstream | None, directory: Path, **changes: Any) -> Settings:
    members: dict[str, Any] = {
        "service_key": SecretStr(SERVICE_KEY),
        "admin_token": SecretStr(ADMIN_TOKEN),
        "data_dir": directory,
        "webhook_allow": ("127.0.0.0/8",),
    }
    if upstream is not None:
        members |= {"upstream_url": upstream.url, "upstream_api_key": SecretStr(KEY)}
    return Settings(**(members | changes))


@asynccontextmanager
async def served(settings: Settings, database_url: str) -> AsyncIterator[str]:
    """The API on a port of its own, in this event loop; yields its URL."""
    app = create_app(settings, database_url=database_url, master=MasterKey(MASTER_KEY), cache_lifetime=0.0)
    config = uvicorn.Config(
        app, port=free_port(), log_config=None, access_log=False, ws="none", timeout_graceful_shutdown=1
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(30):
        while not server.started:
            assert not serving.done(), serving
            await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{config.port}"
    finally:
        server.should_exit = True
        await serving


async def furnish(api: httpx.AsyncClient, *, usd: str = "100") -> dict[str, Any]:
    """Rates for `m`, and the tenant acme with a key and credit; returns the key's document."""
    for capability in ("chat", "completions", "embeddings"):
        for unit, price in RATES.items():
            rate = {"capability": capability, "model": "m", "unit": unit, "price_usd": price}
            assert (await api.put("/admin/rates", json=rate, headers=AS_ADMIN)).is_success
    for capability, unit in (("images", "image"), ("speech", "1K-characters"), ("transcriptions", "second")):
        rate = {"capability": capability, "model": "m", "unit": unit, "price_usd": "0.01"}
        assert (await api.put("/admin/rates", json=rate, headers=AS_ADMIN)).is_success
    await a_tenant(api)
    entry = {"tenant_id": "acme", "type": "grant", "amount_usd": usd, "reference_id": "start"}
    assert (await api.post("/admin/ledger/entries", json=entry, headers=AS_ADMIN)).is_success
    return await a_key(api)


@asynccontextmanager
async def gateway(
    upstream: ScriptedUpstream | None, database: Database, database_url: str, directory: Path, **changes: Any
) -> AsyncIterator[World]:
    """Whatever a test did to it: its books are whole in the end."""
    async with (
        served(settings_for(upstream, directory, **changes), database_url) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=60.0) as api,
    ):
        key = await furnish(api)
        yield World(url, api, database, key["key"], key["id"])
        await books_are_whole(database)


def nanos(dollars: str) -> int:
    return int(Decimal(dollars) * NANOS_PER_USD)
