"""What a model costs now: the operator's rates, then the default price list, then the fallback rates."""

from collections.abc import Mapping
from decimal import Decimal

from keyserver.gateway.price_list import listed_price
from keyserver.gateway.tariff import Price, Quote, Rate, RateBook, Unit
from keyserver.gateway.tariff_errors import ModelNotPriced
from keyserver.gateway.upstreams import Upstream
from keyserver.kit.cache import LIFETIME, Snapshot
from keyserver.kit.clock import Clock
from keyserver.kit.db import Database

_RATES = "SELECT capability, model, unit, price_usd, fallback FROM rates WHERE valid_to IS NULL"


class Tariffs:
    """Rates as hot requests read them, cached as kit/cache.py allows."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        default_margin: Decimal,
        cache_lifetime: float = LIFETIME,
    ) -> None:
        self._database = database
        self._clock = clock
        self._default_margin = default_margin
        self._book = Snapshot(self._load, lifetime=cache_lifetime)

    async def quote(
        self, capability: str, model: str, *, upstream: Upstream, tenant_margin: Decimal | None = None
    ) -> Quote:
        """The model's price, and the tenant's margin, else the upstream's, else the default one.

        Raises ModelNotPriced.
        """
        book = await self._book.get()
        price: Price | None = book.own(capability, model)
        if price is None:
            price = listed_price(capability, model, base_url=upstream.base_url, now=self._clock())
        if price is None:
            price = book.fallback(capability, model)
        if price is None:
            raise ModelNotPriced(capability, model)
        return Quote(price, self.margin(upstream.margin if tenant_margin is None else tenant_margin))

    def margin(self, own: Decimal | None = None) -> Decimal:
        """A margin of its own, else the default one."""
        return self._default_margin if own is None else own

    async def _load(self) -> RateBook:
        async with self._database.connection() as connection:
            return RateBook([_rate(row) for row in await connection.fetch(_RATES)])


def _rate(row: Mapping[str, object]) -> Rate:
    return Rate(**{**row, "unit": Unit(str(row["unit"]))})  # type: ignore[arg-type]  # the columns are named as the members
