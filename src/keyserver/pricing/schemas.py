"""Wire shapes of `/admin/prices`. Prices are strings: a JSON number is a float to most readers."""

from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, Field, PlainSerializer

from keyserver.kit.money import format_price
from keyserver.kit.wire import Body, DecimalNumber, Instant, View
from keyserver.pricing.consensus import Exclusion
from keyserver.pricing.quotes import MAX_PRICE_USD

_MAX_DECIMALS = 18


def _a_price(value: Decimal) -> Decimal:
    if not 0 < value < MAX_PRICE_USD:
        raise ValueError("must be greater than 0 and less than 1000000000000")
    normal = value.normalize()
    exponent = normal.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -_MAX_DECIMALS:
        raise ValueError(f"must have at most {_MAX_DECIMALS} decimals")
    return value


PriceText = Annotated[Decimal, PlainSerializer(format_price, return_type=str, when_used="json")]


class NewPin(Body):
    price_usd: Annotated[DecimalNumber, AfterValidator(_a_price)]


class ObservationView(View):
    source: str
    price_usd: PriceText
    observed_at: Instant
    age_seconds: int
    changed_at: Instant | None = Field(description="Since when the source has said this price; null when not known")
    used: bool
    excluded: Exclusion | None = Field(description="The rule that keeps it out of the price; null when it is used")


class PriceView(View):
    token: str
    price_usd: PriceText | None
    source: str | None
    observed_at: Instant | None
    age_seconds: int | None
    pinned: bool
    usable: bool
    reason: str | None
    observations: list[ObservationView]
    left_out_by: list[str] = Field(description="Sources whose last answer had no price of this token")


class SourceView(View):
    source: str
    next_fetch_at: Instant
    last_success_at: Instant | None
    last_error: str | None
    last_error_at: Instant | None


class PriceList(View):
    prices: list[PriceView]
    sources: list[SourceView]
