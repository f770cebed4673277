"""Numbers as sources write them: exact decimals, or nothing at all. Pure."""

import json
import re
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

MAX_PRICE_USD = Decimal(10) ** 12

_PLAIN = re.compile(r"[0-9]{1,40}(\.[0-9]{1,60})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
#: Beyond this many decimals a price is a mistake, and exact sums of prices would grow without limit.
_MAX_DECIMALS = 60
#: The year 2242: later than any time stamp in seconds, earlier than the same one in milliseconds.
_MAX_EPOCH_SECONDS = 2**33


def parse_document(body: bytes) -> Any:
    """JSON with every fraction an exact Decimal. Raises ValueError for anything that is not JSON (RFC 8259)."""
    try:
        return json.loads(body, parse_float=_exact, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _exact(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text[:40]} is not a number of a sane size") from None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def price_of(value: Any) -> Decimal | None:
    """Dollars for one whole coin, from a JSON number or a decimal string; None unless 0 < price < 1e12 and sane."""
    if isinstance(value, str):
        value = Decimal(value) if _PLAIN.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    price = Decimal(value)
    if not price.is_finite() or not 0 < price < MAX_PRICE_USD:
        return None
    exponent = price.as_tuple().exponent
    return price if isinstance(exponent, int) and exponent >= -_MAX_DECIMALS else None


def instant_of(value: Any) -> datetime | None:
    """UTC from whole seconds since 1970; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _MAX_EPOCH_SECONDS:
        return None
    return datetime.fromtimestamp(value, tz=UTC)
