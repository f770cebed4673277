"""The price book: what is stored, decided on, pinned and listed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from keyserver.kit.db import Connection, Database
from keyserver.kit.metrics import render
from keyserver.pricing.consensus import Policy
from keyserver.pricing.errors import PinNotFound, PriceUnavailable
from keyserver.pricing.listing import database_gauges, listed_price, listing
from keyserver.pricing.models import PriceObservation
from keyserver.pricing.service import PriceBook, pin, unpin

NOW = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)
AddMethod = Callable[..., Awaitable[None]]
POLICY = Policy(max_age=timedelta(seconds=300), max_deviation=Decimal("0.05"), stablecoin_band=Decimal("0.02"))


class HandClock:
    """Monotonic seconds, turned by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


async def observe(database: Database, token: str, source: str, price: str, *, age: int = 10) -> None:
    async with database.transaction() as session:
        await session.merge(
            PriceObservation(
                token=token, source=source, price_usd=Decimal(price), observed_at=NOW - timedelta(seconds=age)
            )
        )


async def set_pin(database: Database, token: str, price: str) -> None:
    async with database.transaction() as session:
        await pin(session, token=token, price_usd=Decimal(price), now=NOW)


def book(database: Database, *, monotonic: HandClock | None = None) -> PriceBook:
    return PriceBook(database, policy=POLICY, monotonic=monotonic or HandClock())


async def usd(prices: PriceBook, symbol: str = "LTC", *, stablecoin: bool = False) -> Decimal:
    return (await prices.price(symbol, stablecoin=stablecoin, now=NOW)).price_usd


async def test_the_price_is_decided_from_all_that_the_sources_said(database: Database) -> None:
    await observe(database, "LTC", "kraken", "80.123456789012345678")
    await observe(database, "LTC", "coinbase", "80.123456789012345680")
    await observe(database, "LTC", "coingecko", "3")
    await observe(database, "BTC", "kraken", "100000")
    price = await book(database).price("ltc", stablecoin=False, now=NOW)
    assert (price.price_usd, price.source) == (Decimal("80.123456789012345679"), "coinbase+kraken")
    assert price.observed_at == NOW - timedelta(seconds=10)


async def test_without_a_usable_price_the_answer_is_503_with_a_code_and_a_reason(database: Database) -> None:
    await observe(database, "LTC", "kraken", "80", age=812)
    with pytest.raises(PriceUnavailable) as raised:
        await book(database).price("LTC", stablecoin=False, now=NOW)
    problem = raised.value
    assert (problem.status, problem.code, problem.headers) == (503, "price_unavailable", {"retry-after": "10"})
    assert problem.error == "No usable price: no source has answered for LTC in the last 300 s: kraken 812 s ago"
    assert problem.document()["token"] == "LTC"


async def test_a_stablecoin_is_at_par_only_when_it_was_seen(database: Database) -> None:
    prices = book(database)
    with pytest.raises(PriceUnavailable):
        await usd(prices, "USDC", stablecoin=True)
    await observe(database, "USDC", "kraken", "0.9991")
    assert await usd(book(database), "USDC", stablecoin=True) == 1


async def test_a_change_is_seen_when_the_snapshot_has_reached_its_age(database: Database) -> None:
    monotonic = HandClock()
    prices = book(database, monotonic=monotonic)
    await observe(database, "LTC", "kraken", "80")
    assert await usd(prices) == 80
    await observe(database, "LTC", "kraken", "81")
    monotonic.seconds += 0.19
    assert await usd(prices) == 80
    monotonic.seconds += 0.02
    assert await usd(prices) == 81


async def test_a_hundred_misses_at_once_are_one_query(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await observe(database, "LTC", "kraken", "80")
    prices = book(database)
    opened: list[Connection] = []

    @asynccontextmanager
    async def counted() -> AsyncIterator[Connection]:
        async with Database.connection(database) as connection:
            opened.append(connection)
            yield connection

    monkeypatch.setattr(database, "connection", counted)
    assert await asyncio.gather(*(usd(prices) for _ in range(100))) == [80] * 100
    assert len(opened) == 1


async def test_inside_a_transaction_the_price_is_read_at_that_moment(database: Database) -> None:
    prices = book(database)
    await observe(database, "LTC", "kraken", "80")
    assert await usd(prices) == 80
    async with database.transaction() as session:
        await pin(session, token="ltc", price_usd=Decimal(5), now=NOW)
        assert (await prices.price_in(session, "ltc", stablecoin=False, now=NOW)).price_usd == 5
        with pytest.raises(PriceUnavailable):
            await prices.price_in(session, "BTC", stablecoin=False, now=NOW)


async def test_a_pin_holds_until_it_is_taken_away(database: Database) -> None:
    await observe(database, "LTC", "kraken", "80")
    await set_pin(database, "ltc", "70")
    await set_pin(database, "LTC", "71.5")
    price = await book(database).price("LTC", stablecoin=False, now=NOW + timedelta(days=30))
    assert (price.price_usd, price.source, price.observed_at) == (Decimal("71.5"), "manual", NOW)
    async with database.transaction() as session:
        await unpin(session, token="Ltc")
    assert await usd(book(database)) == 80
    with pytest.raises(PinNotFound):
        async with database.transaction() as session:
            await unpin(session, token="LTC")


async def test_the_listing_shows_what_was_decided_from_what(database: Database) -> None:
    await observe(database, "LTC", "kraken", "80", age=20)
    await observe(database, "LTC", "coinbase", "81", age=812)
    async with database.transaction() as session:
        (row,) = await listing(session, policy=POLICY, now=NOW)
    assert (row.token, row.price_usd, row.source, row.age_seconds) == ("LTC", Decimal(80), "kraken", 20)
    assert (row.usable, row.pinned, row.reason) == (True, False, None)
    assert [(seen.source, seen.age_seconds) for seen in row.observations] == [("coinbase", 812), ("kraken", 20)]


async def test_the_listing_names_tokens_that_can_be_paid_but_have_no_price(
    database: Database, add_method: AddMethod
) -> None:
    await add_method("Doge")
    await set_pin(database, "BTC", "100000")
    async with database.transaction() as session:
        rows = await listing(session, policy=POLICY, now=NOW)
    assert [(row.token, row.usable, row.pinned) for row in rows] == [("BTC", True, True), ("DOGE", False, False)]
    assert (rows[1].price_usd, rows[1].reason) == (None, "no source has ever answered for DOGE")


async def test_a_token_is_listed_at_par_only_when_a_payment_method_calls_it_a_stablecoin(
    database: Database, add_method: Callable[..., Awaitable[None]]
) -> None:
    await add_method("USDT", type="erc20")
    await observe(database, "USDT", "kraken", "0.9991")
    async with database.transaction() as session:
        assert (await listed_price(session, token="USDT", policy=POLICY, now=NOW)).price_usd == Decimal("0.9991")
    await add_method("USDT", type="stablecoin")
    async with database.transaction() as session:
        assert (await listed_price(session, token="USDT", policy=POLICY, now=NOW)).price_usd == 1


async def test_one_row_of_the_listing_is_the_same_as_in_the_whole(
    database: Database, add_method: Callable[..., Awaitable[None]]
) -> None:
    await add_method("USDT", type="stablecoin")
    await observe(database, "USDT", "kraken", "0.9991")
    await set_pin(database, "BTC", "100000")
    async with database.transaction() as session:
        whole = await listing(session, policy=POLICY, now=NOW)
        assert [await listed_price(session, token=token, policy=POLICY, now=NOW) for token in ("btc", "usdt")] == whole
    assert whole[1].price_usd == 1


async def test_metrics_tell_the_age_of_every_price_by_token_and_source(database: Database) -> None:
    await observe(database, "LTC", "kraken", "80", age=20)
    await observe(database, "LTC", "coinbase", "80", age=-30)
    await set_pin(database, "BTC", "100000")
    async with database.transaction() as session:
        gauges = await database_gauges(session, policy=POLICY, now=NOW)
    lines = render(database_gauges=gauges).decode().splitlines()
    assert [line for line in lines if line.startswith("keyserver_price_age_seconds{")] == [
        'keyserver_price_age_seconds{source="manual",token="BTC"} 0.0',
        'keyserver_price_age_seconds{source="coinbase",token="LTC"} 0.0',
        'keyserver_price_age_seconds{source="kraken",token="LTC"} 20.0',
    ]
