"""What a model costs now: the operator's rates, then the default price list, then the fallback rates."""

from decimal import Decimal

from keyserver.gateway.tariff import Quote
from keyserver.gateway.upstreams import Upstream
from keyserver.kit.cache import LIFETIME
from keyserver.kit.clock import Clock
from keyserver.kit.db import Database

DEFAULT_MARGIN = Decimal("1.3")


class Tariffs:
    """Rates as hot requests read them, cached as kit/cache.py allows."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        default_margin: Decimal = DEFAULT_MARGIN,
        cache_lifetime: float = LIFETIME,
    ) -> None: ...

    async def quote(
        self, capability: str, model: str, *, upstream: Upstream, tenant_margin: Decimal | None = None
    ) -> Quote:
        """The model's price, and the tenant's margin, else the upstream's, else the default one.

        Raises ModelNotPriced.
        """
        raise NotImplementedError
