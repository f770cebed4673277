"""Asking the sources: once a tick for all processes together, none in the way of another, nothing newer lost."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from keyserver.chains.catalog import chain_spec
from keyserver.chains.models import Blockchain
from keyserver.kit.db import Database
from keyserver.pricing.ports import Asset, Observation, SourceFailed
from keyserver.pricing.refresher import assets_of_methods, record_observations, refresh_due

NOW = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)
LTC = Asset("LTC")

AddMethod = Callable[..., Awaitable[None]]


@dataclass
class Clock:
    """Turned by hand."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now

    def turn(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class Source:
    """A price source that does what it is told, and remembers what it was asked."""

    clock: Clock
    name: str = "kraken"
    price: str = "80"
    failure: Exception | None = None
    released: asyncio.Event | None = None
    during: Callable[[], None] | None = None
    asked: list[list[Asset]] = field(default_factory=list)

    async def fetch(self, assets: Sequence[Asset]) -> Mapping[str, Observation]:
        self.asked.append(list(assets))
        observed_at = self.clock()
        if self.released is not None:
            await self.released.wait()
        if self.during is not None:
            self.during()
        if self.failure is not None:
            raise self.failure
        return {asset.token: Observation(asset.token, Decimal(self.price), observed_at) for asset in assets}


async def refresh(
    database: Database,
    *sources: Source,
    clock: Clock,
    assets: Sequence[Asset] = (LTC,),
    max_age: float = 300,
    fetch_limit: float = 5,
) -> list[str]:
    async def wanted() -> Sequence[Asset]:
        return assets

    return await refresh_due(
        database,
        sources,
        wanted,
        clock=clock,
        interval=timedelta(seconds=30),
        max_age=timedelta(seconds=max_age),
        jitter=lambda: 0.0,
        fetch_limit=fetch_limit,
    )


async def rows(database: Database, query: str) -> list[Any]:
    async with database.connection() as connection:
        return [tuple(row) for row in await connection.fetch(query)]


async def stored(database: Database) -> dict[tuple[str, str], Decimal]:
    found = await rows(database, "SELECT token, source, price_usd FROM price_observations")
    return {(token, source): price for token, source, price in found}


async def next_fetch_in(database: Database, clock: Clock, source: str = "kraken") -> float:
    ((at,),) = await rows(database, f"SELECT next_fetch_at FROM price_sources WHERE source = '{source}'")
    return float((at - clock()).total_seconds())


async def test_every_due_source_is_asked_once_for_all_assets_and_its_prices_are_stored(database: Database) -> None:
    clock = Clock()
    sources = [Source(clock, name="kraken", price="80"), Source(clock, name="coinbase", price="81")]
    assert await refresh(database, *sources, clock=clock, assets=[LTC, Asset("BTC")]) == ["coinbase", "kraken"]
    assert [source.asked for source in sources] == [[[LTC, Asset("BTC")]]] * 2
    assert await stored(database) == {
        ("LTC", "kraken"): 80,
        ("BTC", "kraken"): 80,
        ("LTC", "coinbase"): 81,
        ("BTC", "coinbase"): 81,
    }
    assert await rows(database, "SELECT DISTINCT last_success_at, last_error FROM price_sources") == [(NOW, None)]


async def test_a_source_is_asked_again_only_when_its_next_tick_has_come(database: Database) -> None:
    clock = Clock()
    source = Source(clock)
    await refresh(database, source, clock=clock)
    clock.turn(29.9)
    assert await refresh(database, source, clock=clock) == []
    clock.turn(0.1)
    assert await refresh(database, source, clock=clock) == ["kraken"]
    assert len(source.asked) == 2


async def test_many_processes_ask_a_source_once_a_tick_together(database: Database) -> None:
    clock = Clock()
    sources = [Source(clock) for _ in range(8)]
    for _ in range(3):
        claims = await asyncio.gather(*(refresh(database, source, clock=clock) for source in sources))
        assert sorted(claims) == [[]] * 7 + [["kraken"]]
        clock.turn(30)
    assert sum(len(source.asked) for source in sources) == 3


async def test_a_tick_that_another_process_is_claiming_is_left_to_it(database: Database) -> None:
    clock = Clock()
    source = Source(clock)
    await refresh(database, source, clock=clock)
    clock.turn(30)
    async with database.transaction() as session, asyncio.timeout(5):
        await session.execute(text("UPDATE price_sources SET next_fetch_at = next_fetch_at"))
        assert await refresh(database, source, clock=clock) == []
    assert await refresh(database, source, clock=clock) == ["kraken"]


async def test_a_slow_source_holds_back_neither_the_others_nor_a_connection(database: Database) -> None:
    clock = Clock()
    slow = Source(clock, name="coingecko", released=asyncio.Event())
    fast = Source(clock, name="kraken")
    running = asyncio.create_task(refresh(database, slow, fast, clock=clock))

    async with asyncio.timeout(5):
        while not await stored(database):  # noqa: ASYNC110 - a table has no event to wait for
            await asyncio.sleep(0.01)
    assert set(await stored(database)) == {("LTC", "kraken")}
    assert not running.done()
    in_transaction = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
    )
    assert await rows(database, in_transaction) == [(0,)]
    assert slow.released is not None
    slow.released.set()
    assert await running == ["coingecko", "kraken"]


async def test_a_source_that_never_answers_is_given_up(database: Database) -> None:
    clock = Clock()
    await refresh(database, Source(clock, released=asyncio.Event()), clock=clock, fetch_limit=0.05)
    assert await rows(database, "SELECT last_error FROM price_sources") == [("No answer within 0.05 s",)]


async def test_a_failure_is_recorded_and_leaves_the_last_prices_alone(database: Database) -> None:
    clock = Clock()
    source = Source(clock)
    await refresh(database, source, clock=clock)
    clock.turn(30)
    source.failure = SourceFailed("Kraken answered 503 Service Unavailable")
    await refresh(database, source, clock=clock)
    assert await stored(database) == {("LTC", "kraken"): 80}
    query = "SELECT last_success_at, last_error, last_error_at FROM price_sources"
    assert await rows(database, query) == [(NOW, "Kraken answered 503 Service Unavailable", clock())]


async def test_failures_in_a_row_wait_twice_as_long_and_a_success_ends_the_row(database: Database) -> None:
    clock = Clock()
    source = Source(clock, failure=SourceFailed("down"))
    waits = []
    for _ in range(5):
        await refresh(database, source, clock=clock)
        waits.append(await next_fetch_in(database, clock))
        clock.turn(waits[-1])
    assert waits == [60, 120, 240, 300, 300]
    source.failure = None
    await refresh(database, source, clock=clock)
    assert await next_fetch_in(database, clock) == 30
    clock.turn(30)
    source.failure = SourceFailed("down again")
    await refresh(database, source, clock=clock)
    assert await next_fetch_in(database, clock) == 60


async def test_the_wait_counts_from_the_end_of_a_slow_failure(database: Database) -> None:
    clock = Clock()
    source = Source(clock, failure=SourceFailed("down"), during=lambda: clock.turn(10))
    await refresh(database, source, clock=clock)
    assert await next_fetch_in(database, clock) == 60


async def test_a_source_is_left_alone_for_as_long_as_it_asks(database: Database) -> None:
    clock = Clock()
    source = Source(clock, failure=SourceFailed("429", retry_after=720))
    await refresh(database, source, clock=clock)
    assert await next_fetch_in(database, clock) == 720


async def test_a_source_with_a_mistake_in_it_fails_alone(database: Database) -> None:
    clock = Clock()
    broken = Source(clock, name="coingecko", failure=KeyError("usd"))
    await refresh(database, broken, Source(clock), clock=clock)
    assert await stored(database) == {("LTC", "kraken"): 80}
    query = "SELECT last_error FROM price_sources WHERE source = 'coingecko'"
    assert await rows(database, query) == [("The answer could not be read (KeyError)",)]


async def test_what_the_database_refuses_of_one_source_is_raised_after_the_others_are_stored(
    database: Database,
) -> None:
    clock = Clock()
    impossible = Source(clock, name="coinbase", price="-1")
    slow = Source(clock, released=asyncio.Event())
    assert slow.released is not None
    asyncio.get_running_loop().call_later(0.1, slow.released.set)
    with pytest.raises(IntegrityError):
        await refresh(database, impossible, slow, clock=clock)
    assert await stored(database) == {("LTC", "kraken"): 80}


async def test_without_assets_no_tick_is_used_up(database: Database) -> None:
    clock = Clock()
    source = Source(clock)
    assert await refresh(database, source, clock=clock, assets=[]) == []
    assert await refresh(database, source, clock=clock) == ["kraken"]


async def test_what_was_not_asked_for_is_not_stored(database: Database) -> None:
    clock = Clock()

    class Talkative(Source):
        async def fetch(self, assets: Sequence[Asset]) -> Mapping[str, Observation]:
            return await super().fetch([*assets, Asset("SCAM")])

    await refresh(database, Talkative(clock), clock=clock)
    assert set(await stored(database)) == {("LTC", "kraken")}


def fetches(outcome: str) -> float:
    labels = {"source": "counted", "outcome": outcome}
    return REGISTRY.get_sample_value("keyserver_price_fetches_total", labels) or 0.0


async def test_fetches_are_counted_by_outcome(database: Database) -> None:
    clock = Clock()
    source = Source(clock, name="counted")
    before = (fetches("success"), fetches("failure"))
    await refresh(database, source, clock=clock)
    clock.turn(30)
    source.failure = SourceFailed("down")
    await refresh(database, source, clock=clock)
    assert (fetches("success"), fetches("failure")) == (before[0] + 1, before[1] + 1)


# --- observations -----------------------------------------------------------------------------------------------


async def record(database: Database, price: str, *, age: float, now: datetime = NOW) -> None:
    observation = Observation("LTC", Decimal(price), NOW - timedelta(seconds=age))
    async with database.transaction() as session:
        await record_observations(session, source="kraken", observations={"LTC": observation}, now=now)


async def test_an_older_observation_never_replaces_a_newer_one(database: Database) -> None:
    await record(database, "80", age=10)
    await record(database, "70", age=11)
    assert await stored(database) == {("LTC", "kraken"): 80}
    await record(database, "81", age=10)
    await record(database, "82", age=9)
    assert await stored(database) == {("LTC", "kraken"): 82}


async def test_an_observation_from_the_future_is_left_out(database: Database) -> None:
    await record(database, "80", age=-61)
    assert await stored(database) == {}
    await record(database, "80", age=-60)
    await record(database, "79", age=-59)
    assert await stored(database) == {("LTC", "kraken"): 80}


async def test_an_instant_stored_by_a_clock_that_ran_ahead_gives_way(database: Database) -> None:
    await record(database, "80", age=-3600, now=NOW + timedelta(hours=1))
    await record(database, "81", age=10)
    assert await stored(database) == {("LTC", "kraken"): 81}


# --- assets -----------------------------------------------------------------------------------------------------


async def test_each_token_of_the_payment_methods_is_one_asset(database: Database, add_method: AddMethod) -> None:
    await add_method("eth")
    await add_method("ETH")
    await add_method("OLD", enabled=False)
    assert await assets_of_methods(database) == [Asset("ETH"), Asset("OLD")]


@pytest.mark.parametrize("reverse", [False, True])
async def test_the_oracle_id_of_an_enabled_method_counts_before_a_disabled_one_s(
    database: Database, add_method: AddMethod, reverse: bool
) -> None:
    methods = [("wrong", False), (None, True), ("right", True)]
    for oracle_id, enabled in methods[::-1] if reverse else methods:
        await add_method("UNI", oracle_id=oracle_id, enabled=enabled)
    assert await assets_of_methods(database) == [Asset("UNI", oracle_asset_id="right")]


@pytest.mark.parametrize(
    ("chain", "network", "coins"),
    [
        ("ethereum", "mainnet", ["ETH"]),
        ("litecoin", "regtest", ["LTC"]),
        ("gnosis", "mainnet", []),
        ("tron", "mainnet", ["TRX"]),
        ("simulated-evm", "demo", []),
        ("simulated-utxo", "demo", []),
    ],
)
async def test_a_blockchains_own_coin_is_asked_for_when_the_market_knows_it_and_it_can_be_paid(
    database: Database, add_method: AddMethod, chain: str, network: str, coins: list[str]
) -> None:
    family = chain_spec(chain, network, type="evm").family
    async with database.transaction() as session:
        session.add(Blockchain(id="own", chain=chain, network=network, family=family))
    assert await assets_of_methods(database) == []
    await add_method("USDC", enabled=False, blockchain_id="own")
    assert await assets_of_methods(database) == [*map(Asset, coins), Asset("USDC")]


async def test_a_coin_that_is_a_payment_methods_token_too_is_asked_for_once_as_the_method_says(
    database: Database, add_method: AddMethod
) -> None:
    async with database.transaction() as session:
        session.add(Blockchain(id="own", chain="ethereum", network="mainnet", family="evm"))
    await add_method("eth", oracle_id="ethereum", blockchain_id="own")
    assert await assets_of_methods(database) == [Asset("ETH", oracle_asset_id="ethereum")]
