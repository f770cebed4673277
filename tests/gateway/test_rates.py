"""`/admin/rates` over the wire and in the database: set, replaced, ended, never rewritten."""

import asyncio
from decimal import Decimal
from typing import Any

import asyncpg
import httpx
import pytest
from tests.api.support import problem
from tests.builders import AS_ADMIN, AS_PLATFORM, ManualClock

from keyserver.gateway.tariff import Quantities, Quote
from keyserver.gateway.tariff_errors import ModelNotPriced
from keyserver.gateway.tariffs import Tariffs
from keyserver.gateway.upstreams import Upstream
from keyserver.kit.db import Database

ELSEWHERE = Upstream("u", "http://127.0.0.1:8080/v1", None, ("*",))


def a_rate(**changes: Any) -> dict[str, Any]:
    return {"capability": "chat", "model": "m-*", "unit": "1K-input-tokens", "price_usd": "0.0025", **changes}


async def put(api: httpx.AsyncClient, body: Any) -> httpx.Response:
    return await api.put("/admin/rates", json=body, headers=AS_ADMIN)


async def set_rates(api: httpx.AsyncClient, *rates: dict[str, Any]) -> list[Any]:
    answer = await put(api, list(rates))
    assert answer.status_code == 200, answer.text
    listed: list[Any] = answer.json()["rates"]
    return listed


async def listing(api: httpx.AsyncClient, **query: Any) -> Any:
    answer = await api.get("/admin/rates", params=query, headers=AS_ADMIN)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture
def tariffs(database: Database, clock: ManualClock) -> Tariffs:
    return Tariffs(database, clock=clock, default_margin=Decimal("1.3"), cache_lifetime=0.0)


async def quote(tariffs: Tariffs, model: str, capability: str = "chat") -> Quote:
    return await tariffs.quote(capability, model, upstream=ELSEWHERE)


# --- setting ----------------------------------------------------------------------------------------------------


async def test_one_rate_is_set_and_shown(api: httpx.AsyncClient) -> None:
    answer = await put(api, a_rate())
    assert answer.status_code == 200, answer.text
    (rate,) = answer.json()["rates"]
    assert rate.pop("id").startswith("rate_")
    assert rate == {
        "capability": "chat",
        "model": "m-*",
        "unit": "1K-input-tokens",
        "price_usd": "0.0025",
        "fallback": False,
        "valid_from": "2026-03-01T12:00:00.000Z",
        "valid_to": None,
    }
    assert [each["price_usd"] for each in (await listing(api))["rates"]] == ["0.0025"]


async def test_several_units_of_one_model_are_set_together_and_add_up(api: httpx.AsyncClient, tariffs: Tariffs) -> None:
    await set_rates(api, a_rate(), a_rate(unit="1K-output-tokens", price_usd=0.01), a_rate(unit="request", price_usd=1))
    priced = await quote(tariffs, "m-1")
    assert priced.price_of(Quantities(input_tokens=2_000, output_tokens=1_000)) == 1_015_000_000


async def test_a_list_with_one_wrong_rate_sets_none(api: httpx.AsyncClient) -> None:
    refused = problem(await put(api, [a_rate(), a_rate(unit="minute")]), 400)
    assert refused["errors"][0]["pointer"] == "/1/unit"
    assert (await listing(api))["rates"] == []


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"price_usd": -1}, "/price_usd"),
        ({"price_usd": "-0.01"}, "/price_usd"),
        ({"price_usd": "NaN"}, "/price_usd"),
        ({"price_usd": "Infinity"}, "/price_usd"),
        ({"price_usd": 10_001}, "/price_usd"),
        ({"price_usd": "1e30"}, "/price_usd"),
        ({"price_usd": "0.0000000000000000001"}, "/price_usd"),
        ({"price_usd": True}, "/price_usd"),
        ({"price_usd": None}, "/price_usd"),
        ({"unit": "1K-tokens "}, "/unit"),
        ({"unit": "token"}, "/unit"),
        ({"model": ""}, "/model"),
        ({"model": "m" * 257}, "/model"),
        ({"model": 4}, "/model"),
        ({"capability": ""}, "/capability"),
        ({"capability": "two words"}, "/capability"),
        ({"fallback": "perhaps"}, "/fallback"),
    ],
)
async def test_a_rate_that_makes_no_sense_is_refused(
    api: httpx.AsyncClient, changes: dict[str, Any], pointer: str
) -> None:
    assert problem(await put(api, a_rate(**changes)), 400)["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize("body", [[], {}, None, "chat", 7, [[]]])
async def test_a_body_that_is_no_rate_is_refused(api: httpx.AsyncClient, body: Any) -> None:
    problem(await put(api, body), 400)


@pytest.mark.parametrize("content", [b"", b"{", b'{"price_usd": NaN}'])
async def test_a_malformed_body_is_refused(api: httpx.AsyncClient, content: bytes) -> None:
    problem(await api.put("/admin/rates", content=content, headers=AS_ADMIN), 400)


async def test_only_the_operator_sets_rates(api: httpx.AsyncClient) -> None:
    problem(await api.put("/admin/rates", json=a_rate(), headers=AS_PLATFORM), 401)
    problem(await api.get("/admin/rates"), 401)


# --- history ----------------------------------------------------------------------------------------------------


async def test_a_new_price_ends_the_old_one_and_keeps_it_in_the_history(
    api: httpx.AsyncClient, clock: ManualClock
) -> None:
    await set_rates(api, a_rate())
    clock.advance(hours=1)
    await set_rates(api, a_rate(price_usd="0.003"))
    listed = await listing(api)
    assert [(each["price_usd"], each["valid_from"]) for each in listed["rates"]] == [
        ("0.003", "2026-03-01T13:00:00.000Z")
    ]
    assert [(each["price_usd"], each["valid_to"]) for each in listed["history"]] == [
        ("0.0025", "2026-03-01T13:00:00.000Z")
    ]


async def test_the_same_price_again_changes_nothing(api: httpx.AsyncClient, clock: ManualClock) -> None:
    first = await set_rates(api, a_rate())
    clock.advance(hours=1)
    assert await set_rates(api, a_rate(price_usd="0.00250")) == first
    assert (await listing(api))["history"] == []


async def test_history_comes_in_pages_the_last_first(api: httpx.AsyncClient, clock: ManualClock) -> None:
    for price in range(1, 7):
        await set_rates(api, a_rate(price_usd=price), a_rate(unit="request", price_usd=price))
        clock.advance(minutes=1)
    seen: list[str] = []
    page = await listing(api, limit=3)
    while True:
        seen += [each["price_usd"] for each in page["history"]]
        if page["next_cursor"] is None:
            break
        page = await listing(api, limit=3, cursor=page["next_cursor"])
    assert seen == ["5", "5", "4", "4", "3", "3", "2", "2", "1", "1"]
    problem(await api.get("/admin/rates", params={"cursor": "eA"}, headers=AS_ADMIN), 400)


async def test_an_ended_rate_prices_nothing_and_ending_it_twice_is_no_error(
    api: httpx.AsyncClient, tariffs: Tariffs
) -> None:
    (rate,) = await set_rates(api, a_rate())
    for _ in range(2):
        assert (await api.delete(f"/admin/rates/{rate['id']}", headers=AS_ADMIN)).status_code == 204
    listed = await listing(api)
    assert (listed["rates"], len(listed["history"])) == ([], 1)
    with pytest.raises(ModelNotPriced):
        await quote(tariffs, "m-1")
    problem(await api.delete("/admin/rates/rate_0", headers=AS_ADMIN), 404, "rate_not_found")


async def test_two_that_set_the_same_rate_at_once_leave_one_in_force(api: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(put(api, a_rate(price_usd=price)) for price in range(1, 9)))
    assert [answer.status_code for answer in answers] == [200] * 8
    listed = await listing(api)
    assert len(listed["rates"]) == 1
    assert len(listed["history"]) == 7


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE rates SET price_usd = 0",
        "UPDATE rates SET valid_to = NULL WHERE valid_to IS NOT NULL",
        "UPDATE rates SET valid_to = now() WHERE valid_to IS NOT NULL",
        "UPDATE rates SET valid_to = now(), price_usd = 0 WHERE valid_to IS NULL",
        "DELETE FROM rates",
        "TRUNCATE rates",
    ],
)
async def test_no_statement_changes_the_past(api: httpx.AsyncClient, database: Database, statement: str) -> None:
    await set_rates(api, a_rate())
    await set_rates(api, a_rate(price_usd="0.003"))
    async with database.connection() as connection:
        with pytest.raises(asyncpg.RestrictViolationError):
            await connection.execute(statement)


# --- what a model costs -----------------------------------------------------------------------------------------


async def test_one_s_own_rate_goes_before_the_price_list(api: httpx.AsyncClient, tariffs: Tariffs) -> None:
    million = Quantities(input_tokens=1_000_000)
    assert (await quote(tariffs, "gpt-4o")).price_of(million) == 2_500_000_000
    await set_rates(api, a_rate(model="gpt-*", price_usd="0.01"))
    assert (await quote(tariffs, "gpt-4o")).price_of(million) == 10_000_000_000


async def test_a_fallback_rate_prices_only_what_nothing_else_does(api: httpx.AsyncClient, tariffs: Tariffs) -> None:
    million = Quantities(input_tokens=1_000_000)
    await set_rates(api, a_rate(model="*", price_usd=1, fallback=True))
    assert (await quote(tariffs, "gpt-4o")).price.source == "list"
    assert (await quote(tariffs, "nobody-knows-this")).price_of(million) == 1_000_000_000_000
    await set_rates(api, a_rate(model="*", price_usd=2))
    assert (await quote(tariffs, "gpt-4o")).price_of(million) == 2_000_000_000_000


async def test_a_model_without_a_price_is_refused_with_what_to_do(tariffs: Tariffs) -> None:
    with pytest.raises(ModelNotPriced) as refused:
        await quote(tariffs, "nobody-knows-this")
    assert (refused.value.status, refused.value.code) == (400, "model_not_priced")
    assert "PUT /admin/rates" in refused.value.error and "nobody-knows-this" in refused.value.error


async def test_the_tenant_s_margin_goes_before_the_upstream_s_and_that_before_the_default(
    database: Database, clock: ManualClock, api: httpx.AsyncClient
) -> None:
    await set_rates(api, a_rate())
    tariffs = Tariffs(database, clock=clock, default_margin=Decimal("1.5"), cache_lifetime=0.0)
    dear = Upstream("d", "http://127.0.0.1/v1", None, ("*",), margin=Decimal(2))
    assert (await tariffs.quote("chat", "m-1", upstream=ELSEWHERE)).margin == Decimal("1.5")
    assert (await tariffs.quote("chat", "m-1", upstream=dear)).margin == 2
    assert (await tariffs.quote("chat", "m-1", upstream=dear, tenant_margin=Decimal("1.1"))).margin == Decimal("1.1")


async def test_a_quote_outlives_a_change_of_rates(api: httpx.AsyncClient, tariffs: Tariffs) -> None:
    await set_rates(api, a_rate())
    before = await quote(tariffs, "m-1")
    await set_rates(api, a_rate(price_usd=5))
    assert before.price_of(Quantities(input_tokens=1_000)) == 2_500_000
