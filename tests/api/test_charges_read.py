"""GET /charges and GET /charges/{id}: members, order, pages and filters."""

from typing import Any

import httpx
from tests.api.support import acting_for, problem
from tests.builders import AS_ADMIN, AS_PLATFORM, ManualClock, charge, ether, litecoin, register

URL = "https://shop.example/hook"


async def listed(api: httpx.AsyncClient, **parameters: Any) -> list[str]:
    answer = await api.get("/charges", params=parameters, headers=AS_PLATFORM)
    assert answer.status_code == 200, answer.text
    return [each["chargeId"] for each in answer.json()["charges"]]


async def test_a_charge_has_every_member_of_the_contract(api: httpx.AsyncClient) -> None:
    await register(api, litecoin())
    made = await charge(api, "LTC", "25.1", callbackUrl=URL, metadata={"order": 7})
    found = (await api.get(f"/charges/{made['chargeId']}", headers=AS_PLATFORM)).json()
    assert found == {
        "chargeId": made["chargeId"],
        "status": "New",
        "address": made["address"],
        "chain": "litecoin",
        "token": "LTC",
        "amountUsdCents": 2510,
        "creditedAt": None,
        "chainId": "LTC",
        "additionalStatus": "None",
        "expectedAmount": "25100000",
        "receivedAmount": "0",
        "amountReceivedCents": 0,
        "priceUsd": "100",
        "priceSource": "manual",
        "pricedAt": "2026-03-01T12:00:00.000Z",
        "confirmations": 0,
        "confirmationsRequired": 2,
        "txHash": None,
        "expiresAt": "2026-03-01T12:30:00.000Z",
        "createdAt": "2026-03-01T12:00:00.000Z",
        "metadata": {"order": 7},
        "callbackUrl": URL,
        "payments": [],
    }
    assert (await api.get("/charges", headers=AS_PLATFORM)).json() == {"charges": [found], "nextCursor": None}


async def test_pages_follow_each_other_newest_first_and_new_charges_shift_nothing(api: httpx.AsyncClient) -> None:
    await register(api, litecoin())
    ids = [(await charge(api))["chargeId"] for _ in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    for size in (2, 2, 1):
        parameters = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await api.get("/charges", params=parameters, headers=AS_PLATFORM)).json()
        assert len(page["charges"]) == size
        seen += [each["chargeId"] for each in page["charges"]]
        cursor = page["nextCursor"]
        await charge(api)
    assert seen == sorted(ids, reverse=True)
    assert cursor is None


async def test_a_page_that_is_just_full_has_no_next_one(api: httpx.AsyncClient) -> None:
    await register(api, litecoin())
    for _ in range(2):
        await charge(api)
    assert (await api.get("/charges?limit=2", headers=AS_PLATFORM)).json()["nextCursor"] is None


async def test_another_tenant_s_cursor_shows_nothing_of_its_charges(api: httpx.AsyncClient) -> None:
    await register(api, litecoin())
    for _ in range(3):
        await charge(api)
    cursor = (await api.get("/charges?limit=1", headers=AS_PLATFORM)).json()["nextCursor"]
    answer = await api.get("/charges", params={"cursor": cursor}, headers=acting_for("other"))
    assert answer.json() == {"charges": [], "nextCursor": None}


async def test_charges_are_filtered_by_payment_method_blockchain_status_and_time(
    api: httpx.AsyncClient, clock: ManualClock
) -> None:
    await register(api, litecoin())
    await register(api, ether(), price_usd="2000")
    first = (await charge(api, "LTC"))["chargeId"]
    clock.advance(minutes=10)
    second = (await charge(api, "ETH"))["chargeId"]
    clock.advance(minutes=10)
    third = (await charge(api, "LTC"))["chargeId"]
    assert await listed(api, chain="LTC") == [third, first]
    assert await listed(api, chain="litecoin") == [third, first]
    assert await listed(api, chain="dogecoin") == []
    assert await listed(api, status="New") == [third, second, first]
    assert await listed(api, status="Settled") == []
    assert await listed(api, createdAfter="2026-03-01T12:00:00Z") == [third, second]
    assert await listed(api, createdBefore="2026-03-01T12:20:00Z") == [second, first]
    assert await listed(api, createdAfter="2026-03-01T13:05:00+01:00", createdBefore="2026-03-01T12:15:00Z") == [second]
    assert await listed(api, chain="LTC", createdAfter="2026-03-01T12:00:00Z", limit=1) == [third]


async def test_a_charge_goes_on_when_its_payment_method_is_disabled(api: httpx.AsyncClient) -> None:
    await register(api, litecoin())
    made = await charge(api)
    await api.delete("/admin/chains/LTC", headers=AS_ADMIN)
    found = await api.get(f"/charges/{made['chargeId']}", headers=AS_PLATFORM)
    assert (found.status_code, found.json()["status"]) == (200, "New")
    assert await listed(api) == [made["chargeId"]]


async def test_a_charge_nobody_made_is_404(api: httpx.AsyncClient) -> None:
    answer = await api.get("/charges/ch_00000000000000000000000000000000", headers=AS_PLATFORM)
    assert problem(answer, 404, "charge_not_found")["error"] == "Charge not found"
