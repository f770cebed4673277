"""Two servers over one database admit what there is credit for; a dead caller's hold expires by itself."""

import asyncio
from collections import Counter
from pathlib import Path

import aiohttp
import httpx
import pytest
from tests.api.support import a_tenant_with_key
from tests.builders import AS_ADMIN
from tests.gateway.books import books_are_whole
from tests.gateway.test_holds_api import balance, grant, placed
from tests.server import running_server

from keyserver.kit.db import Database

pytestmark = pytest.mark.process
CALLS = 1000


async def test_a_thousand_calls_at_once_on_a_balance_worth_ten_admit_ten(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    async with (
        running_server(database_url, tmp_path) as one,
        running_server(database_url, tmp_path) as other,
        httpx.AsyncClient(base_url=one.url, trust_env=False, timeout=60) as api,
    ):
        acme = await a_tenant_with_key(api)
        await grant(api, "10")
        await api.put("/admin/tenants/acme/limits", json={"grace_usd": 0}, headers=AS_ADMIN)
        body = {"capability": "lookup", "estimateUsd": 1}
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64), headers=acme) as session:

            async def call(number: int) -> int:
                url = (one, other)[number % 2].url
                async with session.post(f"{url}/usage/holds", json=body) as answer:
                    return answer.status

            answered = Counter(await asyncio.gather(*(call(number) for number in range(CALLS))))
        assert answered == {201: 10, 402: CALLS - 10}
        assert await balance(api, acme) == (10**10, 10**10, 0)
        await books_are_whole(database)


async def test_a_hold_that_nobody_settles_gives_its_credit_back_by_itself(database_url: str, tmp_path: Path) -> None:
    async with (
        running_server(database_url, tmp_path) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as api,
    ):
        acme = await a_tenant_with_key(api)
        await grant(api, "10")
        hold_id = await placed(api, acme, "4", ttlSeconds=1)
        async with asyncio.timeout(60):
            while True:
                if await balance(api, acme) == (10**10, 0, 10**10):
                    break
                await asyncio.sleep(0.1)
        report = (await api.get("/admin/holds?status=expired", headers=AS_ADMIN)).json()["holds"]
        assert [each["id"] for each in report] == [hold_id]
        assert f'"hold_id":"{hold_id}"' in server.log.read_text().replace(" ", "")
        assert "keyserver_holds_expired_total 1.0" in (await api.get("/metrics")).text
