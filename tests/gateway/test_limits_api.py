"""`/admin/tenants/{id}/limits`, and the events a balance that falls sets off."""

import asyncio
from typing import Any

import httpx
import pytest
from tests.api.support import a_tenant, a_tenant_with_key, count, problem
from tests.builders import AS_ADMIN, AS_PLATFORM, ManualClock
from tests.gateway.books import charge, hold
from tests.gateway.test_holds_api import end, grant, placed

from keyserver.gateway.credit_events import tell_crossings
from keyserver.kit.db import Database

LIMITS = "/admin/tenants/acme/limits"
DEFAULTS = {
    "tenant_id": "acme",
    "llm_per_minute": 60,
    "image_per_minute": 10,
    "audio_per_minute": 30,
    "telephony_per_minute": 100,
    "daily_usd": None,
    "monthly_usd": None,
    "grace_usd": "0.500000000",
    "margin": None,
    "low_balance_usd": None,
    "auto_top_up": None,
    "credits_callback_url": None,
}


async def put(api: httpx.AsyncClient, **members: Any) -> Any:
    answer = await api.put(LIMITS, json=members, headers=AS_ADMIN)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_limits_are_set_kept_and_put_back(api: httpx.AsyncClient) -> None:
    await a_tenant(api)
    first = (await api.get(LIMITS, headers=AS_ADMIN)).json()
    assert first.pop("defaults") == sorted(DEFAULTS.keys() - {"tenant_id"}) and first == DEFAULTS
    chosen = {
        "llm_per_minute": 5,
        "daily_usd": "1.500000000",
        "grace_usd": "0.000000000",
        "margin": "1.05",
        "auto_top_up": {"below_usd": "2.000000000", "amount_usd": "20.000000000"},
        "credits_callback_url": "http://127.0.0.1:9/credits",
    }
    answered = await put(api, **{**chosen, "daily_usd": 1.5, "grace_usd": 0})
    assert answered == {**DEFAULTS, **chosen, "defaults": answered["defaults"]}
    assert not set(answered["defaults"]) & chosen.keys()
    assert (await put(api, monthly_usd=9))["llm_per_minute"] == 5
    assert (await api.get(LIMITS, headers=AS_ADMIN)).json()["monthly_usd"] == "9.000000000"
    back = await put(api, monthly_usd=None, **dict.fromkeys(chosen))
    assert {name: value for name, value in back.items() if name != "defaults"} == DEFAULTS


@pytest.mark.parametrize(
    "members",
    [
        {"llm_per_minute": -1},
        {"llm_per_minute": 10_000_001},
        {"llm_per_minute": "60"},
        {"image_per_minute": 1.5},
        {"audio_per_minute": True},
        {"daily_usd": -0.01},
        {"monthly_usd": "1e12"},
        {"grace_usd": "0.0000000001"},
        {"margin": 0},
        {"margin": -1.3},
        {"margin": 101},
        {"low_balance_usd": "lots"},
        {"auto_top_up": {"below_usd": 1}},
        {"auto_top_up": {"below_usd": 1, "amount_usd": 0}},
        {"credits_callback_url": "ftp://example.org"},
        {"credits_callback_url": "http://10.0.0.1/"},
        {"dayly_usd": 1},
    ],
)
async def test_absurd_limits_are_refused_and_change_nothing(api: httpx.AsyncClient, members: dict[str, Any]) -> None:
    await a_tenant(api)
    problem(await api.put(LIMITS, json={"telephony_per_minute": 1, **members}, headers=AS_ADMIN), 400)
    assert (await api.get(LIMITS, headers=AS_ADMIN)).json()["telephony_per_minute"] == 100


async def test_limits_are_the_operators_and_of_tenants_there_are(api: httpx.AsyncClient) -> None:
    problem(await api.put(LIMITS, json={}, headers=AS_PLATFORM), 401)
    problem(await api.put(LIMITS, json={}, headers=AS_ADMIN), 404, "tenant_not_found")
    problem(await api.get(LIMITS, headers=AS_ADMIN), 404, "tenant_not_found")


async def test_a_tenants_own_margin_is_what_it_is_charged_by(api: httpx.AsyncClient) -> None:
    acme = await a_tenant_with_key(api)
    await grant(api, "10")
    await put(api, margin="1.005")
    settled = await end(api, acme, await placed(api, acme), "settle", costUsd="0.000000001", requestId="r")
    assert settled.json()["chargedNanodollars"] == "2"


# --- events -----------------------------------------------------------------------------------------------------


async def told(database: Database, api: httpx.AsyncClient, clock: ManualClock) -> list[dict[str, Any]]:
    """What the outbox holds of credit, oldest first."""
    async with database.transaction() as session:
        await tell_crossings(session, top_up_url="https://pay.example/acme", now=clock())
    listed = (await api.get("/admin/webhooks/deliveries?subject_id=credits:acme", headers=AS_ADMIN)).json()[
        "deliveries"
    ]
    details = [(await api.get(f"/admin/webhooks/deliveries/{each['id']}", headers=AS_ADMIN)).json() for each in listed]
    return sorted((each["payload"] for each in details), key=lambda payload: int(payload["sequence"]))


async def spend(database: Database, nanos: int) -> None:
    await charge(database, await hold(database, nanos), nanos)


async def test_each_threshold_is_told_once_a_crossing_and_armed_again_by_a_credit(
    api: httpx.AsyncClient, database: Database, clock: ManualClock
) -> None:
    await a_tenant(api)
    await grant(api, "10")
    await put(
        api,
        low_balance_usd=5,
        auto_top_up={"below_usd": 3, "amount_usd": 20},
        credits_callback_url="http://127.0.0.1:9/credits",
    )
    await spend(database, 4 * 10**9)
    assert await told(database, api, clock) == []
    await spend(database, 10**9)
    (low,) = await told(database, api, clock)
    assert low.pop("entryId").startswith("je_") and low.pop("sequence") > 0
    assert low == {
        "type": "credits.low",
        "timestamp": "2026-03-01T12:00:00.000Z",
        "tenantId": "acme",
        "balanceNanodollars": "5000000000",
        "balanceUsd": "5.000000000",
        "thresholdUsd": "5.000000000",
        "topUpUrl": "https://pay.example/acme",
    }
    await spend(database, 10**9)
    assert len(await told(database, api, clock)) == 1
    await spend(database, 4 * 10**9)
    due, exhausted = (await told(database, api, clock))[1:]
    assert (due["type"], due["amountUsd"]) == ("credits.top_up_due", "20.000000000")
    assert (exhausted["type"], exhausted["thresholdUsd"]) == ("credits.exhausted", "0.000000000")
    await grant(api, "6", reference="again")
    body = {"tenant_id": "acme", "type": "expiry", "amount_usd": 1, "reference_id": "expired"}
    assert (await api.post("/admin/ledger/entries", json=body, headers=AS_ADMIN)).status_code == 201
    assert [each["type"] for each in await told(database, api, clock)][3:] == ["credits.low"]
    assert await count(database, "credit_crossings") == 0


async def test_calls_at_once_cross_a_threshold_once(
    api: httpx.AsyncClient, database: Database, clock: ManualClock
) -> None:
    await a_tenant(api)
    await grant(api, "10")
    await put(api, low_balance_usd=5, credits_callback_url="http://127.0.0.1:9/credits")
    await asyncio.gather(*(spend(database, 10**9) for _ in range(10)))
    assert [each["type"] for each in await told(database, api, clock)] == ["credits.low", "credits.exhausted"]


async def test_a_tenant_without_a_callback_is_not_told(
    api: httpx.AsyncClient, database: Database, clock: ManualClock
) -> None:
    await a_tenant(api)
    await grant(api, "1")
    await spend(database, 10**9)
    assert await count(database, "credit_crossings") == 1
    assert await told(database, api, clock) == [] and await count(database, "credit_crossings") == 0
