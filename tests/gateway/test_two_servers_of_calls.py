"""Calls through two servers over one database, and through one that dies: real processes, over the wire."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import httpx
import pytest
from sqlalchemy import text
from tests.builders import AS_ADMIN
from tests.gateway.books import books_are_whole
from tests.gateway.gateway_world import CHAT, World, furnish
from tests.gateway.scripted_upstream import KEY, ScriptedUpstream, answers, completion, silence
from tests.gateway.test_upstream_faults import costs_nothing, error_of
from tests.server import ServerProcess, running_server

from keyserver.kit.db import Database

pytestmark = pytest.mark.process
CALLS = 400


@asynccontextmanager
async def serving(
    upstream: ScriptedUpstream, database: Database, database_url: str, directory: Path, **env: str
) -> AsyncIterator[tuple[World, ServerProcess]]:
    settings = {
        "KEYSERVER_UPSTREAM_URL": upstream.url,
        "KEYSERVER_UPSTREAM_API_KEY": KEY,
        "KEYSERVER_DATA_DIR": str(directory),
    }
    async with (
        running_server(database_url, directory, **settings, **env) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60.0) as api,
    ):
        key = await furnish(api, usd="10")
        yield World(server.url, api, database, key["key"], key["id"]), server


async def test_many_calls_at_once_on_a_balance_worth_ten_admit_ten(
    upstream: ScriptedUpstream, database: Database, database_url: str, tmp_path: Path
) -> None:
    async with (
        serving(upstream, database, database_url, tmp_path) as (world, _),
        running_server(database_url, tmp_path, KEYSERVER_UPSTREAM_URL=upstream.url) as other,
    ):
        one_dollar = {"capability": "chat", "model": "dear", "unit": "request", "price_usd": "1"}
        assert (await world.api.put("/admin/rates", json=one_dollar, headers=AS_ADMIN)).is_success
        limits = {"grace_usd": 0, "margin": "1", "llm_per_minute": 10_000}
        assert (await world.api.put("/admin/tenants/acme/limits", json=limits, headers=AS_ADMIN)).is_success
        connector = aiohttp.TCPConnector(limit=64)
        async with aiohttp.ClientSession(connector=connector, headers=world.as_acme) as session:

            async def call(number: int) -> int:
                url = (world.url, other.url)[number % 2]
                body = CHAT | {"model": "dear"}
                async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
                    return answer.status

            answered = Counter(await asyncio.gather(*(call(number) for number in range(CALLS))))

        assert answered == {200: 10, 402: CALLS - 10}
        assert len([each for each in upstream.received if each.path != "/v1/models"]) == 10
        assert (await world.charged_nanos(), await world.held_nanos()) == (10**10, 0)
    await books_are_whole(database)


async def test_a_killed_servers_hold_expires_and_is_reported_as_unbilled(
    upstream: ScriptedUpstream, database: Database, database_url: str, tmp_path: Path
) -> None:
    upstream.plays(silence)
    async with serving(upstream, database, database_url, tmp_path) as (world, server):
        running = asyncio.create_task(world.chat())
        await upstream.is_asked()
        server.kill()
        await asyncio.gather(running, return_exceptions=True)
        assert await world.held_nanos() > 0
        async with database.transaction() as session:  # a quarter of an hour later
            await session.execute(text("UPDATE holds SET expires_at = now() - interval '1 second'"))
        async with running_server(database_url, tmp_path) as next_one, asyncio.timeout(60):
            while await world.held_nanos():  # noqa: ASYNC110 - the database tells no event
                await asyncio.sleep(0.1)
            url = f"{next_one.url}/admin/holds?status=expired"
            async with httpx.AsyncClient(trust_env=False) as api:
                (hold,) = (await api.get(url, headers=AS_ADMIN)).json()["holds"]
    assert hold["tenant_id"] == "acme"
    await costs_nothing(world)
    await books_are_whole(database)


async def test_a_plain_call_that_outlasts_the_deadline_is_an_error_and_costs_nothing(
    upstream: ScriptedUpstream, database: Database, database_url: str, tmp_path: Path
) -> None:
    upstream.plays(silence)
    async with serving(upstream, database, database_url, tmp_path, KEYSERVER_SHUTDOWN_SECONDS="3") as (world, server):
        running = asyncio.create_task(world.chat())
        await upstream.is_asked()
        server.signal(signal.SIGTERM)

        assert error_of(await running, 503)["code"] == "shutting_down"
        assert await asyncio.to_thread(server.wait) == 0
    await costs_nothing(world)
    await books_are_whole(database)


async def test_what_was_answered_by_one_server_is_answered_again_by_the_other(
    upstream: ScriptedUpstream, database: Database, database_url: str, tmp_path: Path
) -> None:
    upstream.plays(answers(completion()), answers(completion(id="another")))
    async with (
        serving(upstream, database, database_url, tmp_path) as (world, _),
        running_server(database_url, tmp_path, KEYSERVER_UPSTREAM_URL=upstream.url) as other,
        httpx.AsyncClient(headers=world.as_acme | {"idempotency-key": "order-7"}, trust_env=False) as api,
    ):
        first, again = [
            await api.post(f"{url}/v1/chat/completions", json=CHAT, timeout=60) for url in (world.url, other.url)
        ]

    assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
    assert len(await world.records()) == 1
