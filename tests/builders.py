"""What many tests need: credentials, a clock to turn by hand, payment methods, charges. Builders over fixtures."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

SERVICE_KEY = "ks_service-key-for-tests-0123456789"
ADMIN_TOKEN = "admin-token-for-tests-0123456789"
MASTER_KEY = "master-key-for-tests-0123456789"
AS_PLATFORM = {"authorization": f"Bearer {SERVICE_KEY}"}
AS_ADMIN = {"authorization": f"Bearer {ADMIN_TOKEN}"}

#: Accounts m/44'/N'/0' of the published BIP-39 test mnemonic ("abandon" eleven times, "about"): worthless, public.
XPUB_COIN_1 = (
    "xpub6BhcvYN2qwQKRviMKKBTfRcK1RmCTmM7JHsg67r3rwvymhUEt8gPHhnkugQaQ7UN8M5FfhEUfyVuSaK5fQzfUpvAcCxN4bAT9jyySbPGsTs"
)
XPUB_COIN_60 = (
    "xpub6DCoCpSuQZB2jawqnGMEPS63ePKWkwWPH4TU45Q7LPXWuNd8TMtVxRrgjtEshuqpK3mdhaWHPFsBngh5GFZaM6si3yZdUsT8ddYM3PwnATt"
)


@dataclass
class ManualClock:
    """A clock that stands still until it is advanced."""

    now: datetime = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> datetime:
        self.now += timedelta(**by)
        return self.now


def litecoin(**changes: Any) -> dict[str, Any]:
    """Body of POST /admin/chains for litecoin regtest."""
    body = {
        "id": "LTC",
        "coin_type": 1,
        "account_index": 0,
        "network": "regtest",
        "type": "native",
        "token": "LTC",
        "chain": "litecoin",
        "decimals": 8,
        "xpub": XPUB_COIN_1,
        "rpc_url": "http://127.0.0.1:1",
        "confirmations": 2,
    }
    return body | changes


def ether(**changes: Any) -> dict[str, Any]:
    """Body of POST /admin/chains for an EVM chain's coin."""
    body = {
        "id": "ETH",
        "coin_type": 60,
        "account_index": 0,
        "network": "regtest",
        "type": "native",
        "token": "ETH",
        "chain": "ethereum",
        "decimals": 18,
        "xpub": XPUB_COIN_60,
        "rpc_url": "http://127.0.0.1:1",
        "confirmations": 2,
    }
    return body | changes


async def register(api: httpx.AsyncClient, body: dict[str, Any], *, price_usd: str | None = "100") -> dict[str, Any]:
    """Registers a payment method and pins its token's price; returns the answer."""
    answer = await api.post("/admin/chains", json=body, headers=AS_ADMIN)
    assert answer.status_code == 201, answer.text
    if price_usd is not None:
        pinned = await api.put(f"/admin/prices/{body['token']}", json={"price_usd": price_usd}, headers=AS_ADMIN)
        assert pinned.status_code == 200, pinned.text
    document: dict[str, Any] = answer.json()
    return document


async def charge(api: httpx.AsyncClient, chain: str = "LTC", amount_usd: Any = 25, **members: Any) -> dict[str, Any]:
    """Creates a charge as the platform; returns the answer."""
    body = {"chain": chain, "amountUsd": amount_usd, **members}
    answer = await api.post("/charges", json=body, headers=AS_PLATFORM)
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document
