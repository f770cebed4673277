"""`/usage/holds` on the wire: what is held, settled, voided, refused, repeated, and who may."""

import asyncio
from typing import Any

import httpx
import pytest
from tests.api.support import a_key, a_tenant, a_tenant_with_key, acting_for, bearer, count, problem
from tests.builders import AS_ADMIN, AS_PLATFORM, ManualClock
from tests.gateway.books import books_are_whole, metered, payer

from keyserver.gateway.billing import settle
from keyserver.kit.db import Database
from keyserver.ledger.holds import expire_due


async def grant(api: httpx.AsyncClient, usd: str, tenant_id: str = "acme", reference: str = "first") -> None:
    body = {"tenant_id": tenant_id, "type": "grant", "amount_usd": usd, "reference_id": f"{tenant_id}:{reference}"}
    answer = await api.post("/admin/ledger/entries", json=body, headers=AS_ADMIN)
    assert answer.status_code in {200, 201}, answer.text


@pytest.fixture
async def acme(api: httpx.AsyncClient) -> dict[str, str]:
    """Headers of a tenant with ten dollars."""
    headers = await a_tenant_with_key(api)
    await grant(api, "10")
    return headers


async def place(
    api: httpx.AsyncClient, headers: dict[str, str], usd: Any = "1", *, capability: str = "lookup", **members: Any
) -> httpx.Response:
    body = {"capability": capability, "estimateUsd": usd, **members}
    return await api.post("/usage/holds", json=body, headers=headers)


async def placed(api: httpx.AsyncClient, headers: dict[str, str], usd: Any = "1", **members: Any) -> str:
    answer = await place(api, headers, usd, **members)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["holdId"])


async def end(api: httpx.AsyncClient, headers: dict[str, str], hold_id: str, how: str, **body: Any) -> httpx.Response:
    return await api.post(f"/usage/holds/{hold_id}/{how}", json=body or None, headers=headers)


async def balance(api: httpx.AsyncClient, headers: dict[str, str]) -> tuple[int, int, int]:
    document = (await api.get("/ledger/balance", headers=headers)).json()
    return (
        int(document["balanceNanodollars"]),
        int(document["heldNanodollars"]),
        int(document["availableNanodollars"]),
    )


async def test_a_call_is_held_settled_and_seen(
    api: httpx.AsyncClient, acme: dict[str, str], clock: ManualClock
) -> None:
    answer = await place(api, acme, 2.5, ttlSeconds=60)
    document = answer.json()
    hold_id = document.pop("holdId")
    assert hold_id.startswith("hold_")
    assert document == {
        "status": "pending",
        "capability": "lookup",
        "estimateNanodollars": "2500000000",
        "expiresAt": "2026-03-01T12:01:00.000Z",
    }
    assert await balance(api, acme) == (10**10, 2_500_000_000, 7_500_000_000)
    clock.advance(seconds=3)
    body = {"costUsd": "0.0000000011", "requestId": "call-1", "provider": "acme-sms", "units": 2, "unitType": "sms"}
    settled = await end(api, acme, hold_id, "settle", **body)
    assert settled.status_code == 200, settled.text
    shown = settled.json()
    entry_id = shown.pop("entryId")
    assert shown == {
        "holdId": hold_id,
        "status": "posted",
        "capability": "lookup",
        "costNanodollars": "2",
        "chargedNanodollars": "3",
        "chargedUsd": "0.000000003",
    }
    assert settled.headers["x-credits-charged"] == "0.000000003"
    assert settled.headers["x-credits-remaining"] == "9.999999997"
    assert await balance(api, acme) == (10**10 - 3, 0, 10**10 - 3)
    entry = (await api.get("/ledger/entries", headers=acme)).json()["entries"][0]
    assert (entry["id"], entry["type"], entry["referenceId"]) == (entry_id, "usage", hold_id)
    assert (entry["amountNanodollars"], entry["side"]) == ("3", "debit")
    seen = (await api.get(f"/usage/holds/{hold_id}", headers=acme)).json()
    assert (seen["status"], seen["closedAt"], seen["late"]) == ("posted", "2026-03-01T12:00:03.000Z", False)


async def test_settling_again_says_the_same_and_anything_else_on_a_closed_hold_is_refused(
    api: httpx.AsyncClient, acme: dict[str, str], database: Database
) -> None:
    hold_id = await placed(api, acme)
    body = {"costUsd": "0.5", "requestId": "call-1", "units": "1.50", "unitType": "minute"}
    first = await end(api, acme, hold_id, "settle", **body)
    again = await end(api, acme, hold_id, "settle", **{**body, "units": 1.5})
    assert (first.status_code, again.status_code) == (200, 200) and first.json() == again.json()
    assert again.headers["x-credits-charged"] == "0.650000000"
    for change in ({"costUsd": "0.6"}, {"requestId": "call-2"}, {"provider": "x"}, {"units": 2}, {"unitType": "hour"}):
        problem(await end(api, acme, hold_id, "settle", **{**body, **change}), 409, "hold_closed")
    problem(await end(api, acme, hold_id, "void"), 409, "hold_closed")
    assert await balance(api, acme) == (9_350_000_000, 0, 9_350_000_000)

    voided = await placed(api, acme)
    answers = [await end(api, acme, voided, "void") for _ in range(2)]
    assert [each.json() for each in answers] == [{"holdId": voided, "status": "voided"}] * 2
    problem(await end(api, acme, voided, "settle", costUsd=1, requestId="call-3"), 409, "hold_closed")
    assert (await balance(api, acme))[1] == 0
    await books_are_whole(database)


async def test_an_expired_hold_gives_its_credit_back_is_reported_and_takes_nothing_more(
    api: httpx.AsyncClient, acme: dict[str, str], clock: ManualClock, database: Database
) -> None:
    hold_id = await placed(api, acme, ttlSeconds=5)
    kept = await placed(api, acme, ttlSeconds=50)
    clock.advance(seconds=5)
    async with database.connection() as connection:
        assert await expire_due(connection, now=clock()) == 1
    assert (await balance(api, acme))[1] == 10**9
    problem(await end(api, acme, hold_id, "settle", costUsd=1, requestId="call-1"), 409, "hold_closed")
    problem(await end(api, acme, hold_id, "void"), 409, "hold_closed")
    report = (await api.get("/admin/holds?status=expired", headers=AS_ADMIN)).json()
    assert report["next_cursor"] is None
    assert [(each["id"], each["tenant_id"], each["estimate_usd"]) for each in report["holds"]] == [
        (hold_id, "acme", "1.000000000")
    ]
    first = (await api.get("/admin/holds?tenant_id=acme&limit=1", headers=AS_ADMIN)).json()
    second = await api.get(f"/admin/holds?limit=1&cursor={first['next_cursor']}", headers=AS_ADMIN)
    assert {first["holds"][0]["id"], second.json()["holds"][0]["id"]} == {hold_id, kept}
    # The gateway's own call was made, whatever became of its hold.
    await settle(database.connection, hold_id=hold_id, payer=payer(), metered=metered(7), now=clock())
    assert (await api.get("/admin/holds?status=expired", headers=AS_ADMIN)).json()["holds"] == []
    assert (await balance(api, acme))[0] == 10**10 - 7


async def test_one_request_is_charged_once_whatever_hold_it_is_settled_under(
    api: httpx.AsyncClient, acme: dict[str, str], database: Database
) -> None:
    holds = [await placed(api, acme) for _ in range(4)]
    body = {"costUsd": 1, "requestId": "call-1"}
    answers = await asyncio.gather(*(end(api, acme, each, "settle", **body) for each in holds))
    assert sorted(each.status_code for each in answers) == [200, 409, 409, 409]
    refused = next(each for each in answers if each.status_code == 409)
    assert problem(refused, 409)["code"] == "request_id_used"
    assert await balance(api, acme) == (8_700_000_000, 3 * 10**9, 5_700_000_000)
    other = await a_tenant_with_key(api, "other")
    await grant(api, "5", "other")
    assert (await end(api, other, await placed(api, other), "settle", **body)).status_code == 200
    await books_are_whole(database)


async def test_an_idempotency_key_holds_once_and_settles_once(api: httpx.AsyncClient, acme: dict[str, str]) -> None:
    once = {**acme, "idempotency-key": "one"}
    holds = [(await place(api, once)).json()["holdId"] for _ in range(3)]
    assert len(set(holds)) == 1 and (await balance(api, acme))[1] == 10**9
    problem(await place(api, once, "2"), 422, "idempotency_key_reused")
    keyed = {**acme, "idempotency-key": "two"}
    answers = [await end(api, keyed, holds[0], "settle", costUsd=1, requestId="r") for _ in range(2)]
    assert [each.json()["chargedNanodollars"] for each in answers] == ["1300000000"] * 2
    assert [each.headers["x-credits-charged"] for each in answers] == ["1.300000000"] * 2
    assert answers[1].headers["idempotency-replayed"] == "true"
    # A refusal is not kept: it is judged anew.
    poor = {**acme, "idempotency-key": "three"}
    problem(await place(api, poor, "500"), 402)
    await grant(api, "600", reference="more")
    assert (await place(api, poor, "500")).status_code == 201


async def test_what_does_not_belong_to_the_tenant_is_not_there(api: httpx.AsyncClient, acme: dict[str, str]) -> None:
    hold_id = await placed(api, acme)
    other = await a_tenant_with_key(api, "other")
    for headers in (other, AS_PLATFORM, acting_for("other")):
        problem(await api.get(f"/usage/holds/{hold_id}", headers=headers), 404, "hold_not_found")
        problem(await end(api, headers, hold_id, "settle", costUsd=1, requestId="r"), 404, "hold_not_found")
        problem(await end(api, headers, hold_id, "void"), 404, "hold_not_found")
    problem(await api.get("/usage/holds/hold_none", headers=acme), 404, "hold_not_found")
    assert (await end(api, acting_for("acme"), hold_id, "void")).status_code == 200


@pytest.mark.parametrize(
    ("members", "pointer"),
    [
        ({"estimateUsd": -1}, "/estimateUsd"),
        ({"estimateUsd": 10_000_001}, "/estimateUsd"),
        ({"estimateUsd": True}, "/estimateUsd"),
        ({"estimateUsd": "NaN"}, "/estimateUsd"),
        ({"estimateUsd": None}, "/estimateUsd"),
        ({"capability": "Chat"}, "/capability"),
        ({"capability": ""}, "/capability"),
        ({"capability": "a:b"}, "/capability"),
        ({"capability": "a" * 65}, "/capability"),
        ({"capability": None}, "/capability"),
        ({"ttlSeconds": 0}, "/ttlSeconds"),
        ({"ttlSeconds": 86_401}, "/ttlSeconds"),
        ({"ttlSeconds": "60"}, "/ttlSeconds"),
        ({"ttlSeconds": 1.5}, "/ttlSeconds"),
    ],
)
async def test_a_malformed_hold_is_refused_by_its_member(
    api: httpx.AsyncClient, members: dict[str, Any], pointer: str
) -> None:
    answer = await api.post(
        "/usage/holds", json={"capability": "lookup", "estimateUsd": 1, **members}, headers=AS_PLATFORM
    )
    assert problem(answer, 400)["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    "members",
    [
        {"costUsd": -1},
        {"costUsd": "1e99"},
        {"costUsd": None},
        {"requestId": ""},
        {"requestId": None},
        {"requestId": "a b"},
        {"units": -1, "unitType": "x"},
        {"units": 1},
        {"unitType": "x"},
        {"provider": ""},
    ],
)
async def test_a_malformed_settlement_is_refused_and_leaves_the_hold(
    api: httpx.AsyncClient, members: dict[str, Any]
) -> None:
    hold_id = await placed(api, AS_PLATFORM)
    body = {"costUsd": 1, "requestId": "r", **members}
    problem(await end(api, AS_PLATFORM, hold_id, "settle", **body), 400)
    assert (await api.get(f"/usage/holds/{hold_id}", headers=AS_PLATFORM)).json()["status"] == "pending"


# --- what a refusal says ----------------------------------------------------------------------------------------


async def test_402_says_which_limit_and_how_much_is_missing(api: httpx.AsyncClient, acme: dict[str, str]) -> None:
    api_limits = "/admin/tenants/acme/limits"
    refused = problem(await place(api, acme, "10.51"), 402, "insufficient_credits")
    assert refused["needsCredits"] is True and refused["topUpUrl"] is None
    assert (refused["currentBalanceCents"], refused["requiredCents"]) == (1000, 1051)
    assert (refused["limit"], refused["missingUsd"]) == ("credit", "0.010000000")
    await api.put(api_limits, json={"daily_usd": 3, "monthly_usd": 100}, headers=AS_ADMIN)
    capped = problem(await place(api, acme, "4"), 402, "spending_cap_reached")
    assert (capped["limit"], capped["missingUsd"], capped["capUsd"]) == ("daily_cap", "1.000000000", "3.000000000")
    assert capped["needsCredits"] is False and capped["resetsAt"] == "2026-03-02T00:00:00.000Z"
    await api.put(api_limits, json={"daily_usd": None, "grace_usd": 0}, headers=AS_ADMIN)
    await placed(api, acme, "10")
    problem(await place(api, acme, "0.01"), 402, "credits_exhausted")


async def test_429_has_the_limit_s_headers_and_so_have_admitted_calls(
    api: httpx.AsyncClient, acme: dict[str, str], clock: ManualClock
) -> None:
    await api.put("/admin/tenants/acme/limits", json={"telephony_per_minute": 1}, headers=AS_ADMIN)
    first = await place(api, acme, "0.1", capability="telephony")
    assert (first.headers["x-ratelimit-limit"], first.headers["x-ratelimit-remaining"]) == ("1", "0")
    refused = await place(api, acme, "0.1", capability="telephony")
    problem(refused, 429, "rate_limit_exceeded")
    assert (refused.headers["retry-after"], refused.headers["x-ratelimit-reset"]) == ("60", "60")
    clock.advance(seconds=60)
    assert (await place(api, acme, "0.1", capability="telephony")).status_code == 201


# --- who pays ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "missing_api_key"),
        ("", "missing_api_key"),
        ("Basic dXNlcg==", "invalid_auth_format"),
        ("Bearer", "invalid_auth_format"),
        ("ks_naked", "invalid_auth_format"),
        ("Bearer ks_unknown", "invalid_api_key"),
    ],
)
async def test_a_wrong_key_is_told_which_way_it_is_wrong(api: httpx.AsyncClient, header: str | None, code: str) -> None:
    headers = {} if header is None else {"authorization": header}
    answer = await api.post("/usage/holds", content=b"{", headers=headers)
    assert problem(answer, 401, code)["error"] == "Unauthorized"


async def test_a_revoked_key_pays_for_nothing(api: httpx.AsyncClient) -> None:
    await a_tenant(api)
    made = await a_key(api)
    await api.delete(f"/admin/keys/{made['id']}", headers=AS_ADMIN)
    problem(await place(api, bearer(made["key"]), 0), 401, "invalid_api_key")


async def test_a_platform_service_bills_another_tenant_which_is_made_on_first_use(
    api: httpx.AsyncClient, acme: dict[str, str], database: Database
) -> None:
    await placed(api, acting_for("acme"), "3")
    assert (await balance(api, acme))[1] == 3 * 10**9
    problem(await place(api, acting_for("new"), "1"), 402, "insufficient_credits")
    assert await count(database, "tenants") == 3
    problem(await place(api, {**acme, "x-tenant-id": "other"}), 403, "tenant_not_allowed")
    assert (await place(api, {**acme, "x-tenant-id": "acme"})).status_code == 201
    problem(await place(api, acting_for("a b")), 400, "invalid_tenant_id")


async def test_a_platform_service_pays_on_behalf_of_a_tenant(
    api: httpx.AsyncClient, acme: dict[str, str], database: Database
) -> None:
    attributed = {**AS_PLATFORM, "x-attribute-to": "acme"}
    hold_id = await placed(api, attributed, "5")
    assert (await end(api, AS_PLATFORM, hold_id, "settle", costUsd=2, requestId="r")).status_code == 200
    assert await balance(api, acme) == (10**10, 0, 10**10)
    assert await balance(api, AS_PLATFORM) == (-2_600_000_000, 0, -2_600_000_000)
    entry = (await api.get("/ledger/entries", headers=AS_PLATFORM)).json()["entries"][0]
    assert entry["metadata"]["attributedTo"] == "acme"
    async with database.connection() as connection:
        record = await connection.fetchrow("SELECT tenant_id, attributed_tenant_id FROM usage_records")
    assert tuple(record) == ("platform", "acme")


async def test_every_wrong_use_of_attribution_is_refused(
    api: httpx.AsyncClient, acme: dict[str, str], database: Database
) -> None:
    for to in ("acme", "platform", "nobody"):
        problem(await place(api, {**acme, "x-attribute-to": to}), 403, "attribution_not_allowed")
    problem(await place(api, {**AS_PLATFORM, "x-attribute-to": "nobody"}), 400, "unknown_attribution")
    for to in ("", " ", "a b", '{"customer": 1}', "a" * 129):
        problem(await place(api, {**AS_PLATFORM, "x-attribute-to": to}), 400, "invalid_attribution")
    problem(await place(api, acting_for("acme", **{"x-attribute-to": "acme"})), 400, "ambiguous_attribution")
    twice = [*AS_PLATFORM.items(), ("x-attribute-to", "acme"), ("x-attribute-to", "platform")]
    answer = await api.post("/usage/holds", json={"capability": "lookup", "estimateUsd": 1}, headers=twice)
    problem(answer, 400, "invalid_attribution")
    named_twice = [*AS_PLATFORM.items(), ("x-tenant-id", "acme"), ("x-tenant-id", "other")]
    answer = await api.post("/usage/holds", json={"capability": "lookup", "estimateUsd": 1}, headers=named_twice)
    problem(answer, 400, "invalid_tenant_id")
    assert await count(database, "holds") == 0 and await count(database, "tenants") == 2
