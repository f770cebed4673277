"""What was spent, on what and for whom: usage records added up by one indexed query."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Date, cast, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.gateway.models import UsageRecord

#: More rows than anybody reads, and than should be held in memory.
MOST_ROWS = 10_000


class Dimension(StrEnum):
    """What usage can be grouped by, as the wire names it."""

    TENANT = "tenant"
    DAY = "day"
    CAPABILITY = "capability"
    MODEL = "model"
    INSTANCE = "instance"
    ATTRIBUTED_TO = "attributedTo"


@dataclass(frozen=True, slots=True)
class Period:
    """From the beginning of one instant to just before another."""

    begins_at: datetime
    ends_at: datetime


#: Days are of UTC, as `posted_at` of the ledger's entries tells them.
_COLUMNS: dict[Dimension, ColumnElement[Any]] = {
    Dimension.TENANT: UsageRecord.tenant_id.expression,
    Dimension.DAY: cast(func.timezone(literal_column("'UTC'"), UsageRecord.settled_at), Date),
    Dimension.CAPABILITY: UsageRecord.capability.expression,
    Dimension.MODEL: UsageRecord.model.expression,
    Dimension.INSTANCE: UsageRecord.instance_id.expression,
    Dimension.ATTRIBUTED_TO: UsageRecord.attributed_tenant_id.expression,
}
#: Sums of BIGINT are NUMERIC in PostgreSQL, so that none overflows.
_SUMS = {
    "inputTokens": UsageRecord.input_tokens,
    "outputTokens": UsageRecord.output_tokens,
    "costNanodollars": UsageRecord.cost_nanos,
    "chargeNanodollars": UsageRecord.charge_nanos,
}
#: JSON numbers lose digits beyond 2^53 in most readers.
_AS_TEXT = frozenset({"costNanodollars", "chargeNanodollars"})


async def usage(
    session: AsyncSession, *, period: Period, group_by: Sequence[Dimension], tenant_id: str | None = None
) -> list[dict[str, Any]]:
    """One row for every combination that occurs, in the order of `group_by`; of all tenants when none is named.

    The wire's names; more than MOST_ROWS rows are cut off after one more than that.
    """
    columns = [_COLUMNS[dimension] for dimension in group_by]
    sums = [func.coalesce(func.sum(column), 0) for column in _SUMS.values()]
    query = (
        select(*columns, func.count(), *sums)
        .where(UsageRecord.settled_at >= period.begins_at, UsageRecord.settled_at < period.ends_at)
        .group_by(*columns)
        .order_by(*columns)
        .limit(MOST_ROWS + 1)
    )
    if tenant_id is not None:
        query = query.where(UsageRecord.tenant_id == tenant_id)
    return [_row(group_by, row) for row in await session.execute(query)]


def _row(group_by: Sequence[Dimension], row: Sequence[Any]) -> dict[str, Any]:
    groups, (calls, *sums) = row[: len(group_by)], row[len(group_by) :]
    named = {str(name): value for name, value in zip(group_by, groups, strict=True)}
    if Dimension.DAY in named:
        named[Dimension.DAY] = named[Dimension.DAY].isoformat()
    # By way of int: the driver gives a NUMERIC of round thousands an exponent.
    totals = {
        name: str(int(total)) if name in _AS_TEXT else int(total) for name, total in zip(_SUMS, sums, strict=True)
    }
    return {**named, "calls": calls, **totals}


def column_names(group_by: Sequence[Dimension]) -> list[str]:
    """The members of every row, in their order."""
    return [*group_by, "calls", *_SUMS]
