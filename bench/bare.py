"""A bare FastAPI route with the same list as `GET /chains`: what the framework alone delivers."""

from fastapi import FastAPI

METHOD = {
    "token": "BTC",
    "chain": "bitcoin",
    "network": "mainnet",
    "type": "native",
    "decimals": 8,
    "displayName": "Bitcoin",
    "contractAddress": None,
    "confirmations": 3,
    "iconUrl": None,
    "isTestnet": False,
}

app = FastAPI()


@app.get("/chains")
async def chains() -> list[dict[str, object]]:
    return [{"id": "BTC", **METHOD}, {"id": "LTC", **METHOD}]
