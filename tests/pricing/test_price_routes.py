"""`/admin/prices` over HTTP, with the real dependencies and a real database."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from keyserver.access.attempts import FailedAttempts
from keyserver.kit.db import Database
from keyserver.kit.http import RequestContext, install_problem_handlers
from keyserver.pricing.consensus import Policy
from keyserver.pricing.models import PriceObservation, PriceSourceState
from keyserver.pricing.routes import router
from keyserver.pricing.service import PriceBook

NOW = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)
POLICY = Policy(max_age=timedelta(seconds=300), max_deviation=Decimal("0.05"), stablecoin_band=Decimal("0.02"))


@pytest.fixture
def app(database: Database) -> FastAPI:
    app = FastAPI()
    app.include_router(router)
    install_problem_handlers(app)
    app.state.database = database
    app.state.clock = lambda: NOW
    app.state.admin_token = "admin"
    app.state.failed_attempts = FailedAttempts(100)
    app.state.cache_lifetime = 0.0
    app.state.prices = PriceBook(database, policy=POLICY, lifetime=0.0)
    return app


@pytest.fixture
async def admin(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the admin's token."""
    transport = httpx.ASGITransport(app=RequestContext(app))
    headers = {"authorization": "Bearer admin"}
    async with httpx.AsyncClient(transport=transport, base_url="http://keyserver", headers=headers) as client:
        yield client


async def observe(database: Database, source: str, price: str, *, age: int) -> None:
    async with database.transaction() as session:
        session.add(
            PriceObservation(
                token="LTC", source=source, price_usd=Decimal(price), observed_at=NOW - timedelta(seconds=age)
            )
        )


async def pin(admin: httpx.AsyncClient, price: Any, *, symbol: str = "ltc") -> httpx.Response:
    return await admin.put(f"/admin/prices/{symbol}", json={"price_usd": price})


async def test_the_listing_has_prices_and_sources_as_documented(admin: httpx.AsyncClient, database: Database) -> None:
    await observe(database, "kraken", "80.500", age=20)
    await observe(database, "coinbase", "0.00000001", age=812)
    async with database.transaction() as session:
        session.add(PriceSourceState(source="kraken", next_fetch_at=NOW, last_success_at=NOW, last_error="was down"))
    answer = await admin.get("/admin/prices")
    assert answer.status_code == 200
    assert answer.json() == {
        "prices": [
            {
                "token": "LTC",
                "price_usd": "80.5",
                "source": "kraken",
                "observed_at": "2025-03-01T11:59:40.000Z",
                "age_seconds": 20,
                "pinned": False,
                "usable": True,
                "reason": None,
                "observations": [
                    {
                        "source": "coinbase",
                        "price_usd": "0.00000001",
                        "observed_at": "2025-03-01T11:46:28.000Z",
                        "age_seconds": 812,
                        "changed_at": None,
                        "used": False,
                        "excluded": "stale",
                    },
                    {
                        "source": "kraken",
                        "price_usd": "80.5",
                        "observed_at": "2025-03-01T11:59:40.000Z",
                        "age_seconds": 20,
                        "changed_at": None,
                        "used": True,
                        "excluded": None,
                    },
                ],
                "left_out_by": [],
            }
        ],
        "sources": [
            {
                "source": "kraken",
                "next_fetch_at": "2025-03-01T12:00:00.000Z",
                "last_success_at": "2025-03-01T12:00:00.000Z",
                "last_error": "was down",
                "last_error_at": None,
            }
        ],
    }


async def test_a_token_without_a_usable_price_says_why(admin: httpx.AsyncClient, database: Database) -> None:
    await observe(database, "kraken", "80", age=812)
    (row,) = (await admin.get("/admin/prices")).json()["prices"]
    assert (row["usable"], row["price_usd"], row["source"], row["age_seconds"]) == (False, None, None, None)
    assert row["reason"] == "no source has answered for LTC in the last 300 s: kraken 812 s ago"


async def test_pinning_answers_with_the_row_of_the_listing(admin: httpx.AsyncClient, database: Database) -> None:
    await observe(database, "kraken", "80", age=20)
    answer = await pin(admin, 70)
    assert answer.status_code == 200
    row = answer.json()
    assert (row["token"], row["price_usd"], row["source"], row["pinned"]) == ("LTC", "70", "manual", True)
    assert [row] == (await admin.get("/admin/prices")).json()["prices"]


async def test_when_a_pin_is_answered_no_cache_holds_the_price_before(
    app: FastAPI, admin: httpx.AsyncClient, database: Database
) -> None:
    app.state.cache_lifetime = 0.1
    prices = PriceBook(database, policy=POLICY, lifetime=0.1)
    await observe(database, "kraken", "80", age=20)
    for change, expected in ((pin(admin, 70), 70), (admin.delete("/admin/prices/LTC"), 80)):
        await prices.price("LTC", stablecoin=False, now=NOW)
        await change
        assert (await prices.price("LTC", stablecoin=False, now=NOW)).price_usd == expected


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("80.123456789012345678", "80.123456789012345678"),
        ("0.000000000000000001", "0.000000000000000001"),
        ("1.50000000000000000000000", "1.5"),
        (0.1, "0.1"),
        (1e-7, "0.0000001"),
        ("999999999999.99", "999999999999.99"),
        (100, "100"),
        ("1e2", "100"),
    ],
)
async def test_a_pinned_price_is_kept_exactly(admin: httpx.AsyncClient, sent: Any, shown: str) -> None:
    assert (await pin(admin, sent)).json()["price_usd"] == shown


@pytest.mark.parametrize(
    "sent",
    [0, -1, "-0.5", 1e12, "1000000000000", "0.0000000000000000001", "NaN", "", "12,5", True, None, [], {}, "1e999"],
)
async def test_what_is_no_price_is_refused_and_names_the_member(admin: httpx.AsyncClient, sent: Any) -> None:
    answer = await pin(admin, sent)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"] == "/price_usd"
    assert (await admin.get("/admin/prices")).json()["prices"] == []


@pytest.mark.parametrize("body", [b"{}", b"[]", b"", b'{"price_usd": NaN}', b'{"price_usd": Infinity}'])
async def test_a_malformed_pin_is_refused(admin: httpx.AsyncClient, body: bytes) -> None:
    assert (await admin.put("/admin/prices/LTC", content=body)).status_code == 400


async def test_unpinning_gives_the_price_back_to_the_sources(admin: httpx.AsyncClient, database: Database) -> None:
    await observe(database, "kraken", "80", age=20)
    await pin(admin, 70, symbol="LTC")
    answer = await admin.delete("/admin/prices/ltc")
    assert (answer.status_code, answer.content) == (204, b"")
    (row,) = (await admin.get("/admin/prices")).json()["prices"]
    assert (row["price_usd"], row["pinned"]) == ("80", False)


async def test_unpinning_what_is_not_pinned_is_404(admin: httpx.AsyncClient, database: Database) -> None:
    await observe(database, "kraken", "80", age=20)
    answer = await admin.delete("/admin/prices/LTC")
    assert (answer.status_code, answer.json()["code"]) == (404, "price_not_pinned")


@pytest.mark.parametrize("token", ["%20", "L%20TC", "%C3%9F", "a" * 129])
async def test_a_token_that_cannot_be_a_symbol_is_refused(admin: httpx.AsyncClient, token: str) -> None:
    assert (await pin(admin, 1, symbol=token)).status_code == 400


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("PUT", "/LTC"), ("DELETE", "/LTC")])
async def test_every_route_is_the_admin_s_alone(admin: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await admin.request(
        method, f"/admin/prices{path}", json={"price_usd": 1}, headers={"authorization": "Bearer ks_other"}
    )
    assert answer.status_code == 401
