"""Two servers over one database: indexes without a gap, idempotent requests with one effect, keys that end at once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from tests.api.support import a_key, a_tenant, bearer
from tests.builders import AS_ADMIN, AS_PLATFORM, litecoin, register
from tests.server import ServerProcess

pytestmark = pytest.mark.process
REQUESTS = 1000


@pytest.fixture
async def urls(database_url: str, tmp_path: Path) -> AsyncIterator[list[str]]:
    """Two servers, and LTC registered."""
    with ExitStack() as stack:
        first, second = (ServerProcess(database_url, tmp_path) for _ in range(2))
        stack.callback(first.end)
        stack.callback(second.end)
        await asyncio.gather(first.start(), second.start())
        async with httpx.AsyncClient(base_url=first.url, trust_env=False) as api:
            await register(api, litecoin())
        yield [first.url, second.url]


async def test_two_servers_hand_out_addresses_without_a_gap_and_repeat_each_other_s_answers(
    urls: list[str],
) -> None:
    await a_thousand_addresses_at_once_have_the_indexes_0_to_999(urls)
    await one_key_sent_to_both_at_once_has_one_effect(urls)


async def a_thousand_addresses_at_once_have_the_indexes_0_to_999(urls: list[str]) -> None:
    connector = aiohttp.TCPConnector(limit=64)
    async with aiohttp.ClientSession(connector=connector, headers=AS_PLATFORM) as session:

        async def take(number: int) -> dict[str, Any]:
            async with session.post(f"{urls[number % 2]}/address", json={"chain": "LTC"}) as answer:
                assert answer.status == 201, await answer.text()
                document: dict[str, Any] = await answer.json()
                return document

        taken = await asyncio.gather(*(take(number) for number in range(REQUESTS)))
    assert sorted(each["index"] for each in taken) == list(range(REQUESTS))
    assert len({each["address"] for each in taken}) == REQUESTS


async def one_key_sent_to_both_at_once_has_one_effect(urls: list[str]) -> None:
    async with httpx.AsyncClient(trust_env=False, headers={**AS_PLATFORM, "idempotency-key": "once"}) as client:
        body = {"chain": "LTC", "amountUsd": 5}
        answers = await asyncio.gather(*(client.post(f"{urls[number % 2]}/charges", json=body) for number in range(20)))
        statuses = Counter(answer.status_code for answer in answers)
        assert statuses.keys() <= {201, 409}
        made = {answer.json()["chargeId"] for answer in answers if answer.status_code == 201}
        replays = [await client.post(f"{url}/charges", json=body) for url in urls]
        assert {each.json()["chargeId"] for each in replays} == made and len(made) == 1
        assert [each.headers["idempotency-replayed"] for each in replays] == ["true", "true"]
        listed = (await client.get(f"{urls[0]}/charges")).json()["charges"]
        assert [each["chargeId"] for each in listed] == list(made)


async def test_what_one_server_changes_the_other_knows_when_the_answer_is_there(urls: list[str]) -> None:
    """Not a moment later: revoked keys, disabled methods, and pinned prices are read from memory by both."""
    async with (
        httpx.AsyncClient(base_url=urls[0], trust_env=False) as one,
        httpx.AsyncClient(base_url=urls[1], trust_env=False) as other,
    ):
        await a_tenant(one)
        made = await a_key(one)
        key = bearer(made["key"])
        assert (await other.get("/charges", headers=key)).status_code == 200
        await one.delete(f"/admin/keys/{made['id']}", headers=AS_ADMIN)
        assert (await other.get("/charges", headers=key)).status_code == 401

        assert len((await other.get("/chains")).json()) == 1
        await one.delete("/admin/chains/LTC", headers=AS_ADMIN)
        assert (await other.get("/chains")).json() == []
        await one.patch("/admin/chains/LTC", json={"enabled": True}, headers=AS_ADMIN)

        body = {"chain": "LTC", "amountUsd": 5}
        assert (await other.post("/charges", json=body, headers=AS_PLATFORM)).json()["priceUsd"] == "100"
        await one.put("/admin/prices/LTC", json={"price_usd": 50}, headers=AS_ADMIN)
        assert (await other.post("/charges", json=body, headers=AS_PLATFORM)).json()["priceUsd"] == "50"
