"""Wire shapes of `/admin/rates` and `/admin/upstreams`. Prices and margins are strings in answers."""

import re
from decimal import Decimal
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PlainSerializer, StringConstraints

from keyserver.gateway.tariff import Unit
from keyserver.kit.money import format_price
from keyserver.kit.wire import Body, DecimalNumber, Instant, PathName, View

MAX_PRICE_USD = Decimal(10_000)
MAX_MARGIN = Decimal(100)
_MAX_DECIMALS = 18
_MOST_RATES = 1_000
_URL = re.compile(r"https?://[\x21-\x7e]+", re.IGNORECASE)


def _no_finer_than_sane(value: Decimal) -> Decimal:
    exponent = value.normalize().as_tuple().exponent
    if isinstance(exponent, int) and exponent < -_MAX_DECIMALS:
        raise ValueError(f"must have at most {_MAX_DECIMALS} decimals")
    return value


def _a_rate(value: Decimal) -> Decimal:
    if not 0 <= value <= MAX_PRICE_USD:
        raise ValueError(f"must be from 0 to {MAX_PRICE_USD} dollars for one unit")
    return _no_finer_than_sane(value)


def _a_margin(value: Decimal) -> Decimal:
    if not 0 < value <= MAX_MARGIN:
        raise ValueError(f"must be greater than 0 and at most {MAX_MARGIN}; 1 charges what a call costs")
    return _no_finer_than_sane(value)


def base_url(value: str) -> str:
    """A URL that paths can be added to, without a slash at its end. One without a path is given OpenAI's `/v1`.

    ValueError says what is wrong with it.
    """
    try:
        parts = urlsplit(value)
        sound = bool(_URL.fullmatch(value) and parts.hostname and parts.port != 0)
    except ValueError:
        sound = False
    if not sound:
        raise ValueError("must be an http(s) URL such as https://api.openai.com/v1")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user name or password: the key goes into api_key")
    if "?" in value or "#" in value:
        raise ValueError("must have no query and no fragment: paths are added to it")
    return value.rstrip("/") if parts.path.strip("/") else f"{value.rstrip('/')}/v1"


PlainDecimal = Annotated[Decimal, PlainSerializer(format_price, return_type=str, when_used="json")]
Margin = Annotated[DecimalNumber, AfterValidator(_a_margin)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[\x21-\x7e]+$")]
Glob = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]
Globs = Annotated[list[Glob], Field(min_length=1, max_length=200)]
BaseUrl = Annotated[str, StringConstraints(max_length=2048), AfterValidator(base_url)]
ApiKey = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[\x21-\x7e]+$")]
Priority = Annotated[int, Field(ge=-1_000_000, le=1_000_000, strict=True)]
Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]


class NewRate(Body):
    """Dollars for one unit of every model that the glob matches. `fallback`: only where nothing else has a price."""

    capability: Word
    model: Glob
    unit: Unit
    price_usd: Annotated[DecimalNumber, AfterValidator(_a_rate)]
    fallback: bool = False


NewRates = Annotated[list[NewRate], Field(min_length=1, max_length=_MOST_RATES)]


class RateView(View):
    id: str
    capability: str
    model: str
    unit: Unit
    price_usd: PlainDecimal
    fallback: bool
    valid_from: Instant
    valid_to: Instant | None


class RatesView(View):
    rates: list[RateView]


class RateList(RatesView):
    """`rates`: all that are in force. `history`: those that have ended, the last first, in pages."""

    history: list[RateView]
    next_cursor: str | None


class NewUpstream(Body):
    id: PathName
    base_url: BaseUrl
    api_key: ApiKey | None = None
    models: Globs
    margin: Margin | None = None
    priority: Priority = 100
    connect_timeout_seconds: Seconds = 5.0
    idle_timeout_seconds: Seconds = 120.0


class UpstreamChange(Body):
    """Members left out stay as they are; null takes away the key, or the upstream's own margin."""

    base_url: BaseUrl = ""
    api_key: ApiKey | None = None
    models: Globs = Field(default_factory=list)
    margin: Margin | None = None
    priority: Priority = 100
    connect_timeout_seconds: Seconds = 5.0
    idle_timeout_seconds: Seconds = 120.0
    enabled: bool = True


class UpstreamView(View):
    """The key is never shown. `configured`: by KEYSERVER_UPSTREAM_URL, and not to be changed here."""

    id: str
    base_url: str
    has_api_key: bool
    models: list[str]
    margin: PlainDecimal | None
    priority: int | None
    connect_timeout_seconds: float
    idle_timeout_seconds: float
    enabled: bool
    configured: bool
    created_at: Instant | None


class UpstreamList(View):
    upstreams: list[UpstreamView]


RATES_EXAMPLE: dict[str, Any] = {
    "capability": "chat",
    "model": "gpt-4o*",
    "unit": "1K-input-tokens",
    "price_usd": "0.0025",
}
