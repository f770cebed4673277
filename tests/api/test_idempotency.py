"""`Idempotency-Key`: one effect and one answer, however often and wherever the same request is sent."""

import asyncio
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from tests.api.support import a_tenant, a_tenant_with_key, acting_for, count, next_index, problem
from tests.builders import AS_ADMIN, AS_PLATFORM, ManualClock, litecoin, register

from keyserver.access.idempotency import forget_old_answers
from keyserver.kit.db import Database

BODY = {"chain": "LTC", "amountUsd": 5}


def keyed(key: str = "order-1", headers: dict[str, str] = AS_PLATFORM) -> dict[str, str]:
    return {**headers, "idempotency-key": key}


async def pay(api: httpx.AsyncClient, body: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
    return await api.post("/charges", json=body or BODY, headers={**keyed(), **headers})


def is_replay(again: httpx.Response, first: httpx.Response) -> None:
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["content-type"] == first.headers["content-type"]
    assert "idempotency-replayed" not in first.headers


@pytest.fixture
async def shop(api: httpx.AsyncClient) -> httpx.AsyncClient:
    await register(api, litecoin())
    return api


async def test_the_same_request_again_gets_the_first_answer_again(shop: httpx.AsyncClient, database: Database) -> None:
    first = await pay(shop)
    assert first.status_code == 201
    for _ in range(3):
        is_replay(await pay(shop), first)
    assert await count(database, "charges") == 1
    assert await next_index(shop) == 1


async def test_every_route_that_makes_or_moves_something_replays(shop: httpx.AsyncClient) -> None:
    await a_tenant(shop)
    entry = {"tenant_id": "acme", "type": "grant", "amount_usd": "5", "reference_id": "r1"}
    for path, body, headers in (
        ("/charges", BODY, AS_PLATFORM),
        ("/address", {"chain": "LTC"}, AS_PLATFORM),
        ("/admin/chains", litecoin(id="second"), AS_ADMIN),
        ("/admin/tenants", {"name": "New", "type": "org", "metadata": {"n": 2**70}}, AS_ADMIN),
        ("/admin/tenants/acme/keys", {}, AS_ADMIN),
        ("/admin/tenants/acme/webhook-secret", None, AS_ADMIN),
        ("/admin/ledger/entries", entry, AS_ADMIN),
    ):
        first = await shop.post(path, json=body, headers=keyed(path, headers))
        assert first.status_code in {200, 201}, (path, first.text)
        is_replay(await shop.post(path, json=body, headers=keyed(path, headers)), first)


async def test_white_space_and_the_order_of_members_make_no_other_request(shop: httpx.AsyncClient) -> None:
    headers = {**keyed(), "content-type": "application/json"}
    first = await shop.post("/charges", content=b'{"chain":"LTC","amountUsd":5}', headers=headers)
    is_replay(await shop.post("/charges", content=b' {"amountUsd" : 5,\n"chain": "LTC"} ', headers=headers), first)


async def test_another_request_with_the_key_is_422_and_changes_nothing(shop: httpx.AsyncClient) -> None:
    first = await pay(shop)
    for body in ({**BODY, "amountUsd": 6}, {**BODY, "metadata": {}}, {**BODY, "amountUsd": "5"}):
        problem(await pay(shop, body), 422, "idempotency_key_reused")
    answer = await shop.post("/address", json=BODY, headers=keyed())
    problem(answer, 422, "idempotency_key_reused")
    is_replay(await pay(shop), first)
    assert await next_index(shop) == 1


async def test_keys_are_each_tenant_s_own(shop: httpx.AsyncClient) -> None:
    own = await a_tenant_with_key(shop)
    first = await pay(shop)
    other = await shop.post("/charges", json=BODY, headers=keyed(headers=own))
    assert other.status_code == 201 and other.json()["chargeId"] != first.json()["chargeId"]
    # The platform acting for a tenant retries that tenant's requests.
    is_replay(await shop.post("/charges", json=BODY, headers=keyed(headers=acting_for("acme"))), other)


async def test_a_tenant_called_admin_has_no_key_in_common_with_the_operator(shop: httpx.AsyncClient) -> None:
    made = await shop.post("/admin/tenants", json={"id": "t", "name": "T", "type": "org"}, headers=keyed("k", AS_ADMIN))
    assert made.status_code == 201
    answer = await shop.post("/charges", json=BODY, headers=keyed("k", acting_for("admin")))
    assert answer.status_code == 201


async def test_what_was_promised_once_is_answered_again_though_it_could_not_be_done_now(
    shop: httpx.AsyncClient, clock: ManualClock
) -> None:
    charge, address = await pay(shop), await shop.post("/address", json={"chain": "LTC"}, headers=keyed("address"))
    body = {"expires_at": "2026-03-01T13:00:00Z"}
    key = await shop.post("/admin/tenants/platform/keys", json=body, headers=keyed("key", AS_ADMIN))
    await shop.delete("/admin/prices/LTC", headers=AS_ADMIN)
    is_replay(await pay(shop), charge)
    await shop.delete("/admin/chains/LTC", headers=AS_ADMIN)
    clock.advance(hours=2)
    is_replay(await pay(shop), charge)
    is_replay(await shop.post("/address", json={"chain": "LTC"}, headers=keyed("address")), address)
    is_replay(await shop.post("/admin/tenants/platform/keys", json=body, headers=keyed("key", AS_ADMIN)), key)


async def test_a_refusal_is_not_kept_and_burns_no_index(shop: httpx.AsyncClient, database: Database) -> None:
    await shop.delete("/admin/prices/LTC", headers=AS_ADMIN)
    problem(await pay(shop), 503, "price_unavailable")
    problem(await pay(shop, {**BODY, "amountUsd": 0}), 400, "invalid_amount")
    assert await count(database, "idempotent_answers") == 0
    await shop.put("/admin/prices/LTC", json={"price_usd": 100}, headers=AS_ADMIN)
    first = await pay(shop)
    assert (first.status_code, first.json()["derivationIndex"]) == (201, 0)


async def test_a_twin_that_is_still_running_is_409_and_later_a_replay(
    shop: httpx.AsyncClient, database: Database
) -> None:
    async with database.transaction() as session:
        await session.execute(text("LOCK TABLE charges IN SHARE ROW EXCLUSIVE MODE"))
        running = asyncio.create_task(pay(shop))
        held = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted")
        async with asyncio.timeout(10):
            while not await session.scalar(held):  # noqa: ASYNC110 - the first one has to begin
                await asyncio.sleep(0.01)
        problem(await pay(shop), 409, "request_in_progress")
        assert not running.done()
    first = await running
    assert (first.status_code, first.json()["derivationIndex"]) == (201, 0)
    is_replay(await pay(shop), first)


async def test_many_twins_at_once_have_one_effect(shop: httpx.AsyncClient, database: Database) -> None:
    answers = await asyncio.gather(*(pay(shop) for _ in range(20)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert await count(database, "charges") == 1
    assert await next_index(shop) == 1


async def test_a_kept_answer_rests_encrypted(api: httpx.AsyncClient, database: Database) -> None:
    first = await api.post("/admin/tenants/platform/keys", json={}, headers=keyed(headers=AS_ADMIN))
    async with database.connection() as connection:
        row = dict(await connection.fetchrow("SELECT * FROM idempotent_answers"))
    assert first.json()["key"].encode() not in row["body_encrypted"]
    assert first.json()["prefix"] not in str(row)


async def test_answers_are_kept_for_more_than_a_day_and_not_for_ever(
    shop: httpx.AsyncClient, database: Database, clock: ManualClock
) -> None:
    first = await pay(shop)
    async with database.transaction() as session:
        await forget_old_answers(session, now=clock.advance(hours=25))
    is_replay(await pay(shop), first)
    async with database.transaction() as session:
        await forget_old_answers(session, now=clock.advance(days=7))
    assert await count(database, "idempotent_answers") == 0
