"""What both composition roots make of the settings."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import structlog

from keyserver.access.master_key import load_master_key
from keyserver.addresses.selftest import self_test
from keyserver.demo.setup import set_up
from keyserver.gateway.estimate import EstimatePolicy
from keyserver.gateway.upstreams import CONFIGURED, Upstream
from keyserver.kit import embedded
from keyserver.kit.clock import utc_now
from keyserver.kit.db import Database, is_unavailable
from keyserver.kit.migrations import migrate
from keyserver.kit.money import NANOS_PER_USD
from keyserver.kit.secrets import MasterKey
from keyserver.pricing.consensus import Policy
from keyserver.pricing.sources.chainlink import NAME as CHAINLINK
from keyserver.settings import Settings

_log = structlog.get_logger("keyserver.start")


def open_database(settings: Settings, url: str) -> Database:
    return Database(
        url,
        pool_size=settings.database_pool,
        statement_timeout=settings.database_timeout_seconds,
        prepared_statements=settings.database_prepared_statements,
    )


def price_policy(settings: Settings) -> Policy:
    return Policy(
        max_age=timedelta(seconds=settings.price_max_age_seconds),
        max_deviation=Decimal(str(settings.price_max_deviation)),
        stablecoin_band=Decimal(str(settings.stablecoin_band)),
        frozen_after=timedelta(seconds=settings.price_frozen_seconds),
        max_age_of={CHAINLINK: timedelta(seconds=settings.price_chainlink_max_age_seconds)},
    )


def estimate_policy(settings: Settings) -> EstimatePolicy:
    return EstimatePolicy(
        output_tokens=settings.estimate_output_tokens,
        floor_nanos=int(settings.estimate_floor_usd * NANOS_PER_USD),
        cap_nanos=int(settings.estimate_cap_usd * NANOS_PER_USD),
    )


def configured_upstream(settings: Settings) -> Upstream | None:
    """The upstream of KEYSERVER_UPSTREAM_URL, which serves every model, after all others."""
    if settings.upstream_url is None:
        return None
    key = settings.upstream_api_key
    return Upstream(CONFIGURED, settings.upstream_url, key.get_secret_value() if key else None, ("*",))


def database_url(settings: Settings) -> str:
    """DATABASE_URL; without one, the URL of the embedded PostgreSQL, started here."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    directory = Path(settings.data_dir).expanduser()
    _log.info("embedded_postgresql", data_dir=str(directory))
    return embedded.start(directory)


async def prepare(settings: Settings, url: str, *, patience: float = 60.0) -> MasterKey:
    """Checks the derivation, waits for the database, migrates it and reads the master key; before any port opens."""
    self_test()
    database = Database(url, pool_size=2, prepared_statements=settings.database_prepared_statements)
    try:
        await _wait_for(database, patience=patience)
        await migrate(database)
        configured = settings.secret_key.get_secret_value() if settings.secret_key else None
        async with database.transaction() as session:
            master = await load_master_key(session, configured)
        if settings.demo:
            async with database.transaction() as session:
                await set_up(session, master=master, now=utc_now())
    finally:
        await database.dispose()
    return master


async def _wait_for(database: Database, *, patience: float) -> None:
    """A database that is still starting is waited for, as containers start in any order."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    while True:
        try:
            await database.ping()
        except Exception as error:
            if not is_unavailable(error) or loop.time() > deadline:
                raise
            _log.warning("waiting_for_database", error=f"{type(error).__name__}: {error}"[:300])
            await asyncio.sleep(1.0)
        else:
            return
