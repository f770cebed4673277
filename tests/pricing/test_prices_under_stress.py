"""What goes wrong at price sources, from their web sites on loopback to what a charge is made of."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from aiohttp import web
from tests.api.support import next_index, problem
from tests.builders import AS_ADMIN, AS_PLATFORM, ManualClock, charge, ether, litecoin, register
from tests.pricing.site import Site, a_site

from keyserver.kit.db import Database
from keyserver.pricing.ports import PriceSource
from keyserver.pricing.refresher import assets_of_methods, refresh_due
from keyserver.pricing.sources.coinbase import Coinbase
from keyserver.pricing.sources.coingecko import CoinGecko
from keyserver.pricing.sources.kraken import Kraken

INTERVAL = 30.0
MAX_AGE = 300.0
FROZEN_AFTER = 1800.0
#: Further from 100 than spreads explain; its inverse, which Coinbase tells, has few decimals.
MOVED = "102.4"
COINGECKO, KRAKEN, COINBASE = "coingecko", "kraken", "coinbase"


class Market:
    """The three sources, each over a site of its own, and a tick of the worker that asks them."""

    def __init__(self, database: Database, clock: ManualClock, sites: dict[str, Site]) -> None:
        self.database = database
        self.clock = clock
        self.sites = sites
        self.sources: dict[str, PriceSource] = {
            COINGECKO: CoinGecko(clock=clock, base_url=sites[COINGECKO].url),
            KRAKEN: Kraken(clock=clock, base_url=sites[KRAKEN].url),
            COINBASE: Coinbase(clock=clock, base_url=sites[COINBASE].url),
        }
        for name in self.sources:
            self.sites[name].answers(b"", status=503)

    def says(self, source: str, price: str, *, symbol: str = "LTC") -> None:
        """From now on. Of the three, CoinGecko alone says of when its price is: of this moment."""
        coin = {"LTC": "litecoin", "USDT": "tether"}[symbol]
        pair = {"LTC": "XLTCZUSD", "USDT": "USDTZUSD"}[symbol]
        at = int(self.clock().timestamp())
        rate = str(Decimal(1) / Decimal(price))
        bodies: dict[str, Any] = {
            COINGECKO: {coin: {"usd": float(price), "last_updated_at": at}},
            KRAKEN: {"error": [], "result": {pair: {each: [price, "1", "1"] for each in "abc"}}},
            COINBASE: {"data": {"currency": "USD", "rates": {symbol: rate}}},
        }
        self.sites[source].answers(bodies[source])

    async def tick(self, *sources: str, fetch_limit: float = 30.0) -> list[str]:
        """Half a minute later: those of the sources (all by default) whose turn it is are asked."""
        self.clock.advance(seconds=INTERVAL)
        return await self.ask(*sources, fetch_limit=fetch_limit)

    async def ask(self, *sources: str, fetch_limit: float = 30.0) -> list[str]:
        return await refresh_due(
            self.database,
            [self.sources[name] for name in sources or self.sources],
            lambda: assets_of_methods(self.database),
            clock=self.clock,
            interval=timedelta(seconds=INTERVAL),
            max_age=timedelta(seconds=MAX_AGE),
            jitter=lambda: 0.0,
            fetch_limit=fetch_limit,
        )


@pytest.fixture
async def market(database: Database, clock: ManualClock, api: httpx.AsyncClient) -> AsyncIterator[Market]:
    """With a payment method for LTC that only the sources price."""
    await register(api, litecoin(), price_usd=None)
    async with AsyncExitStack() as stack:
        sites = {name: await stack.enter_async_context(a_site()) for name in (COINGECKO, KRAKEN, COINBASE)}
        yield Market(database, clock, sites)


async def listed(api: httpx.AsyncClient, symbol: str = "LTC") -> dict[str, Any]:
    """The token's row of GET /admin/prices."""
    answer = await api.get("/admin/prices", headers=AS_ADMIN)
    assert answer.status_code == 200, answer.text
    return next(dict(row) for row in answer.json()["prices"] if row["token"] == symbol)


async def excluded(api: httpx.AsyncClient, symbol: str = "LTC") -> dict[str, str | None]:
    return {each["source"]: each["excluded"] for each in (await listed(api, symbol))["observations"]}


async def source_state(api: httpx.AsyncClient, source: str) -> dict[str, Any]:
    answer = await api.get("/admin/prices", headers=AS_ADMIN)
    return next(dict(each) for each in answer.json()["sources"] if each["source"] == source)


async def refused(api: httpx.AsyncClient, method: str = "LTC") -> dict[str, Any]:
    """The answer to a charge that has no price, which spends no address."""
    before = await next_index(api, method)
    answer = await api.post("/charges", json={"chain": method, "amountUsd": 25}, headers=AS_PLATFORM)
    document = problem(answer, 503, "price_unavailable")
    assert answer.headers["retry-after"].isdigit()
    assert await next_index(api, method) == before + 1
    return document


# --- a source that has nothing, or nothing of use -----------------------------------------------------------------


async def test_an_asset_that_a_source_has_renamed_is_named_and_has_no_price_once_the_last_one_is_old(
    market: Market, api: httpx.AsyncClient
) -> None:
    market.says(COINGECKO, "100")
    await market.tick(COINGECKO)
    assert (await charge(api))["priceUsd"] == "100"
    assert (await listed(api))["left_out_by"] == []

    market.sites[COINGECKO].answers({"litecoin-2": {"usd": 100, "last_updated_at": int(market.clock().timestamp())}})
    await market.tick(COINGECKO)
    assert (await listed(api))["left_out_by"] == [COINGECKO]
    market.clock.advance(seconds=MAX_AGE)
    assert "no source has answered for LTC in the last 300 s: coingecko 360 s ago" in (await refused(api))["detail"]
    assert (await listed(api))["price_usd"] is None

    market.says(COINGECKO, "101")
    await market.tick(COINGECKO)
    assert (await listed(api))["left_out_by"] == []
    assert (await charge(api))["priceUsd"] == "101"


@pytest.mark.parametrize("status", [403, 451, 500])
async def test_a_source_that_turns_us_away_by_region_fails_alone_and_says_so(
    market: Market, api: httpx.AsyncClient, status: int
) -> None:
    market.says(KRAKEN, "100")
    market.says(COINBASE, "100")
    market.sites[COINGECKO].answers({"error": "not available in your region"}, status=status)
    await market.tick()
    made = await charge(api)
    assert (made["priceUsd"], made["priceSource"]) == ("100", "coinbase+kraken")
    assert str(status) in (await source_state(api, COINGECKO))["last_error"]


async def test_a_source_that_limits_us_is_left_alone_for_as_long_as_it_asks(
    market: Market, api: httpx.AsyncClient
) -> None:
    market.says(KRAKEN, "100")
    market.sites[COINGECKO].answers({}, status=429, headers={"Retry-After": "120"})
    await market.tick()
    for _ in range(3):
        assert COINGECKO not in await market.tick()
    assert len(market.sites[COINGECKO].requests) == 1
    market.says(COINGECKO, "102")
    assert COINGECKO in await market.tick()
    assert (await charge(api))["priceSource"] == "coingecko+kraken"


@pytest.mark.parametrize("price", ["NaN", "-100", "0", "1e13", '"100 USD"', "true", "null", "[100]", '"Infinity"'])
@pytest.mark.parametrize("source", [COINGECKO, KRAKEN, COINBASE])
async def test_what_is_no_price_replaces_none_and_is_never_one(
    market: Market, api: httpx.AsyncClient, source: str, price: str
) -> None:
    market.says(source, "100")
    await market.tick(source)
    at = int(market.clock().timestamp()) + 30
    market.sites[source].answers(
        {
            COINGECKO: f'{{"litecoin": {{"usd": {price}, "last_updated_at": {at}}}}}',
            KRAKEN: f'{{"error": [], "result": {{"XLTCZUSD": {{"a": [{price}], "b": [{price}], "c": [{price}]}}}}}}',
            COINBASE: f'{{"data": {{"currency": "USD", "rates": {{"LTC": {price if price != "1e13" else "1e-13"}}}}}}}',
        }[source].encode()
    )
    await market.tick(source)
    assert (await charge(api))["priceUsd"] == "100"
    market.clock.advance(seconds=MAX_AGE)
    await market.ask(source)
    await refused(api)


@pytest.mark.parametrize(
    "body", [b"<html><body>Just a moment...</body></html>", b"", b"{", b"[]", b'"100"', b"\x00\xff"]
)
@pytest.mark.parametrize("source", [COINGECKO, KRAKEN, COINBASE])
async def test_garbage_is_a_failure_of_that_source_alone(
    market: Market, api: httpx.AsyncClient, source: str, body: bytes
) -> None:
    others = [each for each in (COINGECKO, KRAKEN, COINBASE) if each != source]
    for each in others:
        market.says(each, "100")
    market.sites[source].answers(body)
    await market.tick()
    assert (await charge(api))["priceSource"] == "+".join(sorted(others))
    assert (await source_state(api, source))["last_error"]


async def test_a_source_that_hangs_for_half_a_minute_holds_up_nobody(market: Market, api: httpx.AsyncClient) -> None:
    let_go = asyncio.Event()

    async def hang(_: web.Request) -> web.StreamResponse:
        await let_go.wait()
        return web.json_response({})

    market.sites[KRAKEN].answers_with(hang)
    market.says(COINGECKO, "100")
    market.says(COINBASE, "100")
    hanging = asyncio.create_task(market.ask(KRAKEN))  # the worker runs one such loop for each source
    for price in ("100", "102.4", "104.8576"):
        market.says(COINGECKO, price)
        market.says(COINBASE, price)
        await market.tick(COINGECKO, COINBASE)
        made = await charge(api)
        assert (made["priceUsd"], made["priceSource"]) == (price, "coinbase+coingecko")
    assert not hanging.done()
    let_go.set()
    await hanging


async def test_a_source_that_never_answers_is_given_up_and_named(market: Market, api: httpx.AsyncClient) -> None:
    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(3600)
        return web.Response()

    market.sites[KRAKEN].answers_with(hang)
    market.says(COINGECKO, "100")
    await market.tick(fetch_limit=0.5)
    assert (await charge(api))["priceSource"] == COINGECKO
    assert (await source_state(api, KRAKEN))["last_error"] == "No answer within 0.5 s"


# --- sources that say different things ----------------------------------------------------------------------------


async def test_a_tenfold_outlier_is_left_out_and_named(market: Market, api: httpx.AsyncClient) -> None:
    for source, price in {COINGECKO: "1000", KRAKEN: "102", COINBASE: "100"}.items():
        market.says(source, price)
    await market.tick()
    made = await charge(api)
    assert (made["priceUsd"], made["priceSource"]) == ("101", "coinbase+kraken")
    assert await excluded(api) == {COINBASE: None, COINGECKO: "outlier", KRAKEN: None}


async def test_two_sources_that_disagree_leave_no_price_since_none_can_decide(
    market: Market, api: httpx.AsyncClient
) -> None:
    market.says(KRAKEN, "100")
    market.says(COINBASE, "1000")
    await market.tick()
    assert "differ by more than 5" in (await refused(api))["detail"]
    assert await excluded(api) == {COINBASE: "disputed", KRAKEN: "disputed"}


# --- a source that stands still -----------------------------------------------------------------------------------


async def test_a_frozen_source_whose_time_stands_still_too_is_stale(market: Market, api: httpx.AsyncClient) -> None:
    market.says(COINGECKO, "100")
    for _ in range(11):
        market.says(KRAKEN, "103")
        await market.tick()
    assert await excluded(api) == {COINGECKO: "stale", KRAKEN: None}
    assert (await charge(api))["priceUsd"] == "103"


async def stand_still(market: Market, still: Sequence[str], moving: Sequence[str], *, to: str) -> None:
    """Half an hour in which some repeat their first answer with fresh times, and others arrive at another price."""
    for source in (*still, *moving):
        market.says(source, "100")
    await market.tick()
    market.clock.advance(seconds=FROZEN_AFTER)
    for source in still:
        market.says(source, "100")
    for source in moving:
        market.says(source, to)
    await market.tick()


@pytest.mark.parametrize("frozen", [COINGECKO, KRAKEN, COINBASE])
async def test_a_frozen_source_without_an_old_time_is_left_out_when_the_others_went_elsewhere(
    market: Market, api: httpx.AsyncClient, frozen: str
) -> None:
    moving = [each for each in (COINGECKO, KRAKEN, COINBASE) if each != frozen]
    await stand_still(market, [frozen], moving, to=MOVED)
    assert await excluded(api) == {each: "frozen" if each == frozen else None for each in (COINBASE, COINGECKO, KRAKEN)}
    made = await charge(api)
    assert (made["priceUsd"], made["priceSource"]) == (MOVED, "+".join(sorted(moving)))

    market.says(frozen, "103.1")
    await market.tick()
    assert (await excluded(api))[frozen] is None


async def test_of_two_sources_the_one_that_moves_is_believed_within_the_deviation(
    market: Market, api: httpx.AsyncClient
) -> None:
    await stand_still(market, [KRAKEN], [COINBASE], to="103")
    assert (await charge(api))["priceSource"] == COINBASE


async def test_a_wild_source_does_not_unseat_one_that_stands_still(market: Market, api: httpx.AsyncClient) -> None:
    await stand_still(market, [KRAKEN], [COINBASE], to="1000")
    await refused(api)


async def test_sources_that_stand_still_together_are_not_frozen_by_one_that_moves(
    market: Market, api: httpx.AsyncClient
) -> None:
    await stand_still(market, [KRAKEN, COINGECKO], [COINBASE], to="103")
    assert set((await excluded(api)).values()) == {None}
    assert (await charge(api))["priceUsd"] == "100"


async def test_standing_still_where_the_market_is_is_no_fault(market: Market, api: httpx.AsyncClient) -> None:
    await stand_still(market, [KRAKEN], [COINBASE, COINGECKO], to="100.5")
    assert set((await excluded(api)).values()) == {None}
    assert (await charge(api))["priceSource"] == "coinbase+coingecko+kraken"


# --- stablecoins --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("market_price", "used", "source"), [("0.93", "0.93", "coingecko+kraken"), ("0.99", "1", "par")]
)
async def test_a_stablecoin_is_at_par_inside_its_band_and_at_the_market_off_its_peg(
    market: Market, api: httpx.AsyncClient, market_price: str, used: str, source: str
) -> None:
    usdt = ether(
        id="USDT", token="USDT", type="stablecoin", decimals=6, contract="0xdAC17F958D2ee523a2206206994597C13D831ec7"
    )
    await register(api, usdt, price_usd=None)
    market.says(COINGECKO, market_price, symbol="USDT")
    market.says(KRAKEN, market_price, symbol="USDT")
    await market.tick()
    made = await charge(api, "USDT", 25)
    assert (made["priceUsd"], made["priceSource"]) == (used, source)
    assert int(made["expectedAmount"]) == {"1": 25_000_000, "0.93": 26_881_721}[used]


# --- which price was used, and why --------------------------------------------------------------------------------


async def test_metrics_show_the_price_used_and_by_which_rule_others_are_not(
    market: Market, api: httpx.AsyncClient
) -> None:
    for source, price in {COINGECKO: "1000", KRAKEN: "102", COINBASE: "100"}.items():
        market.says(source, price)
    await market.tick()
    lines = (await api.get("/metrics")).text.splitlines()
    assert [
        line for line in lines if line.startswith(("keyserver_price_u", "keyserver_price_e")) and "LTC" in line
    ] == [
        'keyserver_price_usd{token="LTC"} 101.0',
        'keyserver_price_used{source="coinbase",token="LTC"} 1.0',
        'keyserver_price_used{source="coingecko",token="LTC"} 0.0',
        'keyserver_price_used{source="kraken",token="LTC"} 1.0',
        'keyserver_price_excluded{rule="outlier",source="coingecko",token="LTC"} 1.0',
    ]


async def test_a_charge_says_at_which_price_it_was_made_and_goes_on_saying_it(
    market: Market, api: httpx.AsyncClient
) -> None:
    market.says(KRAKEN, "80")
    await market.tick()
    made = await charge(api)
    market.says(KRAKEN, "90")
    await market.tick()
    found = (await api.get(f"/charges/{made['chargeId']}", headers=AS_PLATFORM)).json()
    for document in (made, found):
        assert (document["priceUsd"], document["priceSource"]) == ("80", KRAKEN)
        assert document["pricedAt"] == "2026-03-01T12:00:30.000Z"


async def test_a_pin_says_that_it_is_one_and_keeps_the_sources_out(market: Market, api: httpx.AsyncClient) -> None:
    market.says(KRAKEN, "80")
    await market.tick()
    await api.put("/admin/prices/LTC", json={"price_usd": "75"}, headers=AS_ADMIN)
    made = await charge(api)
    assert (made["priceUsd"], made["priceSource"]) == ("75", "manual")
    assert await excluded(api) == {KRAKEN: "pinned"}
