"""`/demo/*`: playing payer, miner and reorganisation over HTTP; absent outside demo mode."""

from collections.abc import AsyncIterator

import httpx
import pytest
from pydantic import SecretStr
from tests.builders import (
    ADMIN_TOKEN,
    AS_ADMIN,
    AS_PLATFORM,
    MASTER_KEY,
    SERVICE_KEY,
    ManualClock,
    charge,
    litecoin,
    register,
)

from keyserver.app import create_app
from keyserver.demo.chain import SimulatedChain
from keyserver.demo.setup import set_up
from keyserver.kit.db import Database
from keyserver.kit.secrets import MasterKey
from keyserver.pricing.consensus import Price
from keyserver.settings import Settings
from keyserver.watching.scanner import Follower

CHAINS = ("simulated-utxo:demo", "simulated-evm:demo")


class Pinned:
    """Nothing is sold at market here."""

    async def price_in(self, *_: object, **__: object) -> Price:
        raise AssertionError("every payment of these tests is in time")


@pytest.fixture(autouse=True)
async def demo(database: Database, clock: ManualClock) -> None:
    for _ in range(2):
        async with database.transaction() as session:
            await set_up(session, master=MasterKey(MASTER_KEY), now=clock())


async def follow(database: Database, clock: ManualClock) -> None:
    for each in CHAINS:
        follower = Follower(database, each, SimulatedChain(database, each), market=Pinned(), clock=clock)
        while (await follower.step()).behind:
            pass


async def status(api: httpx.AsyncClient, charge_id: str) -> tuple[str, str]:
    found = (await api.get(f"/charges/{charge_id}", headers=AS_PLATFORM)).json()
    return found["status"], found["additionalStatus"]


@pytest.mark.parametrize("method", ["DEMO-BTC", "DEMO-USD"])
async def test_pay_mine_and_reorg(api: httpx.AsyncClient, database: Database, clock: ManualClock, method: str) -> None:
    charge_id = (await charge(api, method, 25))["chargeId"]
    paid = await api.post("/demo/pay", json={"chargeId": charge_id})
    assert (paid.status_code, paid.json()["chargeId"]) == (201, charge_id)
    await follow(database, clock)
    assert await status(api, charge_id) == ("Processing", "None")
    assert (await api.post("/demo/mine", json={"blocks": 2})).json() == {"heights": dict.fromkeys(CHAINS, 2)}
    await follow(database, clock)
    assert await status(api, charge_id) == ("Settled", "None")
    assert (await api.post("/demo/reorg", json={"depth": 2})).json() == {"heights": dict.fromkeys(CHAINS, 3)}
    await follow(database, clock)
    assert await status(api, charge_id) == ("Processing", "Reorged")
    assert (await api.get("/ledger/balance", headers=AS_PLATFORM)).json()["balanceNanodollars"] == "0"
    await api.post("/demo/mine", json={"blocks": 2})
    await follow(database, clock)
    assert await status(api, charge_id) == ("Settled", "None")


async def test_a_part_and_too_much(api: httpx.AsyncClient, database: Database, clock: ManualClock) -> None:
    part, over = [(await charge(api, "DEMO-USD", 25))["chargeId"] for _ in range(2)]
    answer = await api.post("/demo/pay", json={"chargeId": part, "fraction": 0.5})
    assert answer.json()["amount"] == "12500000"
    await api.post("/demo/pay", json={"chargeId": over, "fraction": 2})
    await follow(database, clock)
    assert await status(api, part) == ("New", "PaidPartial")
    assert await status(api, over) == ("Processing", "PaidOver")


async def test_bodies_may_be_left_out(api: httpx.AsyncClient) -> None:
    assert (await api.post("/demo/mine")).json() == {"heights": dict.fromkeys(CHAINS, 1)}
    assert (await api.post("/demo/reorg")).json() == {"heights": dict.fromkeys(CHAINS, 2)}


async def test_a_reorganisation_deeper_than_the_chain_leaves_its_first_block(api: httpx.AsyncClient) -> None:
    await api.post("/demo/mine", json={"blocks": 2})
    assert (await api.post("/demo/reorg", json={"depth": 100})).json() == {"heights": dict.fromkeys(CHAINS, 3)}


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/demo/pay", {"chargeId": "ch_unknown"}, 404),
        ("/demo/pay", {}, 400),
        ("/demo/pay", {"chargeId": "ch", "fraction": 0}, 400),
        ("/demo/pay", {"chargeId": "ch", "fraction": 101}, 400),
        ("/demo/mine", {"blocks": 0}, 400),
        ("/demo/mine", {"blocks": 1001}, 400),
        ("/demo/reorg", {"depth": -1}, 400),
    ],
)
async def test_what_makes_no_sense_is_refused(
    api: httpx.AsyncClient, path: str, body: dict[str, object], expected: int
) -> None:
    assert (await api.post(path, json=body)).status_code == expected


async def test_a_charge_on_a_real_chain_cannot_be_paid_here(api: httpx.AsyncClient) -> None:
    await register(api, litecoin())
    answer = await api.post("/demo/pay", json={"chargeId": (await charge(api))["chargeId"]})
    assert answer.status_code == 400
    assert "real chain" in answer.json()["error"]


@pytest.fixture
async def earnest(database_url: str, clock: ManualClock) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(service_key=SecretStr(SERVICE_KEY), admin_token=SecretStr(ADMIN_TOKEN), demo=False)
    app = create_app(settings, database_url=database_url, master=MasterKey(MASTER_KEY), clock=clock, cache_lifetime=0.0)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://keyserver") as client,
    ):
        yield client


@pytest.mark.parametrize("path", ["/demo/pay", "/demo/mine", "/demo/reorg"])
async def test_nothing_of_it_is_there_outside_demo_mode(earnest: httpx.AsyncClient, path: str) -> None:
    assert (await earnest.post(path, json={})).status_code == 404
    assert path not in (await earnest.get("/openapi.json")).json()["paths"]


async def test_the_simulated_chain_calls_its_blocks_safe_and_then_final(
    api: httpx.AsyncClient, database: Database, clock: ManualClock
) -> None:
    changed = await api.patch("/admin/chains/DEMO-USD", json={"finality": "finalized"}, headers=AS_ADMIN)
    assert changed.status_code == 200
    charge_id = (await charge(api, "DEMO-USD", 25))["chargeId"]
    await api.post("/demo/pay", json={"chargeId": charge_id})
    for told in ("Processing", "Processing", "Settled"):
        await api.post("/demo/mine", json={"blocks": 1})
        await follow(database, clock)
        assert await status(api, charge_id) == (told, "None")
