"""Kraken's `/0/public/Ticker`: the top of the book and the last trade, by pair.

    {"error": [], "result": {"XXBTZUSD": {"a": ["30300.1", "1", "1.000"], "b": […], "c": ["30303.2", "0.0006"], …}}}

Kraken writes XBT for BTC and XDG for DOGE, and its oldest pairs are answered under other keys than they are asked by
(XBTUSD is XXBTZUSD). One pair it does not list can fail the whole request, so the first request asks for every pair;
what is listed is remembered for a day, and from then on only those are asked for. (`AssetPairs` would say the same in
several times the bytes.) The last trade has no time and may be hours old on a quiet pair; the book is of now, so the
price is the middle one of bid, ask and last trade.
https://docs.kraken.com/api-reference/market-data/get-ticker-information
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from keyserver.kit.clock import Clock
from keyserver.pricing.consensus import median
from keyserver.pricing.ports import Asset, Observation, SourceFailed
from keyserver.pricing.quotes import price_of
from keyserver.pricing.sources.fetch import TIME_LIMIT, Site, member
from keyserver.pricing.tokens import ticker

BASE_URL = "https://api.kraken.com"

_KRAKEN_SYMBOLS = {"BTC": "XBT", "DOGE": "XDG"}
#: The pairs with four-letter codes on both sides. Kraken makes no new ones, and guessing them would hit other coins.
_LONG_NAMES = {
    "ETHUSD": "XETHZUSD",
    "LTCUSD": "XLTCZUSD",
    "USDTUSD": "USDTZUSD",
    "XBTUSD": "XXBTZUSD",
    "XRPUSD": "XXRPZUSD",
}
_LISTING_HOLDS = timedelta(days=1)
_UNKNOWN_PAIR = "EQuery:Unknown asset pair"


class UnknownPair(SourceFailed):
    """What was remembered of the listing no longer holds."""


class Kraken:
    name = "kraken"

    def __init__(self, *, clock: Clock, base_url: str = BASE_URL, time_limit: float = TIME_LIMIT) -> None:
        self._clock = clock
        self._site = Site(label="Kraken", base_url=base_url, clock=clock, time_limit=time_limit)
        self._listed: dict[str, bool] = {}
        self._listed_at: datetime | None = None

    async def fetch(self, assets: Sequence[Asset]) -> Mapping[str, Observation]:
        pairs = {asset.token: _pair(symbol) for asset in assets if (symbol := ticker(asset)) is not None}
        if not pairs:
            return {}
        asked_at = self._clock()
        tickers = await self._tickers(frozenset(pairs.values()), now=asked_at)
        prices = {token: _price(_entry(tickers, pair)) for token, pair in pairs.items()}
        return {
            token: Observation(token=token, price_usd=price, observed_at=asked_at)
            for token, price in prices.items()
            if price is not None
        }

    async def _tickers(self, pairs: frozenset[str], *, now: datetime) -> dict[str, Any]:
        if self._remembers(pairs, now=now):
            known = sorted(pair for pair in pairs if self._listed[pair])
            try:
                return await self._ask({"pair": ",".join(known)}) if known else {}
            except UnknownPair:
                self._listed_at = None
        everything = await self._ask({})
        self._listed = {pair: _entry(everything, pair) is not None for pair in pairs}
        self._listed_at = now
        return everything

    def _remembers(self, pairs: frozenset[str], *, now: datetime) -> bool:
        return self._listed_at is not None and now - self._listed_at < _LISTING_HOLDS and pairs <= self._listed.keys()

    async def _ask(self, params: dict[str, str]) -> dict[str, Any]:
        answer = await self._site.get("/0/public/Ticker", params=params)
        result, errors = member(answer, "result"), member(answer, "error")
        if isinstance(result, dict) and result:
            return result  # errors beside a result are about other pairs
        if isinstance(errors, list) and errors:
            first = str(errors[0])[:200]
            raise (UnknownPair if first.startswith(_UNKNOWN_PAIR) else SourceFailed)(f"Kraken answered {first!r}")
        raise SourceFailed("Kraken answered something other than tickers")


def _pair(symbol: str) -> str:
    return f"{_KRAKEN_SYMBOLS.get(symbol, symbol)}USD"


def _entry(tickers: dict[str, Any], pair: str) -> Any:
    return tickers.get(pair, tickers.get(_LONG_NAMES.get(pair, pair)))


def _price(entry: Any) -> Decimal | None:
    values = [member(entry, name) for name in ("a", "b", "c")]
    prices = [price_of(value[0]) if isinstance(value, list) and value else None for value in values]
    known = [price for price in prices if price is not None]
    return median(known) if len(known) == len(values) else None
