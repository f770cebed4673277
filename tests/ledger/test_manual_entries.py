"""Entries an operator posts by hand, over HTTP: every type, once by reference, and what the books show."""

import asyncio
from typing import Any

import httpx
import pytest
from tests.builders import AS_ADMIN, AS_PLATFORM


async def enter(api: httpx.AsyncClient, **changes: Any) -> httpx.Response:
    body = {"tenant_id": "platform", "type": "grant", "amount_usd": "12.5", "reference_id": "r1"} | changes
    return await api.post("/admin/ledger/entries", json=body, headers=AS_ADMIN)


async def balance(api: httpx.AsyncClient) -> str:
    found: str = (await api.get("/ledger/balance", headers=AS_PLATFORM)).json()["balanceUsd"]
    return found


async def accounts(api: httpx.AsyncClient) -> dict[str, str]:
    trial = (await api.get("/admin/ledger/trial-balance", headers=AS_ADMIN)).json()
    assert (trial["balanced"], trial["difference"], trial["totalDebits"]) == (True, "0", trial["totalCredits"])
    check = (await api.get("/admin/ledger/check", headers=AS_ADMIN)).json()
    assert check == {"ok": True, "discrepancies": [], "held_discrepancies": []}
    return {each["code"]: each["balance"] for each in trial["accounts"] if each["balance"] != "0"}


@pytest.mark.parametrize(
    ("type_", "amount", "other", "side", "after"),
    [
        ("purchase", "12.5", ("1000", "12500000000"), "credit", "12.500000000"),
        ("grant", "12.5", ("5000:grant", "12500000000"), "credit", "12.500000000"),
        ("dividend", "12.5", ("5000:dividend", "12500000000"), "credit", "12.500000000"),
        ("refund", "12.5", ("4090", "-12500000000"), "credit", "12.500000000"),
        ("correction", "12.5", ("5000:correction", "12500000000"), "credit", "12.500000000"),
        ("correction", "-0.000000001", ("5000:correction", "-1"), "debit", "-0.000000001"),
        ("expiry", "12.5", ("4900", "12500000000"), "debit", "-12.500000000"),
    ],
)
async def test_every_type_moves_its_own_account(
    api: httpx.AsyncClient, type_: str, amount: str, other: tuple[str, str], side: str, after: str
) -> None:
    answer = await enter(api, type=type_, amount_usd=amount)
    assert (answer.status_code, answer.json()["side"]) == (201, side)
    assert await balance(api) == after
    code, nanos = other
    assert (await accounts(api))[code] == nanos


async def test_the_same_again_is_answered_with_the_same_entry(api: httpx.AsyncClient) -> None:
    first, second = await enter(api), await enter(api)
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    assert await balance(api) == "12.500000000"


@pytest.mark.parametrize(
    "changes",
    [{"amount_usd": "12.6"}, {"type": "dividend"}, {"type": "expiry"}, {"description": "why"}],
)
async def test_the_same_reference_for_something_else_is_a_conflict(
    api: httpx.AsyncClient, changes: dict[str, str]
) -> None:
    await enter(api)
    answer = await enter(api, **changes)
    assert (answer.status_code, answer.json()["code"]) == (409, "reference_reused")
    assert await balance(api) == "12.500000000"


async def test_a_correction_and_its_opposite_are_not_the_same(api: httpx.AsyncClient) -> None:
    await enter(api, type="correction", amount_usd="1")
    assert (await enter(api, type="correction", amount_usd="-1")).status_code == 409


async def test_twins_at_the_same_time_are_one_entry(api: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(enter(api) for _ in range(6)))
    assert sorted(each.status_code for each in answers) == [200] * 5 + [201]
    assert len({each.json()["id"] for each in answers}) == 1
    assert await balance(api) == "12.500000000"


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"type": "usage"}, 400),
        ({"type": "gift"}, 400),
        ({"amount_usd": "0"}, 400),
        ({"amount_usd": "-1"}, 400),
        ({"amount_usd": "0.0000000001"}, 400),
        ({"amount_usd": "1e30"}, 400),
        ({"tenant_id": "nobody"}, 404),
    ],
)
async def test_what_cannot_be_posted_is_refused(api: httpx.AsyncClient, changes: dict[str, str], status: int) -> None:
    assert (await enter(api, **changes)).status_code == status
    assert await accounts(api) == {}


async def test_a_tenant_reads_its_own_history_page_by_page(api: httpx.AsyncClient) -> None:
    for number in range(5):
        await enter(api, reference_id=f"r{number}", amount_usd=str(number + 1))
    seen: list[str] = []
    cursor: str | None = None
    while True:
        params = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await api.get("/ledger/entries", params=params, headers=AS_PLATFORM)).json()
        seen += [each["referenceId"] for each in page["entries"]]
        cursor = page["nextCursor"]
        if cursor is None:
            break
    assert seen == ["r4", "r3", "r2", "r1", "r0"]
    stranger = AS_PLATFORM | {"x-tenant-id": "somebody-else"}
    assert (await api.get("/ledger/entries", headers=stranger)).json()["entries"] == []
