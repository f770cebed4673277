"""The database goes away, or hangs: every route answers 503 soon, and all is well again as soon as it is back."""

import asyncio
import json
import time
from pathlib import Path

import httpx
import pytest
from tests.api.proxy import Proxy
from tests.api.support import problem
from tests.builders import AS_ADMIN, AS_PLATFORM, charge, litecoin, register
from tests.server import ServerProcess, running_server

pytestmark = pytest.mark.process
ROUTES = [
    ("GET", "/chains", None),
    ("POST", "/address", {"chain": "LTC"}),
    ("POST", "/charges", {"chain": "LTC", "amountUsd": 5}),
    ("GET", "/charges", None),
    ("GET", "/charges/ch_x", None),
    ("GET", "/ledger/balance", None),
    ("GET", "/ledger/entries", None),
    ("GET", "/admin/next-path?coin_type=1", None),
    ("POST", "/admin/chains", litecoin(id="another")),
    ("GET", "/admin/chains", None),
    ("DELETE", "/admin/chains/LTC", None),
    ("GET", "/admin/prices", None),
    ("PUT", "/admin/prices/LTC", {"price_usd": 100}),
    ("GET", "/admin/tenants", None),
    ("POST", "/admin/tenants", {"name": "New", "type": "org"}),
    ("POST", "/admin/tenants/platform/keys", {}),
    ("DELETE", "/admin/keys/key_x", None),
    ("GET", "/admin/ledger/trial-balance", None),
    ("GET", "/admin/payments", None),
    ("POST", "/admin/payments/pay_x/credit", {"price_usd": 1, "note": "n"}),
    ("POST", "/admin/payments/pay_x/dismiss", {"reason": "r"}),
    ("GET", "/admin/webhooks/deliveries", None),
    ("GET", "/admin/scanners", None),
    ("GET", "/health/ready", None),
    ("GET", "/metrics", None),
]


async def every_route(api: httpx.AsyncClient) -> list[httpx.Response]:
    async def ask(method: str, path: str, body: object) -> httpx.Response:
        headers = AS_ADMIN if path.startswith("/admin") else AS_PLATFORM
        return await api.request(method, path, json=body, headers=headers)

    return list(await asyncio.gather(*(ask(*route) for route in ROUTES)))


async def all_unavailable(api: httpx.AsyncClient, *, within: float) -> None:
    started = time.monotonic()
    for answer in await every_route(api):
        problem(answer, 503, "database_unavailable")
        assert int(answer.headers["retry-after"]) > 0
    assert time.monotonic() - started < within
    assert (await api.get("/health/live")).json() == {"status": "ok"}
    problem(await api.get("/charges"), 401)


async def well_again(api: httpx.AsyncClient, *, index: int) -> None:
    """At once: no request has to fail first."""
    assert (await api.get("/chains")).status_code == 200
    assert (await charge(api))["derivationIndex"] == index
    assert (await api.get("/health/ready")).status_code == 200
    assert (await api.get("/metrics")).status_code == 200


async def test_a_database_that_is_gone_is_503_everywhere_and_comes_back_by_itself(
    database_url: str, tmp_path: Path
) -> None:
    async with (
        Proxy(database_url) as proxy,
        running_server(proxy.url, tmp_path) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=30) as api,
    ):
        await register(api, litecoin())
        for index in range(2):
            await asyncio.gather(*(api.get("/charges", headers=AS_PLATFORM) for _ in range(10)))
            await proxy.cut()
            await asyncio.sleep(0.3)  # the list is kept that long
            await all_unavailable(api, within=5.0)
            await proxy.mend()
            await well_again(api, index=index)
        await proxy.cut()
        assert (await api.post("/address", json={"chain": "LTC"}, headers=AS_PLATFORM)).status_code == 503
        await asyncio.sleep(0.3)  # the list is kept that long
        assert (await api.get("/chains")).status_code == 503
        await proxy.mend()
        await well_again(api, index=2)
        assert await asyncio.to_thread(server.stop) == 0
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    down = [line for line in lines if line["event"] == "database_unavailable"]
    assert len(down) == 2 * len(ROUTES) + 2
    assert all({"request_id", "error", "level", "timestamp"} <= line.keys() for line in down)
    assert not [line for line in lines if line["event"] == "unhandled_error" or "exception" in line]


async def test_a_database_that_hangs_is_503_within_a_bounded_time(database_url: str, tmp_path: Path) -> None:
    async with (
        Proxy(database_url) as proxy,
        running_server(proxy.url, tmp_path, KEYSERVER_DATABASE_TIMEOUT_SECONDS="1") as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as api,
    ):
        await register(api, litecoin())
        await asyncio.gather(*(api.get("/charges", headers=AS_PLATFORM) for _ in range(10)))
        proxy.silence()
        await asyncio.sleep(0.3)  # the list is kept that long
        await all_unavailable(api, within=15.0)
        started = time.monotonic()
        answers = await asyncio.gather(*(api.get("/chains") for _ in range(30)))
        assert {answer.status_code for answer in answers} == {503}
        assert time.monotonic() - started < 10.0
        await proxy.mend()
        async with asyncio.timeout(20):
            while (await api.get("/chains")).status_code != 200:  # noqa: ASYNC110 - what hung is waited out
                await asyncio.sleep(0.1)
        assert (await charge(api))["derivationIndex"] == 0


async def test_a_server_waits_for_a_database_that_starts_after_it(database_url: str, tmp_path: Path) -> None:
    proxy = Proxy(database_url)
    server = ServerProcess(proxy.url, tmp_path)

    async def start_late() -> None:
        while not server.log.exists() or "waiting_for_database" not in server.log.read_text():  # noqa: ASYNC110 - another process has no event
            await asyncio.sleep(0.05)
        await proxy.mend()

    late = asyncio.create_task(start_late())
    try:
        await server.start()
    finally:
        server.end()
        late.cancel()
        await proxy.cut()
