"""Coinbase's `/v2/exchange-rates`: what one US dollar buys of everything, in one answer that needs no key.

    {"data": {"currency": "USD", "rates": {"AAVE": "0.0099840255591054", …}}}

The exchange's tickers are one request a product, and the product list of Advanced Trade is documented with a key. This
list carries no time, so an answer counts as observed when it was asked for. Coinbase trades USDC and the dollar in one
book: its rate for USDC is one by decree, and is not taken for an observation.
https://docs.cdp.coinbase.com/coinbase-app/docs/api-exchange-rates
"""

from collections.abc import Mapping, Sequence
from decimal import Context, Decimal
from typing import Any

from keyserver.kit.clock import Clock
from keyserver.pricing.ports import Asset, Observation, SourceFailed
from keyserver.pricing.quotes import price_of
from keyserver.pricing.sources.fetch import TIME_LIMIT, Site, member
from keyserver.pricing.tokens import ticker

BASE_URL = "https://api.coinbase.com"

#: Rates have sixteen decimals: thirty digits keep all that they say.
_INVERSE = Context(prec=30)
_NOT_A_MARKET = frozenset({"USDC"})


class Coinbase:
    name = "coinbase"

    def __init__(self, *, clock: Clock, base_url: str = BASE_URL, time_limit: float = TIME_LIMIT) -> None:
        self._clock = clock
        self._site = Site(label="Coinbase", base_url=base_url, clock=clock, time_limit=time_limit)

    async def fetch(self, assets: Sequence[Asset]) -> Mapping[str, Observation]:
        symbols = {asset.token: symbol for asset in assets if (symbol := ticker(asset)) is not None}
        wanted = {token: symbol for token, symbol in symbols.items() if symbol not in _NOT_A_MARKET}
        if not wanted:
            return {}
        asked_at = self._clock()
        answer = await self._site.get("/v2/exchange-rates", params={"currency": "USD"})
        rates = member(answer, "data", "rates")
        if not isinstance(rates, dict) or member(answer, "data", "currency") != "USD":
            raise SourceFailed("Coinbase answered something other than rates of the US dollar")
        prices = {token: _price(rates.get(symbol)) for token, symbol in wanted.items()}
        return {
            token: Observation(token=token, price_usd=price, observed_at=asked_at)
            for token, price in prices.items()
            if price is not None
        }


def _price(rate: Any) -> Decimal | None:
    units_for_a_dollar = price_of(rate)
    return None if units_for_a_dollar is None else price_of(_INVERSE.divide(Decimal(1), units_for_a_dollar))
