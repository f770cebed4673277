"""`/admin/payments`: listed and filtered, credited by hand, dismissed, with a history that nobody changes."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from tests.api.support import a_tenant, problem
from tests.builders import AS_ADMIN, AS_PLATFORM, ManualClock, charge, litecoin, register
from tests.watching.world import FakeMarket

from keyserver.addresses.lookahead import fill_all
from keyserver.chains.models import Blockchain
from keyserver.charges import settlement
from keyserver.charges.recording import Arrival, Inclusion
from keyserver.charges.waiting import credit_waiting
from keyserver.kit.db import Database

COIN = 10**8


@dataclass
class Desk:
    """An operator's, with a litecoin chain whose coin has no price until a test gives it one."""

    api: httpx.AsyncClient
    database: Database
    clock: ManualClock
    market: FakeMarket = field(default_factory=FakeMarket)
    height: int = 0

    async def address(self) -> str:
        answer = await self.api.post("/address", json={"chain": "LTC"}, headers=AS_PLATFORM)
        return str(answer.json()["address"])

    async def never_issued(self) -> str:
        """The address at the far end of the look-ahead, where nothing was handed out yet."""
        await fill_all(self.database, ahead=50)
        async with self.database.transaction() as session:
            query = text("SELECT address FROM lookahead_addresses ORDER BY address_index DESC LIMIT 1")
            return str((await session.execute(query)).scalar_one())

    async def pay(self, address: str, units: int = COIN, *, blocks: int = 2) -> str:
        """Returns the payment's id."""
        tx_hash = f"tx{self.height}"
        for depth in range(blocks):
            await self.include([Arrival(tx_hash, 0, "native", address, units)] if depth == 0 else [])
        return next(str(each["id"]) for each in await self.listed() if each["tx_hash"] == tx_hash)

    async def include(self, arrivals: list[Arrival]) -> None:
        self.height += 1
        block = Inclusion(self.height, f"b{self.height}", self.clock())
        async with self.database.transaction() as session:
            chain = await session.get_one(Blockchain, "litecoin:regtest")
            await settlement.include(session, chain, arrivals, block, market=self.market, now=self.clock())

    async def orphan(self) -> None:
        async with self.database.transaction() as session:
            chain = await session.get_one(Blockchain, "litecoin:regtest")
            await settlement.orphan(session, chain, above_height=0, now=self.clock())

    async def price_arrives(self) -> None:
        market = FakeMarket({"LTC": Decimal(50)})
        await credit_waiting(self.database, market=market, now=self.clock)

    async def listed(self, **query: Any) -> list[dict[str, Any]]:
        answer = await self.api.get("/admin/payments", params=query, headers=AS_ADMIN)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["payments"]
        return found

    async def unmatched(self) -> list[str]:
        return [each["id"] for each in await self.listed(unmatched=True)]

    async def shown(self, payment_id: str) -> dict[str, Any]:
        answer = await self.api.get(f"/admin/payments/{payment_id}", headers=AS_ADMIN)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def credit(self, payment_id: str, *, key: str | None = None, **body: Any) -> httpx.Response:
        headers = AS_ADMIN if key is None else {**AS_ADMIN, "idempotency-key": key}
        body = {"note": "as the payer's letter says", **body}
        return await self.api.post(f"/admin/payments/{payment_id}/credit", json=body, headers=headers)

    async def dismiss(self, payment_id: str, reason: str = "spam") -> httpx.Response:
        path = f"/admin/payments/{payment_id}/dismiss"
        return await self.api.post(path, json={"reason": reason}, headers=AS_ADMIN)

    async def balance(self, tenant_id: str = "platform") -> int:
        """Nanodollars, after making sure that the books are right."""
        trial = (await self.api.get("/admin/ledger/trial-balance", headers=AS_ADMIN)).json()
        assert trial["balanced"] is True
        assert (await self.api.get("/admin/ledger/check", headers=AS_ADMIN)).json()["ok"] is True
        headers = {**AS_PLATFORM, "x-tenant-id": tenant_id}
        return int((await self.api.get("/ledger/balance", headers=headers)).json()["balanceNanodollars"])

    async def entries(self) -> list[dict[str, Any]]:
        """The platform's, oldest first."""
        answer = await self.api.get("/ledger/entries?limit=200", headers=AS_PLATFORM)
        return list(reversed(answer.json()["entries"]))


@pytest.fixture
async def desk(api: httpx.AsyncClient, database: Database, clock: ManualClock) -> Desk:
    await register(api, litecoin(), price_usd=None)
    return Desk(api, database, clock)


# --- credit -------------------------------------------------------------------------------------------------------


async def test_a_payment_without_a_price_is_credited_at_the_price_an_operator_names(desk: Desk) -> None:
    paid = await desk.pay(await desk.address(), 150_000_001)
    answer = await desk.credit(paid, price_usd="12.5")
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert (shown["credited_usd"], shown["price_usd"], shown["price_source"]) == ("18.750000125", "12.5", "operator")
    assert (shown["reason"], shown["tenant_id"]) == (None, "platform")
    assert shown == await desk.shown(paid)
    assert await desk.balance() == 18_750_000_125
    assert await desk.unmatched() == []
    (entry,) = await desk.entries()
    assert (entry["type"], entry["referenceId"]) == ("purchase", f"{paid}:credit:1")
    metadata = entry["metadata"]
    assert (metadata["priceSource"], metadata["note"]) == ("operator", "as the payer's letter says")
    await desk.price_arrives()
    assert await desk.balance() == 18_750_000_125


async def test_an_amount_in_all_is_credited_exactly(desk: Desk) -> None:
    paid = await desk.pay(await desk.address())
    answer = await desk.credit(paid, amount_usd="0.000000001")
    assert (answer.json()["credited_usd"], answer.json()["price_usd"]) == ("0.000000001", None)
    assert await desk.balance() == 1


async def test_without_price_and_amount_it_is_the_market_s_or_503(desk: Desk) -> None:
    paid = await desk.pay(await desk.address())
    problem(await desk.credit(paid), 503, "price_unavailable")
    assert await desk.unmatched() == [paid]
    await desk.api.put("/admin/prices/LTC", json={"price_usd": "70"}, headers=AS_ADMIN)
    answer = await desk.credit(paid)
    assert (answer.json()["credited_usd"], answer.json()["price_source"]) == ("70.000000000", "operator: manual")


async def test_money_at_an_address_never_handed_out_needs_its_tenant_named(desk: Desk) -> None:
    await a_tenant(desk.api)
    paid = await desk.pay(await desk.never_issued())
    (listed,) = await desk.listed(unmatched=True)
    assert (listed["tenant_id"], listed["reason"], listed["charge_id"]) == (None, "never_issued", None)
    refused = problem(await desk.credit(paid, price_usd=10), 400, "invalid_credit")
    assert refused["errors"][0]["pointer"] == "/tenant_id"
    problem(await desk.credit(paid, price_usd=10, tenant_id="nobody"), 404, "tenant_not_found")
    answer = await desk.credit(paid, price_usd=10, tenant_id="acme")
    assert (answer.json()["tenant_id"], answer.json()["address_index"]) == ("acme", 99)
    assert await desk.balance("acme") == 10 * 10**9


async def test_a_tenant_s_payment_is_credited_to_no_other(desk: Desk) -> None:
    await a_tenant(desk.api)
    paid = await desk.pay(await desk.address())
    problem(await desk.credit(paid, price_usd=10, tenant_id="acme"), 409, "payment_has_tenant")
    assert (await desk.credit(paid, price_usd=10, tenant_id="platform")).status_code == 200


async def test_a_credit_by_hand_tells_the_charge_s_receiver(desk: Desk) -> None:
    await desk.api.put("/admin/prices/LTC", json={"price_usd": "100"}, headers=AS_ADMIN)
    made = await charge(desk.api, callbackUrl="http://127.0.0.1:9/hook")
    desk.clock.advance(hours=1)
    paid = await desk.pay(made["address"], int(made["expectedAmount"]))
    await desk.credit(paid, amount_usd="20")
    found = (await desk.api.get(f"/charges/{made['chargeId']}", headers=AS_PLATFORM)).json()
    assert (found["amountReceivedCents"], found["payments"][0]["creditedUsd"]) == (2000, "20.000000000")
    assert (found["payments"][0]["priceUsd"], found["payments"][0]["priceSource"]) == (None, "operator")
    told = await desk.api.get("/admin/webhooks/deliveries", params={"charge_id": made["chargeId"]}, headers=AS_ADMIN)
    newest = max(told.json()["deliveries"], key=lambda delivery: delivery["sequence"])
    assert newest["type"] == "charge.updated"


async def test_the_same_credit_again_is_the_same_answer_and_another_is_409(desk: Desk) -> None:
    paid = await desk.pay(await desk.address())
    first = await desk.credit(paid, price_usd="12.50")
    for same in ({"price_usd": 12.5}, {"price_usd": "12.5", "tenant_id": "platform"}, {"price_usd": "1.25e1"}):
        again = await desk.credit(paid, **same)
        assert (again.status_code, again.json()) == (200, first.json())
    for other in ({"price_usd": "12.51"}, {"amount_usd": "12.5"}, {}, {"price_usd": "12.5", "note": "another"}):
        problem(await desk.credit(paid, **other), 409, "payment_already_credited")
    assert len(await desk.entries()) == 1


async def test_what_the_market_credited_is_not_credited_by_hand(desk: Desk) -> None:
    paid = await desk.pay(await desk.address())
    await desk.price_arrives()
    problem(await desk.credit(paid, price_usd=50), 409, "payment_already_credited")
    problem(await desk.dismiss(paid), 409, "payment_already_credited")


async def test_an_idempotency_key_replays_a_credit(desk: Desk) -> None:
    paid = await desk.pay(await desk.address())
    first = await desk.credit(paid, key="k", price_usd=10)
    again = await desk.credit(paid, key="k", price_usd=10)
    assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
    problem(await desk.credit(paid, key="k", price_usd=11), 422, "idempotency_key_reused")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"price_usd": 0}, "/price_usd"),
        ({"price_usd": "-1"}, "/price_usd"),
        ({"amount_usd": 0}, "/amount_usd"),
        ({"amount_usd": "0.0000000001"}, "/amount_usd"),
        ({"amount_usd": "NaN"}, "/amount_usd"),
        ({"amount_usd": True}, "/amount_usd"),
        ({"amount_usd": "100000000.000000001"}, "/amount_usd"),
        ({"price_usd": "1e30"}, "/amount_usd"),
        ({"price_usd": 1, "amount_usd": 1}, "/amount_usd"),
        ({"price_usd": 1, "note": ""}, "/note"),
        ({"price_usd": 1, "note": None}, "/note"),
    ],
)
async def test_a_malformed_credit_is_400_and_changes_nothing(desk: Desk, body: dict[str, Any], pointer: str) -> None:
    paid = await desk.pay(await desk.address())
    refused = problem(await desk.credit(paid, **body), 400)
    assert refused["errors"][0]["pointer"] == pointer
    assert await desk.unmatched() == [paid]
    assert (await desk.shown(paid))["history"] == []


async def test_what_is_not_confirmed_is_neither_credited_nor_dismissed(desk: Desk) -> None:
    paid = await desk.pay(await desk.address(), blocks=1)
    problem(await desk.credit(paid, price_usd=10), 409, "payment_not_confirmed")
    problem(await desk.dismiss(paid), 409, "payment_not_confirmed")
    for answer in (await desk.credit("pay_none", price_usd=1), await desk.dismiss("pay_none")):
        problem(answer, 404, "payment_not_found")
    problem(await desk.api.get("/admin/payments/pay_none", headers=AS_ADMIN), 404, "payment_not_found")


# --- dismissal ----------------------------------------------------------------------------------------------------


async def test_a_dismissed_payment_is_listed_no_more_nor_credited_when_its_price_comes(desk: Desk) -> None:
    paid = await desk.pay(await desk.address())
    answer = await desk.dismiss(paid)
    assert answer.status_code == 200 and answer.json()["dismissed_at"] is not None
    assert await desk.unmatched() == []
    await desk.price_arrives()
    assert await desk.balance() == 0
    assert (await desk.dismiss(paid)).json() == answer.json()
    problem(await desk.dismiss(paid, "changed my mind"), 409, "payment_already_dismissed")
    assert "keyserver_payments_unmatched 0.0" in (await desk.api.get("/metrics")).text


async def test_crediting_undoes_a_dismissal(desk: Desk) -> None:
    paid = await desk.pay(await desk.address())
    await desk.dismiss(paid)
    answer = await desk.credit(paid, price_usd=10)
    assert (answer.json()["dismissed_at"], answer.json()["credited_usd"]) == (None, "10.000000000")
    assert [each["action"] for each in answer.json()["history"]] == ["dismiss", "credit"]
    problem(await desk.dismiss(paid), 409, "payment_already_credited")


async def test_a_dismissal_outlasts_a_reorganisation(desk: Desk) -> None:
    address = await desk.address()
    paid = await desk.pay(address)
    await desk.dismiss(paid)
    await desk.orphan()
    desk.market.prices["LTC"] = Decimal(50)
    await desk.include([Arrival("tx0", 0, "native", address, COIN)])
    await desk.include([])
    shown = await desk.shown(paid)
    assert (shown["status"], shown["credited_usd"]) == ("confirmed", None)
    assert await desk.unmatched() == []


# --- reorganisations ----------------------------------------------------------------------------------------------


async def test_a_reorganisation_reverses_a_credit_by_hand_and_lists_the_payment_again(desk: Desk) -> None:
    await a_tenant(desk.api)
    address = await desk.never_issued()
    paid = await desk.pay(address)
    await desk.credit(paid, price_usd=10, tenant_id="acme")
    await desk.orphan()
    assert await desk.balance("acme") == 0
    assert (await desk.shown(paid))["tenant_id"] is None
    problem(await desk.credit(paid, price_usd=10, tenant_id="acme"), 409, "payment_not_confirmed")
    await desk.include([Arrival("tx0", 0, "native", address, COIN)])
    await desk.include([])
    assert await desk.unmatched() == [paid]
    assert (await desk.shown(paid))["reason"] == "never_issued"
    assert (await desk.credit(paid, price_usd=10, tenant_id="acme")).status_code == 200
    assert await desk.balance("acme") == 10 * 10**9
    history = (await desk.shown(paid))["history"]
    assert [(each["actor"], each["action"]) for each in history] == [
        ("admin", "credit"),
        ("chain", "reverse"),
        ("admin", "credit"),
    ]


# --- history ------------------------------------------------------------------------------------------------------


async def test_the_history_says_who_did_what_to_what_why_and_when(desk: Desk) -> None:
    paid = await desk.pay(await desk.address())
    headers = {**AS_ADMIN, "x-request-id": "the-request"}
    body = {"price_usd": "10.0", "note": "found its price"}
    await desk.api.post(f"/admin/payments/{paid}/credit", json=body, headers=headers)
    (entry,) = (await desk.shown(paid))["history"]
    assert (entry["actor"], entry["action"], entry["reason"]) == ("admin", "credit", "found its price")
    assert (entry["request_id"], entry["acted_at"]) == ("the-request", "2026-03-01T12:00:00.000Z")
    assert entry["asked"] == {"tenant_id": "platform", "price_usd": "10", "amount_usd": None}
    assert (entry["before"]["reason"], entry["before"]["credited_usd"]) == ("no_price", None)
    assert (entry["after"]["reason"], entry["after"]["credited_usd"]) == (None, "10.000000000")


async def test_history_refuses_to_be_changed(desk: Desk) -> None:
    paid = await desk.pay(await desk.address())
    await desk.dismiss(paid)
    for statement in (
        "UPDATE payment_actions SET reason = 'x'",
        "DELETE FROM payment_actions",
        "TRUNCATE payment_actions",
    ):
        with pytest.raises(DBAPIError, match="append-only"):
            async with desk.database.transaction() as session:
                await session.execute(text(statement))


# --- the list -----------------------------------------------------------------------------------------------------


async def test_payments_are_filtered_and_paged(desk: Desk) -> None:
    await a_tenant(desk.api)
    ours = [await desk.pay(await desk.address()) for _ in range(3)]
    stray = await desk.pay(await desk.never_issued())
    fresh = await desk.pay(await desk.address(), blocks=1)

    async def ids(**query: Any) -> list[str]:
        return [each["id"] for each in await desk.listed(**query)]

    assert await ids() == [fresh, stray, *reversed(ours)]
    assert await ids(unmatched=True) == [stray, *reversed(ours)]
    assert await ids(reason="never_issued") == [stray]
    assert await ids(status="confirming") == [fresh]
    assert await ids(tenant_id="platform") == await ids(tenant="platform") == [fresh, *reversed(ours)]
    assert await ids(chain="LTC") == await ids(chain="litecoin") == await ids()
    assert await ids(chain="bitcoin") == await ids(tenant_id="acme") == []
    page = (await desk.api.get("/admin/payments?unmatched=true&limit=3", headers=AS_ADMIN)).json()
    rest = await desk.listed(unmatched=True, cursor=page["next_cursor"])
    assert [each["id"] for each in [*page["payments"], *rest]] == [stray, *reversed(ours)]


# --- races --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tries", range(3))
async def test_of_ten_credits_at_once_with_other_prices_one_is_posted(desk: Desk, tries: int) -> None:
    paid = await desk.pay(await desk.address())
    answers = await asyncio.gather(*(desk.credit(paid, price_usd=price) for price in range(1, 11)))
    (won,) = [answer for answer in answers if answer.status_code == 200]
    assert {answer.status_code for answer in answers} == {200, 409}
    assert await desk.balance() == int(float(won.json()["credited_usd"])) * 10**9


Act = Callable[[Desk, str], Awaitable[Any]]
ACTS: dict[str, Act] = {
    "credit": lambda desk, paid: desk.credit(paid, price_usd=10, tenant_id="platform"),
    "other credit": lambda desk, paid: desk.credit(paid, price_usd=20, tenant_id="platform"),
    "dismiss": lambda desk, paid: desk.dismiss(paid),
    "price": lambda desk, _: desk.price_arrives(),
    "orphan": lambda desk, _: desk.orphan(),
}


@settings(max_examples=25, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rounds=st.lists(st.lists(st.sampled_from(sorted(ACTS)), min_size=1, max_size=4), min_size=1, max_size=4),
    issued=st.booleans(),
)
@pytest.mark.timeout(300)
async def test_whatever_is_done_at_once_a_payment_is_credited_at_most_once_and_the_history_tells_it(
    desk: Desk, rounds: list[list[str]], issued: bool
) -> None:
    """Each round is done at once; after a round that orphaned the payment it is mined again."""
    before = await desk.balance()
    address = await desk.address() if issued else await desk.never_issued()
    paid = await desk.pay(address)
    tx_hash = (await desk.shown(paid))["tx_hash"]
    for acts in rounds:
        async with asyncio.timeout(30):
            answers = await asyncio.gather(*(ACTS[act](desk, paid) for act in acts))
        assert {answer.status_code for answer in answers if answer is not None} <= {200, 409}
        if (await desk.shown(paid))["status"] == "orphaned":
            await desk.include([Arrival(tx_hash, 0, "native", address, COIN)])
            await desk.include([])
    shown = await desk.shown(paid)
    credited = round(float(shown["credited_usd"] or 0))
    assert await desk.balance() == before + credited * 10**9
    listed = paid in await desk.unmatched()
    assert [credited > 0, shown["dismissed_at"] is not None, listed].count(True) == 1
    standing = 0
    for entry in await desk.entries():
        if entry["referenceId"].startswith(paid):
            standing += 1 if ":credit:" in entry["referenceId"] else -1
            assert standing in {0, 1}
    assert standing == (credited > 0)
    for earlier, later in zip(shown["history"], shown["history"][1:], strict=False):
        assert (earlier["action"], later["action"]) != ("credit", "credit")
    await desk.orphan()
