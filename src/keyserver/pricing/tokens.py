"""What the symbols mean: which coin each token is at a source that knows coins by another name."""

from typing import Final

from keyserver.pricing.ports import Asset

#: CoinGecko's API ids (from its `/coins/list`). MATIC became POL one for one in September 2024, and its old id has had
#: no price since.
COINGECKO_IDS: Final[dict[str, str]] = {
    "AVAX": "avalanche-2",
    "BCH": "bitcoin-cash",
    "BNB": "binancecoin",
    "BTC": "bitcoin",
    "DAI": "dai",
    "DOGE": "dogecoin",
    "ETH": "ethereum",
    "LTC": "litecoin",
    "MATIC": "polygon-ecosystem-token",
    "POL": "polygon-ecosystem-token",
    "SOL": "solana",
    "TRX": "tron",
    "USDC": "usd-coin",
    "USDT": "tether",
    "WBTC": "wrapped-bitcoin",
    "WETH": "weth",
    "XRP": "ripple",
}

#: Symbols that exchanges have replaced by another one for the same coin.
_RENAMED: Final = {"MATIC": "POL"}

#: Tokens that promise one US dollar.
STABLECOINS: Final = frozenset({"DAI", "USDC", "USDT"})


def normal_token(token: str) -> str:
    """Our spelling of a symbol: upper case."""
    return token.strip().upper()


def is_stablecoin(token: str) -> bool:
    return normal_token(token) in STABLECOINS


def coingecko_id(asset: Asset) -> str | None:
    """The operator's own id, else the one we know, else none: a guess would price another coin."""
    return asset.oracle_asset_id or COINGECKO_IDS.get(asset.token)


def ticker(asset: Asset) -> str | None:
    """The symbol exchanges list this asset under; None when the operator's own id says that it is another coin.

    Symbols are not unique. Two exchanges that agree on a namesake would outvote the one source that was told which
    coin is meant.
    """
    if asset.oracle_asset_id is not None and COINGECKO_IDS.get(asset.token) != asset.oracle_asset_id:
        return None
    return _RENAMED.get(asset.token, asset.token)
