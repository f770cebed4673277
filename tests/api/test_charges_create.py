"""POST /charges: what it answers, which amounts and lifetimes it takes, and that a refusal spends no address."""

import json
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from tests.api.support import count, next_index, problem
from tests.builders import AS_ADMIN, AS_PLATFORM, ManualClock, charge, ether, litecoin, register

from keyserver.charges.creation import check_request
from keyserver.charges.schemas import NewCharge, dollars
from keyserver.kit.db import Database
from keyserver.kit.egress import EgressPolicy

JSON = {"content-type": "application/json"}
USDC = "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48"


async def post_raw(api: httpx.AsyncClient, amount: str, **members: Any) -> httpx.Response:
    """A charge whose amount is written exactly so in the JSON."""
    rest = "".join(f", {json.dumps(name)}: {json.dumps(value)}" for name, value in members.items())
    body = f'{{"chain": "LTC", "amountUsd": {amount}{rest}}}'
    return await api.post("/charges", content=body, headers={**AS_PLATFORM, **JSON})


async def test_the_answer_has_every_member_of_the_contract(api: httpx.AsyncClient) -> None:
    await register(api, litecoin(), price_usd="87.5")
    made = await charge(api, "LTC", 25)
    assert made == {
        "chargeId": made["chargeId"],
        "address": made["address"],
        "chain": "LTC",
        "token": "LTC",
        "amountUsd": 25,
        "derivationIndex": 0,
        "expiresAt": "2026-03-01T12:30:00.000Z",
        "status": "New",
        "type": "native",
        "network": "regtest",
        "decimals": 8,
        "contractAddress": None,
        "expectedAmount": "28571429",
        "displayAmount": "0.28571429",
        "priceUsd": "87.5",
        "priceSource": "manual",
        "pricedAt": "2026-03-01T12:00:00.000Z",
        "paymentUri": f"litecoin:{made['address']}?amount=0.28571429",
        "createdAt": "2026-03-01T12:00:00.000Z",
    }
    assert made["address"].startswith("rltc1q")


async def test_ids_are_opaque_url_safe_and_say_nothing_of_each_other(api: httpx.AsyncClient) -> None:
    await register(api, litecoin())
    ids = [(await charge(api))["chargeId"] for _ in range(3)]
    assert all(each.startswith("ch_") and each.replace("_", "").isalnum() and len(each) >= 30 for each in ids)
    assert len({each[-20:] for each in ids}) == 3


async def test_amounts_are_numbers_or_strings_and_are_rounded_half_up_to_cents(api: httpx.AsyncClient) -> None:
    await register(api, litecoin())
    for written, cents in {
        "25": 2500,
        "25.0": 2500,
        '"25"': 2500,
        '"25.00"': 2500,
        '" 25.5 "': 2550,
        "19.99": 1999,
        "1.005": 101,
        '"1.005"': 101,
        "1.0049999": 100,
        '"2.675"': 268,
        "0.005": 1,
        '"0.0050"': 1,
        "0.01": 1,
        "2.5e1": 2500,
        '"1e3"': 100000,
        "1E-2": 1,
        "10000000": 1_000_000_000,
        '"9999999.994"': 999_999_999,
        '"0.30000000000000004"': 30,
    }.items():
        answer = await post_raw(api, written)
        assert answer.status_code == 201, (written, answer.text)
        assert Decimal(str(answer.json()["amountUsd"])) * 100 == cents, written
        assert isinstance(answer.json()["amountUsd"], int | float)
        found = await api.get(f"/charges/{answer.json()['chargeId']}", headers=AS_PLATFORM)
        assert found.json()["amountUsdCents"] == cents


async def test_what_is_no_amount_to_ask_for_is_400_and_spends_no_address(api: httpx.AsyncClient) -> None:
    await register(api, litecoin())
    for written in (
        "0",
        "-0.0",
        "-1",
        '"-25"',
        "0.004",
        '"0.0049999999999"',
        "1e-30",
        "1e-300",
        '"1e-999999999"',
        "10000000.01",
        '"10000000.005"',
        "1e30",
        "1e300",
        '"1e999999999"',
        "1e400",
        "9" * 400,
        "NaN",
        "Infinity",
        '"NaN"',
        '"sNaN"',
        '"Infinity"',
        '"-inf"',
        "true",
        "false",
        "null",
        '""',
        '"  "',
        '"five"',
        '"1,000"',
        '"1_000"',
        '"0x10"',
        '"$5"',
        '"5 USD"',
        '"١٢"',
        '"+"',
        '"1e"',
        '"1.2.3"',
        f'"{"1" * 100}"',
        "[25]",
        '{"value": 25}',
    ):
        document = problem(await post_raw(api, written), 400)
        if document["code"] != "malformed_json":
            assert document["errors"][0]["pointer"] == "/amountUsd", written
    assert await next_index(api) == 0


@given(cents=st.integers(1, 1_000_000_000), rest=st.integers(-499, 499))
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None, derandomize=True)
def test_any_amount_near_a_cent_is_that_cent_and_comes_back_as_it(cents: int, rest: int) -> None:
    exact = Decimal(cents) / 100 + Decimal(rest) / 100_000
    body = NewCharge.model_validate({"chain": "x", "amountUsd": str(exact)})
    if exact > 0:
        assert check_request(body, egress=EgressPolicy())[0] == cents
    assert Decimal(json.dumps(dollars(cents))) == Decimal(cents) / 100


async def test_less_than_one_base_unit_and_more_than_there_can_be_are_400(api: httpx.AsyncClient) -> None:
    await register(api, litecoin(decimals=0), price_usd="26")
    problem(await post_raw(api, "25.99"), 400, "invalid_amount")
    made = (await post_raw(api, "26")).json()
    assert (made["expectedAmount"], made["displayAmount"]) == ("1", "1")
    assert (await post_raw(api, "26.01")).json()["expectedAmount"] == "2"
    await register(api, ether(decimals=36), price_usd="0.000000000000000001")
    made = await charge(api, "ETH", 10_000_000)
    assert len(made["expectedAmount"]) == 62
    stored = (await api.get(f"/charges/{made['chargeId']}", headers=AS_PLATFORM)).json()
    assert stored["expectedAmount"] == made["expectedAmount"]


async def test_a_charge_lives_as_long_as_was_asked(api: httpx.AsyncClient, clock: ManualClock) -> None:
    await register(api, litecoin())
    for seconds in (60, 604_800, 3601):
        made = await charge(api, expiresInSeconds=seconds)
        assert datetime.fromisoformat(made["expiresAt"]) == clock() + timedelta(seconds=seconds)
    assert (await charge(api, expiresInSeconds=None))["expiresAt"] == "2026-03-01T12:30:00.000Z"


async def test_unknown_and_disabled_payment_methods_are_404(api: httpx.AsyncClient) -> None:
    await register(api, litecoin())
    assert (await api.delete("/admin/chains/LTC", headers=AS_ADMIN)).status_code == 204
    for name in ("LTC", "ltc", "DOGE", "' OR 1=1"):
        for path, body in (("/charges", {"chain": name, "amountUsd": 5}), ("/address", {"chain": name})):
            problem(await api.post(path, json=body, headers=AS_PLATFORM), 404, "chain_not_found")


async def test_without_a_usable_price_it_is_503_and_no_address_is_spent(
    api: httpx.AsyncClient, database: Database
) -> None:
    await register(api, litecoin(), price_usd=None)
    for _ in range(3):
        answer = await api.post("/charges", json={"chain": "LTC", "amountUsd": 5}, headers=AS_PLATFORM)
        problem(answer, 503, "price_unavailable")
        assert int(answer.headers["retry-after"]) > 0
    assert await count(database, "addresses") == 0
    assert await next_index(api) == 0


async def test_a_refused_request_burns_no_index_whatever_it_is_refused_for(api: httpx.AsyncClient) -> None:
    await register(api, litecoin())
    good = {"chain": "LTC", "amountUsd": 5}
    for bad in (
        {"amountUsd": 0},
        {"amountUsd": 1e9},
        {"callbackUrl": "http://10.0.0.1/"},
        {"metadata": {"x": "y" * 20_000}},
        {"expiresInSeconds": 1},
        {"chain": "DOGE"},
    ):
        answer = await api.post("/charges", json={**good, **bad}, headers=AS_PLATFORM)
        assert answer.status_code in {400, 404}
    problem(await api.post("/charges", json=good), 401)
    problem(await api.post("/address", json={}, headers=AS_PLATFORM), 400)
    assert (await charge(api))["derivationIndex"] == 0


async def test_the_price_of_a_charge_is_kept_with_its_source(
    api: httpx.AsyncClient, database: Database, clock: ManualClock
) -> None:
    await register(api, litecoin(), price_usd="87.123456789")
    await charge(api)
    async with database.transaction() as session:
        row = (await session.execute(text("SELECT price_usd, price_source, priced_at FROM charges"))).one()
    assert tuple(row) == (Decimal("87.123456789"), "manual", clock())


# --- payment URIs -----------------------------------------------------------------------------------------------


async def test_chains_of_bitcoin_s_kind_get_a_bip_21_uri(api: httpx.AsyncClient) -> None:
    await register(api, litecoin(), price_usd="1000000")
    made = await charge(api, "LTC", "10.5")
    assert made["paymentUri"] == f"litecoin:{made['address']}?amount=0.0000105"
    whole = await charge(api, "LTC", "3000000")
    assert whole["paymentUri"] == f"litecoin:{whole['address']}?amount=3"


async def test_evm_coins_and_tokens_get_eip_681_uris(api: httpx.AsyncClient) -> None:
    await register(api, ether(network="mainnet"), price_usd="2000")
    coin = await charge(api, "ETH", 1)
    assert coin["paymentUri"] == f"ethereum:{coin['address']}@1?value=500000000000000"
    usdc = ether(id="USDC", network="mainnet", type="erc20", token="USDC", contract=USDC, decimals=6)
    await register(api, usdc, price_usd="1")
    token = await charge(api, "USDC", "12.34")
    assert token["paymentUri"] == f"ethereum:{USDC}@1/transfer?address={token['address']}&uint256=12340000"
    assert token["contractAddress"] == USDC
    await register(api, ether(id="LOCAL"), price_usd="2000")
    local = await charge(api, "LOCAL", 1)
    assert local["paymentUri"] == f"ethereum:{local['address']}?value=500000000000000"
