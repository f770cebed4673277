"""Setting and ending rates. A rate that is replaced is ended, and stays readable; what was billed stays billed."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.gateway.tariff import Rate
from keyserver.gateway.tariff_errors import RateNotFound
from keyserver.gateway.tariff_models import RateRow
from keyserver.kit.ids import new_id

#: Rates are changed one transaction after the other, so that two never both find the same one in force.
_ONE_AFTER_THE_OTHER = text("SELECT pg_advisory_xact_lock(hashtextextended('keyserver rates', 0))")
_IN_FORCE = select(RateRow).where(RateRow.valid_to.is_(None))


async def set_rates(session: AsyncSession, rates: Sequence[Rate], *, now: datetime) -> list[RateRow]:
    """These are in force from now on, in the place of those of the same capability, pattern, unit and kind.

    A rate that is in force with this very price already stays as it is. Of two alike in one call the last counts.
    """
    await session.execute(_ONE_AFTER_THE_OTHER)
    in_force = {_what(row): row for row in await session.scalars(_IN_FORCE)}
    rows = []
    for rate in {_what(rate): rate for rate in rates}.values():
        former = in_force.get(_what(rate))
        if former is not None and former.price_usd == rate.price_usd:
            rows.append(former)
            continue
        if former is not None:
            former.valid_to = max(now, former.valid_from)
            await session.flush()  # before its successor, which the index would refuse beside it
        row = RateRow(
            id=new_id("rate"),
            capability=rate.capability,
            model=rate.model,
            unit=rate.unit,
            price_usd=rate.price_usd,
            fallback=rate.fallback,
            valid_from=now,
            valid_to=None,
        )
        session.add(row)
        rows.append(row)
    await session.flush()
    return rows


async def end_rate(session: AsyncSession, rate_id: str, *, now: datetime) -> None:
    """The rate is in force no longer. Ending it twice is no error. Raises RateNotFound."""
    await session.execute(_ONE_AFTER_THE_OTHER)
    row = await session.get(RateRow, rate_id)
    if row is None:
        raise RateNotFound
    if row.valid_to is None:
        row.valid_to = max(now, row.valid_from)
        await session.flush()


async def rates_in_force(session: AsyncSession) -> list[RateRow]:
    order = _IN_FORCE.order_by(RateRow.capability, RateRow.fallback, RateRow.model, RateRow.unit)
    return list(await session.scalars(order))


async def ended_rates(session: AsyncSession, *, before: tuple[datetime, str] | None, limit: int) -> list[RateRow]:
    """Rates that have ended, the last first; `before`: the end and id of the last one seen."""
    query = select(RateRow).where(RateRow.valid_to.is_not(None))
    if before is not None:
        query = query.where(tuple_(RateRow.valid_to, RateRow.id) < tuple_(*before))
    return list(await session.scalars(query.order_by(RateRow.valid_to.desc(), RateRow.id.desc()).limit(limit)))


def _what(rate: Rate | RateRow) -> tuple[str, str, str, bool]:
    return rate.capability, rate.model, rate.unit, rate.fallback
