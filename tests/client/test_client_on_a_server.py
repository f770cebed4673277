"""Both clients against a real server process, and against one that loses its answers."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from tests.builders import SERVICE_KEY
from tests.ports import free_port
from tests.server import ServerProcess, running_server

from keyserver.client import (
    AsyncClient,
    BadRequest,
    ChargeStatus,
    Client,
    Conflict,
    NotFound,
    NotReached,
    PaymentRequired,
    Side,
    Unauthorized,
    Unprocessable,
)

_SOURCE = Path(__file__).resolve().parents[2] / "src"
pytestmark = pytest.mark.process


@pytest.fixture
async def server(database_url: str, tmp_path: Path) -> AsyncIterator[ServerProcess]:
    async with running_server(database_url, tmp_path, KEYSERVER_DEMO="true") as server:
        yield server


async def settle(server: ServerProcess, client: AsyncClient, charge_id: str) -> None:
    """Pays and mines the charge, and waits until it is settled."""
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as demo:
        assert (await demo.post("/demo/pay", json={"chargeId": charge_id})).status_code == 201
        assert (await demo.post("/demo/mine", json={"blocks": 2})).status_code == 200
    async with asyncio.timeout(15):
        while not (await client.charge(charge_id)).is_settled:  # noqa: ASYNC110 - it settles in another process
            await asyncio.sleep(0.05)


async def test_a_charge_is_created_settled_and_found_in_the_books(server: ServerProcess) -> None:
    async with AsyncClient(server.url, SERVICE_KEY, tenant_id="acme") as client:
        assert [chain.id for chain in await client.chains()] == ["DEMO-BTC", "DEMO-USD"]
        made = await client.create_charge("DEMO-BTC", Decimal("25.50"), metadata={"order": 7}, expires_in=600)
        assert (made.amount_usd, made.expected_amount, made.derivation_index) == (Decimal("25.5"), 42500, 0)
        assert made.expires_at - made.created_at == timedelta(seconds=600)
        await settle(server, client, made.charge_id)

        charge = await client.charge(made.charge_id)
        assert (charge.status, charge.amount_usd, charge.metadata) == (
            ChargeStatus.SETTLED,
            Decimal("25.50"),
            {"order": 7},
        )
        (payment,) = charge.payments
        assert (payment.amount, payment.credited_usd) == (42500, Decimal("25.5"))
        balance = await client.balance()
        assert (balance.tenant_id, balance.balance_nanodollars) == ("acme", 25_500_000_000)
        assert balance.balance_usd == Decimal("25.5")
        (entry,) = [entry async for entry in client.ledger_entries()]
        assert (entry.side, entry.amount_usd) == (Side.CREDIT, Decimal("25.5"))

        address = await client.create_address("DEMO-USD")
        assert (address.index, address.chain) == (1, "simulated-evm")


async def test_pages_are_walked_to_the_end_newest_first(server: ServerProcess) -> None:
    def walk() -> None:
        with Client(server.url, SERVICE_KEY) as client:
            made = [client.create_charge("DEMO-USD", 1).charge_id for _ in range(5)]
            assert [charge.charge_id for charge in client.charges(page_size=2)] == made[::-1]
            assert list(client.charges(status="Settled")) == []
            assert list(client.charges(chain="DEMO-BTC")) == []
            assert list(client.charges(created_before=datetime.now(UTC) - timedelta(days=1))) == []
            assert len(list(client.charges(created_after=datetime.now(UTC) - timedelta(days=1)))) == 5
            assert list(client.ledger_entries()) == []
            assert client.balance().balance_usd == 0

    await asyncio.to_thread(walk)


async def test_refusals_come_as_typed_errors(server: ServerProcess) -> None:
    async with AsyncClient(server.url, SERVICE_KEY) as client:
        with pytest.raises(BadRequest) as refused:
            await client.create_charge("DEMO-BTC", "-1")
        assert (refused.value.code, refused.value.errors[0].pointer) == ("invalid_amount", "/amountUsd")
        assert refused.value.request_id
        with pytest.raises(NotFound):
            await client.charge("ch_of_somebody_else")
        await client.create_charge("DEMO-BTC", 1, idempotency_key="order-1")
        with pytest.raises(Unprocessable):
            await client.create_charge("DEMO-BTC", 2, idempotency_key="order-1")
    async with AsyncClient(server.url, "ks_of-nobody-0123456789") as stranger:
        with pytest.raises(Unauthorized):
            await stranger.balance()


async def test_credit_is_held_settled_and_found_in_the_usage(server: ServerProcess) -> None:
    async with (
        AsyncClient(server.url, SERVICE_KEY, transport=LosesAnswers(2), sleep=_at_once) as client,
        AsyncClient(server.url, SERVICE_KEY, tenant_id="poor") as poor,
    ):
        hold = await client.place_hold("sms", "0.05", ttl_seconds=60)
        assert (hold.capability, hold.estimate_nanodollars) == ("sms", 50_000_000)
        assert (await client.balance()).held_nanodollars == 50_000_000
        settled = await client.settle_hold(
            hold.hold_id, Decimal("0.01"), request_id="sms-1", provider="acme", units=2, unit_type="message"
        )
        assert (settled.cost_nanodollars, settled.charged_nanodollars) == (10_000_000, 13_000_000)
        await client.void_hold((await client.place_hold("sms", 1)).hold_id)
        (row,) = await client.usage(["capability", "day"], begins=datetime.now(UTC).date() - timedelta(days=1))
        assert (row.capability, row.calls, row.charge_nanodollars) == ("sms", 1, 13_000_000)
        assert (await client.balance()).held_nanodollars == 0
        with pytest.raises(Conflict):
            await client.void_hold(hold.hold_id)
        with pytest.raises(PaymentRequired):
            await poor.place_hold("sms", 1)
        with pytest.raises(BadRequest):
            await client.place_hold("sms", 1, attribute_to="nobody")


class LosesAnswers(httpx.AsyncBaseTransport):
    """A network that delivers requests and loses the first answers."""

    def __init__(self, losses: int) -> None:
        self._inner = httpx.AsyncHTTPTransport()
        self.left = losses

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        if self.left:
            self.left -= 1
            await response.aread()
            raise httpx.ReadError("the answer was lost", request=request)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


async def test_a_lost_answer_never_makes_two_charges(server: ServerProcess) -> None:
    async with AsyncClient(server.url, SERVICE_KEY, transport=LosesAnswers(2), sleep=_at_once) as client:
        made = await client.create_charge("DEMO-BTC", 5)
        assert [charge.charge_id async for charge in client.charges()] == [made.charge_id]
        assert (await client.create_charge("DEMO-BTC", 5)).charge_id != made.charge_id


async def _at_once(_: float) -> None:
    return


async def test_nobody_there_is_one_clear_error() -> None:
    async with AsyncClient(f"http://127.0.0.1:{free_port()}", SERVICE_KEY, sleep=_at_once) as client:
        with pytest.raises(NotReached, match="cannot be connected to"):
            await client.balance()


async def test_a_server_that_never_answers_is_given_up() -> None:
    with socket.socket() as silent:  # connects, since its backlog takes us in, and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with AsyncClient(url, SERVICE_KEY, timeout=0.1, retries=1) as client:
            with pytest.raises(NotReached, match="in time"):
                await client.balance()


async def test_the_client_needs_nothing_of_the_server() -> None:
    code = (
        "import sys, keyserver.client; "
        "print([name for name in sys.modules if name.startswith('keyserver.') and "
        "not name.startswith('keyserver.client')], {'fastapi', 'sqlalchemy', 'bip_utils'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    env = os.environ | {"PYTHONPATH": str(_SOURCE)}
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == "[] set()"
