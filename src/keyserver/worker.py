"""Composition root of the background work: chains, webhooks, prices, expiry, and checking the books."""

import asyncio
import random
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import assert_never

import structlog

from keyserver.access.idempotency import forget_old_answers
from keyserver.addresses.lookahead import fill_all
from keyserver.assembly import open_database, price_policy
from keyserver.chains.catalog import ChainSpec, Family, chain_spec
from keyserver.charges.expiry import BATCH, expire_due
from keyserver.charges.waiting import credit_waiting
from keyserver.demo.chain import SimulatedChain
from keyserver.gateway.credit_events import tell_crossings
from keyserver.kit import metrics
from keyserver.kit.clock import Clock, utc_now
from keyserver.kit.db import Database
from keyserver.kit.egress import EgressPolicy, guarded_session
from keyserver.kit.secrets import MasterKey
from keyserver.kit.supervise import pause, repeat
from keyserver.ledger import holds
from keyserver.ledger.balances import discrepancies, held_discrepancies, trial_balance
from keyserver.pricing.ports import PriceSource
from keyserver.pricing.refresher import assets_of_methods, refresh_due
from keyserver.pricing.service import PriceBook
from keyserver.pricing.sources.chainlink import Chainlink
from keyserver.pricing.sources.coinbase import Coinbase
from keyserver.pricing.sources.coingecko import CoinGecko
from keyserver.pricing.sources.kraken import Kraken
from keyserver.settings import Settings
from keyserver.watching.bitcoind import BitcoindSource
from keyserver.watching.evm import EvmSource
from keyserver.watching.jobs import forget_old_jobs, plan_nightly
from keyserver.watching.oracles import OracleFeeds
from keyserver.watching.ports import ChainSource
from keyserver.watching.runner import JobRunner
from keyserver.watching.several import several_nodes
from keyserver.watching.targets import NodeAddress, Target
from keyserver.watching.tron import TronSource
from keyserver.watching.watcher import Watcher
from keyserver.webhooks.dispatcher import Dispatcher
from keyserver.webhooks.secrets import TenantSecrets

#: A new script type on a ring that has handed out millions takes longer: blocks do not wait for that.
LONGEST_FIRST_FILL = 60.0
_log = structlog.get_logger("keyserver.worker")


class UnknownPriceSource(ValueError):
    pass


async def work(
    settings: Settings, *, database_url: str, master: MasterKey, stop: asyncio.Event, clock: Clock = utc_now
) -> None:
    """Everything that goes on without a request, until `stop`; then what is in flight is finished or released."""
    database = open_database(settings, database_url)
    told = asyncio.Event()
    looking_ahead = asyncio.Event()
    market = PriceBook(database, policy=price_policy(settings))
    oracles = OracleFeeds(database, master)
    sources = price_sources(settings, clock=clock)
    timeout = settings.webhook_timeout_seconds
    receivers = guarded_session(EgressPolicy(settings.webhook_allow), timeout=timeout)
    dispatcher = Dispatcher(
        database,
        receivers,
        TenantSecrets(master),
        clock=clock,
        timeout=timeout,
        grace=settings.shutdown_seconds / 2,
    )
    watcher = Watcher(
        database,
        lambda target: make_source(target, database, clock=clock, reporting=True),
        market=market,
        master=master,
        clock=clock,
        poll_seconds=settings.poll_seconds,
        told=told.set,
    )
    runner = JobRunner(
        database,
        lambda target: make_source(target, database, clock=clock),
        market=market,
        master=master,
        clock=clock,
        told=told.set,
    )
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_watch(watcher, looking_ahead, stop))
            group.create_task(runner.run(stop))
            if settings.audit_seconds:
                every = timedelta(seconds=settings.audit_seconds)
                group.create_task(
                    repeat("nightly audit", lambda: _plan_audits(database, clock, every), every=10.0, stop=stop)
                )
            group.create_task(dispatcher.run(stop, told))
            group.create_task(repeat("expiry", lambda: _expire(database, clock, told), every=1.0, stop=stop))
            group.create_task(repeat("expiry of holds", lambda: _expire_holds(database, clock), every=1.0, stop=stop))
            group.create_task(
                repeat("credit events", lambda: _tell_crossings(database, settings, clock, told), every=1.0, stop=stop)
            )
            group.create_task(repeat("credit", lambda: _credit(database, market, clock, told), every=5.0, stop=stop))
            group.create_task(
                repeat("look-ahead", lambda: _look_ahead(database, settings, looking_ahead), every=1.0, stop=stop)
            )
            group.create_task(
                repeat("ledger check", lambda: _check_books(database), every=settings.ledger_check_seconds, stop=stop)
            )
            group.create_task(repeat("tidy", lambda: _tidy(database, clock), every=600.0, stop=stop))
            for source in (*sources, Chainlink(oracles.feeds)):
                group.create_task(
                    repeat(
                        f"prices {source.name}",
                        lambda source=source: _refresh(database, source, settings, clock),  # type: ignore[misc]
                        every=1.0,
                        stop=stop,
                    )
                )
    finally:
        await receivers.close()
        await oracles.close()
        await database.dispose()


def make_source(target: Target, database: Database, *, clock: Clock = utc_now, reporting: bool = False) -> ChainSource:
    """The adapters for a blockchain's family, one for each of its nodes, as one; `reporting` how the nodes are."""
    spec = chain_spec(target.chain, target.network, type=target.type)
    if spec.simulated:
        return SimulatedChain(database, target.blockchain_id)
    return several_nodes(target, partial(_node, target, spec), database=database, clock=clock, reporting=reporting)


def _node(target: Target, spec: ChainSpec, address: NodeAddress) -> ChainSource:
    url, headers = address.url, dict(address.headers)
    match spec.family:
        case Family.UTXO:
            return BitcoindSource(
                url,
                network=spec.network,
                genesis_hash=spec.node_identity,
                coinbase_maturity=spec.coinbase_maturity,
                headers=headers,
            )
        case Family.EVM:
            chain_id = int(spec.node_identity) if spec.node_identity else None
            return EvmSource(url, chain_id=chain_id, headers=headers)
        case Family.TRON:
            assert spec.node_identity is not None, "every network of Tron has its chain id"
            return TronSource(url, chain_id=int(spec.node_identity), offers_coin=target.offers_coin, headers=headers)
        case _:
            assert_never(spec.family)


def price_sources(settings: Settings, *, clock: Clock) -> list[PriceSource]:
    key = settings.coingecko_api_key.get_secret_value() if settings.coingecko_api_key else None
    makers: dict[str, Callable[[], PriceSource]] = {
        "coingecko": lambda: CoinGecko(clock=clock, api_key=key),
        "kraken": lambda: Kraken(clock=clock),
        "coinbase": lambda: Coinbase(clock=clock),
    }
    unknown = [name for name in settings.price_sources if name not in makers]
    if unknown:
        raise UnknownPriceSource(f"KEYSERVER_PRICE_SOURCES names {', '.join(unknown)}; known are {', '.join(makers)}")
    return [makers[name]() for name in settings.price_sources]


async def _watch(watcher: Watcher, looking_ahead: asyncio.Event, stop: asyncio.Event) -> None:
    """Blocks are read once every window is filled: what was stepped over after a restore is paid in the first ones."""
    await pause(LONGEST_FIRST_FILL, stop=stop, wake=looking_ahead)
    await watcher.run(stop)


async def _look_ahead(database: Database, settings: Settings, looking_ahead: asyncio.Event) -> None:
    if await fill_all(database, ahead=settings.lookahead):
        looking_ahead.set()


async def _expire(database: Database, clock: Clock, told: asyncio.Event) -> None:
    while (done := await expire_due(database, clock=clock)) > 0:
        told.set()
        if done < BATCH:
            return


async def _expire_holds(database: Database, clock: Clock) -> None:
    done = holds.BATCH
    while done == holds.BATCH:
        async with database.connection() as connection:
            done = await holds.expire_due(connection, now=clock())


async def _tell_crossings(database: Database, settings: Settings, clock: Clock, told: asyncio.Event) -> None:
    async with database.transaction() as session:
        crossed = await tell_crossings(session, top_up_url=settings.top_up_url, now=clock())
    if crossed:
        told.set()


async def _credit(database: Database, market: PriceBook, clock: Clock, told: asyncio.Event) -> None:
    if await credit_waiting(database, market=market, now=clock):
        told.set()


async def _check_books(database: Database) -> None:
    async with database.transaction() as session:
        wrong = await discrepancies(session)
        held = await held_discrepancies(session)
        difference = (await trial_balance(session)).difference_nanos
    metrics.LEDGER_DISCREPANCIES.set(len(wrong) + len(held) + (difference != 0))
    if wrong or held or difference:
        _log.error(
            "books_disagree",
            difference_nanos=difference,
            accounts=[f"{each.account_code}/{each.stripe}" for each in wrong[:20]],
            held=[each.account_code for each in held[:20]],
        )


async def _plan_audits(database: Database, clock: Clock, every: timedelta) -> None:
    async with database.transaction() as session:
        await plan_nightly(session, every=every, now=clock())


async def _tidy(database: Database, clock: Clock) -> None:
    async with database.transaction() as session:
        await forget_old_answers(session, now=clock())
        await forget_old_jobs(session, now=clock())


async def _refresh(database: Database, source: PriceSource, settings: Settings, clock: Clock) -> None:
    await refresh_due(
        database,
        [source],
        lambda: assets_of_methods(database),
        clock=clock,
        interval=timedelta(seconds=settings.price_seconds),
        max_age=timedelta(seconds=settings.price_max_age_seconds),
        jitter=random.random,
    )
