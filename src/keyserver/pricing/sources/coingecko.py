"""CoinGecko's `/simple/price`: a volume-weighted price over many exchanges, with its time.

    {"bitcoin": {"usd": 67187.33, "last_updated_at": 1711356300}}

Ids it does not know are left out of the answer; a coin without a price is `{}`. Keyless callers are limited harshly.
https://docs.coingecko.com/reference/simple-price
"""

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from keyserver.kit.clock import Clock
from keyserver.pricing.ports import Asset, Observation, SourceFailed
from keyserver.pricing.quotes import instant_of, price_of
from keyserver.pricing.sources.fetch import TIME_LIMIT, Site, member
from keyserver.pricing.tokens import coingecko_id

BASE_URL = "https://api.coingecko.com/api/v3"


class CoinGecko:
    name = "coingecko"

    def __init__(
        self, *, clock: Clock, api_key: str | None = None, base_url: str = BASE_URL, time_limit: float = TIME_LIMIT
    ) -> None:
        paid = (urlsplit(base_url).hostname or "").startswith("pro-api.")
        header = "x-cg-pro-api-key" if paid else "x-cg-demo-api-key"
        self._site = Site(
            label="CoinGecko",
            base_url=base_url,
            clock=clock,
            headers={header: api_key} if api_key else {},
            time_limit=time_limit,
        )

    async def fetch(self, assets: Sequence[Asset]) -> Mapping[str, Observation]:
        ids = {asset.token: coin for asset in assets if (coin := coingecko_id(asset)) is not None}
        if not ids:
            return {}
        answer = await self._site.get(
            "/simple/price",
            params={
                "ids": ",".join(sorted(set(ids.values()))),
                "vs_currencies": "usd",
                "include_last_updated_at": "true",
            },
        )
        if not isinstance(answer, dict):
            raise SourceFailed("CoinGecko answered something other than prices by id")
        found = {}
        for token, coin in ids.items():
            price = price_of(member(answer, coin, "usd"))
            observed_at = instant_of(member(answer, coin, "last_updated_at"))
            if price is not None and observed_at is not None:
                found[token] = Observation(token=token, price_usd=price, observed_at=observed_at)
        return found
