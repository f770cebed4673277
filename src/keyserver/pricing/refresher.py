"""Asking the sources. Every process may run this: a tick belongs to the one that claims it in `price_sources`."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import case, func, or_, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.chains.catalog import chain_spec, has_known_coin
from keyserver.kit.clock import Clock
from keyserver.kit.db import Database
from keyserver.kit.metrics import PRICE_FETCHES
from keyserver.pricing.consensus import FUTURE_TOLERANCE
from keyserver.pricing.models import PriceObservation, PriceSourceState
from keyserver.pricing.ports import Asset, Observation, PriceSource, SourceFailed
from keyserver.pricing.schedule import until_next_tick, until_next_try

#: Longer than any source's own limit: it ends a source that keeps none.
FETCH_LIMIT = 30.0

_log = structlog.get_logger("keyserver.prices")

Assets = Callable[[], Awaitable[Sequence[Asset]]]

_REGISTER = """
INSERT INTO price_sources (source, next_fetch_at)
SELECT name, $2 FROM unnest($1::text[]) AS name
WHERE NOT EXISTS (SELECT FROM price_sources WHERE source = name)
ON CONFLICT DO NOTHING
"""

#: The wait before this tick is known from the row as it was: `previous` is null unless the last fetch failed.
_CLAIM = """
UPDATE price_sources AS claimed SET next_fetch_at = wanted.next_fetch_at
FROM (
    SELECT source, next_fetch_at FROM price_sources
    WHERE source = ANY($1::text[]) AND next_fetch_at <= $3 ORDER BY source FOR UPDATE SKIP LOCKED
) AS due
JOIN unnest($1::text[], $2::timestamptz[]) AS wanted (source, next_fetch_at) USING (source)
WHERE claimed.source = due.source
RETURNING claimed.source,
    CASE WHEN claimed.last_error_at >= coalesce(claimed.last_success_at, '-infinity')
         THEN due.next_fetch_at - claimed.last_error_at END AS previous
"""

_PRICED_ASSETS = text("""
SELECT DISTINCT ON (upper(token)) upper(token) AS token, oracle_asset_id FROM payment_methods
ORDER BY upper(token), enabled DESC, oracle_asset_id IS NULL, created_at, id
""")

_BLOCKCHAINS_WITH_A_METHOD = text("""
SELECT chain, network, family FROM blockchains AS b
WHERE EXISTS (SELECT FROM payment_methods WHERE blockchain_id = b.id)
""")


@dataclass(frozen=True, slots=True)
class _Tick:
    source: PriceSource
    previous: timedelta | None


@dataclass(frozen=True, slots=True)
class _Pace:
    interval: timedelta
    max_age: timedelta
    jitter: Callable[[], float]


async def refresh_due(
    database: Database,
    sources: Sequence[PriceSource],
    assets: Assets,
    *,
    clock: Clock,
    interval: timedelta,
    max_age: timedelta,
    jitter: Callable[[], float],
    fetch_limit: float = FETCH_LIMIT,
) -> list[str]:
    """Asks the sources whose tick has come, all at once, and stores what each says as soon as it says it.

    Returns the names of those asked by this call. No connection is held while a source is waited for. A caller that
    loops runs one loop a source, so that a slow one does not hold back the next tick of the others. `jitter` gives
    numbers from 0 up to 1. Raises only what the database raises.
    """
    wanted = await assets() if sources else []
    if not wanted:
        return []
    pace = _Pace(interval=interval, max_age=max_age, jitter=jitter)
    ticks = await _claim(database, sources, now=clock(), pace=pace)
    outcomes = await asyncio.gather(
        *(_take(database, tick, wanted, clock=clock, pace=pace, fetch_limit=fetch_limit) for tick in ticks),
        return_exceptions=True,
    )
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return [tick.source.name for tick in ticks]


async def priced_assets(session: AsyncSession) -> list[Asset]:
    """Each token of a payment method, and each own coin of a blockchain that has one, once and by symbol.

    A coin without a method can be paid to any address there is on its blockchain, and is credited at market as well.

    Disabled methods count: their addresses stay their tenants', and a late payment is credited at the market price.
    Of several oracle ids for one token an enabled method's is taken, the oldest first.
    """
    tokens = [
        Asset(token=row.token, oracle_asset_id=row.oracle_asset_id) for row in await session.execute(_PRICED_ASSETS)
    ]
    coins = await _own_coins(session) - {asset.token for asset in tokens}
    return sorted([*tokens, *map(Asset, coins)], key=lambda asset: asset.token)


async def _own_coins(session: AsyncSession) -> set[str]:
    """Not those that only pins can price: a simulated chain's, and one whose real name we do not know."""
    specs = [
        chain_spec(row.chain, row.network, type=row.family) for row in await session.execute(_BLOCKCHAINS_WITH_A_METHOD)
    ]
    return {spec.coin for spec in specs if has_known_coin(spec)}


async def assets_of_methods(database: Database) -> list[Asset]:
    """`priced_assets` in a transaction of its own, for `refresh_due`."""
    async with database.transaction() as session:
        return await priced_assets(session)


async def _claim(database: Database, sources: Sequence[PriceSource], *, now: datetime, pace: _Pace) -> list[_Tick]:
    by_name = {source.name: source for source in sources}
    names = sorted(by_name)
    next_at = [now + until_next_tick(interval=pace.interval, jitter=pace.jitter()) for _ in names]
    async with database.connection() as connection:
        await connection.execute(_REGISTER, names, now)
        rows = await connection.fetch(_CLAIM, names, next_at, now)
    return [_Tick(source=by_name[row["source"]], previous=row["previous"]) for row in rows]


async def _take(
    database: Database, tick: _Tick, wanted: Sequence[Asset], *, clock: Clock, pace: _Pace, fetch_limit: float
) -> None:
    name = tick.source.name
    answer = await _ask(tick.source, wanted, fetch_limit=fetch_limit)
    if isinstance(answer, SourceFailed):
        await _record_failure(database, tick, answer, now=clock(), pace=pace)
        return
    asked = {asset.token for asset in wanted}
    known = {token: seen for token, seen in answer.items() if token in asked}
    async with database.transaction() as session:
        await record_observations(session, source=name, observations=known, now=clock(), asked=asked)
    PRICE_FETCHES.labels(name, "success").inc()


async def _ask(
    source: PriceSource, wanted: Sequence[Asset], *, fetch_limit: float
) -> Mapping[str, Observation] | SourceFailed:
    try:
        async with asyncio.timeout(fetch_limit):
            return await source.fetch(wanted)
    except SourceFailed as failure:
        return failure
    except TimeoutError:
        return SourceFailed(f"No answer within {fetch_limit:g} s")
    except Exception as error:  # noqa: BLE001 - a mistake in one source must not stop the others; it is logged whole
        _log.error("price_source_broken", source=source.name, exc_info=error)
        return SourceFailed(f"The answer could not be read ({type(error).__name__})")


async def record_observations(
    session: AsyncSession,
    *,
    source: str,
    observations: Mapping[str, Observation],
    now: datetime,
    asked: Collection[str] = (),
) -> None:
    """Stores what a source said of the tokens it was asked for. What is older than what it said before changes nothing.

    An instant in the future is left out, and gives way once stored: it would shut out true ones until it came to pass.
    """
    horizon = now + FUTURE_TOLERANCE
    rows = [
        {
            "token": token,
            "source": source,
            "price_usd": seen.price_usd,
            "observed_at": seen.observed_at,
            "changed_at": now,
        }
        for token, seen in sorted(observations.items())
        if seen.observed_at <= horizon
    ]
    if rows:
        new = insert(PriceObservation).values(rows)
        await session.execute(
            new.on_conflict_do_update(
                index_elements=[PriceObservation.token, PriceObservation.source],
                set_={
                    "price_usd": new.excluded.price_usd,
                    "observed_at": new.excluded.observed_at,
                    "changed_at": case(
                        (
                            PriceObservation.price_usd == new.excluded.price_usd,
                            func.coalesce(PriceObservation.changed_at, new.excluded.changed_at),
                        ),
                        else_=new.excluded.changed_at,
                    ),
                },
                where=or_(
                    PriceObservation.observed_at <= new.excluded.observed_at, PriceObservation.observed_at > horizon
                ),
            )
        )
    answered = update(PriceSourceState).where(PriceSourceState.source == source)
    left_out = sorted(set(asked) - observations.keys())
    await session.execute(answered.values(last_success_at=now, left_out=left_out))


async def _record_failure(
    database: Database, tick: _Tick, failure: SourceFailed, *, now: datetime, pace: _Pace
) -> None:
    name = tick.source.name
    wait = until_next_try(
        interval=pace.interval,
        max_age=pace.max_age,
        previous=tick.previous,
        retry_after=failure.retry_after,
        jitter=pace.jitter(),
    )
    async with database.transaction() as session:
        await session.execute(
            update(PriceSourceState)
            .where(PriceSourceState.source == name)
            .values(next_fetch_at=now + wait, last_error=str(failure), last_error_at=now)
        )
    PRICE_FETCHES.labels(name, "failure").inc()
    _log.warning("price_source_failed", source=name, error=str(failure), next_in_seconds=round(wait.total_seconds(), 3))
