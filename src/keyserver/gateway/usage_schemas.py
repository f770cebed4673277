"""Wire shapes of `/usage`: what may be asked, and what is answered as JSON or CSV."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import Query
from pydantic import Field

from keyserver.gateway.usage import Dimension, Period
from keyserver.kit.problems import BadRequest
from keyserver.kit.wire import CamelView, Instant

CSV = "text/csv"
#: Asked without `from`, so much before `to`; at most so much in one answer.
USUAL_SPAN, LONGEST_SPAN = timedelta(days=30), timedelta(days=366)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
#: Before it there was no usage, and not far before it no datetime that can be reckoned with.
_FIRST_YEAR = 1970
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

GroupBy = Annotated[
    list[str] | None,
    Query(
        alias="groupBy",
        max_length=10,
        description="Any of day, capability, model, instance, attributedTo, separated by commas; default day",
    ),
]
From = Annotated[
    str | None,
    Query(alias="from", max_length=40, description="A UTC date or an instant; default 30 days before `to`"),
]
To = Annotated[
    str | None,
    Query(
        alias="to", max_length=40, description="A UTC date, which is included, or an instant, which is not; default now"
    ),
]


class UsageRow(CamelView):
    """Those of the first six that were grouped by are there, null where a call has none."""

    tenant: str | None = None
    day: str | None = Field(None, examples=["2026-03-01"])
    capability: str | None = None
    model: str | None = None
    instance: str | None = None
    attributed_to: str | None = None
    calls: int
    input_tokens: int
    output_tokens: int
    cost_nanodollars: str
    charge_nanodollars: str


class UsageView(CamelView):
    """Calls charged at or after `from` and before `to`."""

    from_: Instant = Field(alias="from")
    to: Instant
    rows: list[UsageRow]


def dimensions(given: Sequence[str] | None, *, allowed: Iterable[Dimension]) -> list[Dimension]:
    """What to group by, in the order that was asked for. Raises BadRequest."""
    if given is None:
        return [Dimension.DAY]
    words = [word.strip() for part in given for word in part.split(",")]
    known = {str(each): each for each in allowed}
    if unknown := [word for word in words if word not in known]:
        raise BadRequest.at("#query/groupBy", f"groupBy knows {', '.join(known)}, not `{unknown[0][:40]}`")
    if len(set(words)) < len(words):
        raise BadRequest.at("#query/groupBy", "groupBy must name nothing twice")
    return [known[word] for word in words]


def period(begins: str | None, ends: str | None, *, now: datetime) -> Period:
    """Raises BadRequest for what is no date or instant, ends before it begins, or is longer than LONGEST_SPAN."""
    ends_at = now + timedelta(microseconds=1) if ends is None else _instant(ends, "to")
    begins_at = ends_at - USUAL_SPAN if begins is None else _instant(begins, "from")
    if ends_at < begins_at:
        raise BadRequest.at("#query/to", "to must not be before from")
    if ends_at - begins_at > LONGEST_SPAN:
        raise BadRequest.at("#query/from", f"from must be at most {LONGEST_SPAN.days} days before to")
    return Period(begins_at, ends_at)


def _instant(text: str, name: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
        if _DATE.fullmatch(text):
            instant = instant.replace(tzinfo=UTC) + timedelta(days=name == "to")
        if instant.tzinfo is not None and instant.year >= _FIRST_YEAR:
            return instant.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise BadRequest.at(
        f"#query/{name}", f"{name} must be a date like 2026-03-01, or an instant like 2026-03-01T12:00:00Z"
    )


def as_csv(rows: Sequence[Mapping[str, Any]], *, names: Sequence[str]) -> str:
    """RFC 4180, with a line of names. A text that a spreadsheet would take for a formula is given an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(names)
    writer.writerows([_cell(row[name]) for name in names] for row in rows)
    return out.getvalue()


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def wants_csv(accept: str | None) -> bool:
    """Whether an Accept header names CSV, and not at a lower weight than JSON (RFC 9110, section 12.5.1)."""
    weights: dict[str, float] = {}
    for part in (accept or "").split(","):
        media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        weights[media_type] = float(weight) if re.fullmatch(r"[01](\.\d{0,3})?", weight) else 1.0
    return weights.get(CSV, 0.0) > 0 and weights[CSV] >= weights.get("application/json", 0.0)
