"""The commands on a running service, against a real one, and against what else may answer at its URL."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from sqlalchemy import select
from tests.addresses.account_keys import TEST_PHRASE
from tests.builders import ADMIN_TOKEN, XPUB_COIN_1, XPUB_COIN_60
from tests.cli.commands import keyserver, refusal
from tests.ports import free_port
from tests.server import ServerProcess, running_server
from tests.watching.world import FakeMarket

from keyserver.addresses.models import LookaheadAddress
from keyserver.chains.models import NATIVE, Blockchain
from keyserver.charges.paid_asset import methods_on
from keyserver.charges.recording import Arrival, Inclusion
from keyserver.charges.settlement import include
from keyserver.kit.db import Database

pytestmark = pytest.mark.process

LITECOIN = ["--id", "LTC", "--chain", "litecoin", "--network", "regtest", "--token", "LTC"]
NODE = ["--rpc-url", "http://127.0.0.1:1"]
FIRST_ADDRESS = "rltc1q8gk5z3dy7zv9ywe7synlrk58elz4hrnekpm9d9"


@pytest.fixture
async def server(database_url: str, tmp_path: Path) -> AsyncIterator[ServerProcess]:
    async with running_server(database_url, tmp_path) as server:
        yield server


def on(server: ServerProcess) -> dict[str, str]:
    return {"KEYSERVER_URL": server.url, "ADMIN_TOKEN": ADMIN_TOKEN}


async def test_a_payment_method_is_added_listed_disabled_and_enabled(server: ServerProcess) -> None:
    added = await keyserver("chains", "add", *LITECOIN, *NODE, "--xpub", "-", stdin=XPUB_COIN_1, **on(server))
    assert added.returncode == 0, added.stderr
    assert "Registered LTC at m/44'/1'/0'" in added.stdout
    assert FIRST_ADDRESS in added.stdout

    offered = await asyncio.to_thread(httpx.get, f"{server.url}/chains", trust_env=False)
    assert [method["id"] for method in offered.json()] == ["LTC"]
    assert (await keyserver("chains", "disable", "LTC", **on(server))).returncode == 0
    (listed,) = json.loads((await keyserver("chains", "list", "--json", **on(server))).stdout)
    assert (listed["id"], listed["decimals"], listed["enabled"]) == ("LTC", 8, False)
    assert (await keyserver("chains", "enable", "LTC", **on(server))).returncode == 0
    assert " yes" in (await keyserver("chains", "list", **on(server))).stdout
    assert "404" in refusal(await keyserver("chains", "disable", "NOPE", **on(server)))

    followed = await keyserver("scan", "status", "--json", **on(server))
    assert [(each["chain"], each["height"]) for each in json.loads(followed.stdout)] == [("litecoin", None)]


async def test_a_file_gives_what_options_leave_out(server: ServerProcess, tmp_path: Path) -> None:
    file = tmp_path / "usdc.json"
    contract = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
    body = {"id": "X", "chain": "base", "token": "USDC", "contract": contract, "decimals": 6, "xpub": XPUB_COIN_60}
    file.write_text(json.dumps(body))
    done = await keyserver(
        "chains", "add", "--file", str(file), "--id", "USDC", *NODE, "--rpc-header", "X-Key: k", "--json", **on(server)
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["path"] == "m/44'/60'/0'"
    (listed,) = json.loads((await keyserver("chains", "list", "--json", **on(server))).stdout)
    assert (listed["id"], listed["type"], listed["network"], listed["decimals"]) == ("USDC", "erc20", "mainnet", 6)


async def test_nodes_finality_and_confirmations_are_changed_and_shown(server: ServerProcess) -> None:
    add = ["chains", "add", "--id", "ETH", "--chain", "ethereum", "--network", "regtest", "--token", "ETH"]
    nodes = ["--rpc-url", "http://127.0.0.1:1/first", "--rpc-url", "http://127.0.0.1:2/second"]
    done = await keyserver(*add, *nodes, "--xpub", XPUB_COIN_60, "--finality", "safe", **on(server))
    assert done.returncode == 0, done.stderr
    assert "Nothing to change" in refusal(await keyserver("chains", "change", "ETH", **on(server)))
    change = ["chains", "change", "ETH", "--finality", "finalized", "--confirmations", "7", *nodes[2:]]
    assert (await keyserver(*change, **on(server))).stdout == "Changed ETH.\n"
    (listed,) = json.loads((await keyserver("chains", "list", "--json", **on(server))).stdout)
    assert (listed["finality"], listed["confirmations"]) == ("finalized", 7)
    async with asyncio.timeout(30):
        while "node 127.0.0.1:2: failing" not in (shown := await keyserver("scan", "status", **on(server))).stdout:
            pass
    assert "finalized, up to ?" in shown.stdout
    assert "not started" in shown.stdout
    assert "last error, which still stands: cannot connect to 127.0.0.1:2" in shown.stdout
    assert "second" not in shown.stdout


async def test_a_wallet_that_shows_another_address_registers_nothing(server: ServerProcess) -> None:
    add = ["chains", "add", *LITECOIN, *NODE, "--xpub", XPUB_COIN_1, "--expected-address"]
    assert FIRST_ADDRESS in refusal(await keyserver(*add, "rltc1qsomethingelse", **on(server)))
    assert "no payment methods yet" in (await keyserver("chains", "list", **on(server))).stdout
    assert (await keyserver(*add, FIRST_ADDRESS, **on(server))).returncode == 0


async def test_a_tenants_secret_and_keys_are_shown_once_and_work(server: ServerProcess) -> None:
    made = await keyserver("tenants", "create", "Acme", "--id", "acme", **on(server))
    assert made.returncode == 0, made.stderr
    assert sum(line.startswith("whsec_") for line in made.stdout.splitlines()) == 1
    listed = await keyserver("tenants", "list", "--json", **on(server))
    assert "acme" in [tenant["id"] for tenant in json.loads(listed.stdout)]
    assert "whsec_" not in listed.stdout

    created = await keyserver("keys", "create", "acme", "--expires", "90d", "--json", **on(server))
    key: dict[str, Any] = json.loads(created.stdout)
    assert await _accepted(server, key["key"])
    shown = await keyserver("keys", "list", "acme", **on(server))
    assert key["id"] in shown.stdout
    assert key["key"] not in shown.stdout
    successor = await keyserver("keys", "rotate", key["id"], "--overlap", "1h", **on(server))
    assert await _accepted(server, successor.stdout.splitlines()[-1])
    assert await _accepted(server, key["key"])
    assert "--overlap must be like" in refusal(await keyserver("keys", "rotate", key["id"], "--overlap", "soon"))
    assert (await keyserver("keys", "revoke", key["id"], **on(server))).returncode == 0
    assert not await _accepted(server, key["key"])

    rotated = await keyserver("tenants", "rotate-webhook-secret", "acme", **on(server))
    assert rotated.stdout.splitlines()[-1].startswith("whsec_")
    assert rotated.stdout.splitlines()[-1] not in made.stdout
    assert "404" in refusal(await keyserver("keys", "list", "nobody", **on(server)))
    demo = await keyserver("tenants", "create", "D", "--type", "platform_service", "--tier", "demo", **on(server))
    assert demo.returncode == 0, demo.stderr
    assert "exists already" in refusal(await keyserver("tenants", "create", "Acme", "--id", "acme", **on(server)))


async def _accepted(server: ServerProcess, key: str) -> bool:
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(trust_env=False) as api:
        return (await api.get(f"{server.url}/ledger/balance", headers=headers)).status_code == 200


async def _unmatched_payment(database: Database, tx_hash: str) -> None:
    """A confirmed litecoin without a price, at the address of index 7, which nobody was given."""
    async with database.transaction() as session:
        query = select(LookaheadAddress.match_key).where(LookaheadAddress.address_index == 7)
        arrival = Arrival(tx_hash, 0, NATIVE, (await session.scalars(query)).one(), 10**8)
        chain = await session.get_one(Blockchain, "litecoin:regtest")
        (method,) = await methods_on(session, chain)
        for height in range(1, method.confirmations + 1):
            block = Inclusion(height, f"b{height}", chain.created_at)
            here = [arrival] if height == 1 else []
            await include(session, chain, here, block, market=FakeMarket(), now=chain.created_at)


async def test_an_unmatched_payment_is_listed_dismissed_credited_and_shown(
    server: ServerProcess, database: Database
) -> None:
    add = ["chains", "add", *LITECOIN, *NODE, "--xpub", XPUB_COIN_1]
    assert (await keyserver(*add, **on(server))).returncode == 0
    assert "no such payments" in (await keyserver("payments", "list", "--unmatched", **on(server))).stdout
    await _unmatched_payment(database, "tx7")

    listed = await keyserver("payments", "list", "--unmatched", "--reason", "never_issued", "--json", **on(server))
    (payment,) = json.loads(listed.stdout)
    assert (payment["tx_hash"], payment["tenant_id"]) == ("tx7", None)
    dismiss = ["payments", "dismiss", payment["id"], "--reason", "nobody asks for it"]
    assert "Dismissed" in (await keyserver(*dismiss, **on(server))).stdout
    assert "tx7" not in (await keyserver("payments", "list", "--unmatched", **on(server))).stdout
    assert "tx7" in (await keyserver("payments", "list", "--status", "confirmed", **on(server))).stdout

    credit = ["payments", "credit", payment["id"], "--note", "somebody does"]
    assert "tenant" in refusal(await keyserver(*credit, "--price-usd", "10", **on(server)))
    both = await keyserver(*credit, "--price-usd", "10", "--amount-usd", "1", **on(server))
    assert "not both" in refusal(both)
    done = await keyserver(*credit, "--price-usd", "10", "--tenant", "platform", **on(server))
    assert done.stdout == "Credited 10.000000000 dollars to platform.\n", done.stderr
    assert "409" in refusal(await keyserver(*dismiss, **on(server)))
    shown = (await keyserver("payments", "show", payment["id"], **on(server))).stdout
    assert "nobody asks for it" in shown and "somebody does" in shown and "operator" in shown


async def test_refusals_of_the_service_say_what_to_mend(
    server: ServerProcess, database_url: str, tmp_path: Path
) -> None:
    wrong = await keyserver("chains", "list", **(on(server) | {"ADMIN_TOKEN": "wrong-token"}))
    assert "ADMIN_TOKEN (401)" in refusal(wrong)
    malformed = await keyserver(
        "chains", "add", *LITECOIN, "--rpc-url", "nowhere", "--confirmations", "0", "--xpub", XPUB_COIN_1, **on(server)
    )
    line = refusal(malformed)
    assert "rpc_url: " in line
    assert "confirmations: " in line
    async with running_server(database_url, tmp_path, ADMIN_TOKEN="") as closed:
        assert "without ADMIN_TOKEN" in refusal(await keyserver("chains", "list", **on(closed)))


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({}, "ADMIN_TOKEN is not set"),
        ({"ADMIN_TOKEN": "x", "KEYSERVER_URL": "keyserver"}, "KEYSERVER_URL"),
        ({"ADMIN_TOKEN": "x", "KEYSERVER_URL": "http://127.0.0.1:x"}, "KEYSERVER_URL"),
        ({"ADMIN_TOKEN": "x", "KEYSERVER_URL": "http://127.0.0.1:1"}, "Nothing answers at http://127.0.0.1:1"),
    ],
)
async def test_what_is_missing_around_the_command_is_one_line(env: dict[str, str], told: str) -> None:
    assert told in refusal(await keyserver("scan", "status", **env))


async def test_another_program_at_the_url_is_named_as_that() -> None:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<html>a proxy's page</html>")

    app = web.Application()
    app.router.add_get("/admin/scanners", page)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    url = f"http://127.0.0.1:{port}"
    try:
        told = refusal(await keyserver("scan", "status", ADMIN_TOKEN="x", KEYSERVER_URL=url))
        assert "not as a key server does" in told
        told = refusal(await keyserver("tenants", "list", ADMIN_TOKEN="x", KEYSERVER_URL=url))
        assert "answers 404" in told
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--chain", "bitcoin"], "--id is missing"),
        (["--id", "X", "--chain", "moon", "--token", "X", "--xpub", XPUB_COIN_1, *NODE], "type evm"),
        (
            ["--id", "X", "--chain", "base", "--token", "X", "--xpub", XPUB_COIN_60, *NODE, "--contract", "0x"],
            "--decim",
        ),
        ([*LITECOIN, *NODE, "--xpub", XPUB_COIN_1, "--rpc-header", "nonsense"], "'Name: value'"),
        ([*LITECOIN, *NODE, "--xpub", TEST_PHRASE], "Private key material"),
        (["--file", "nowhere.json"], "No such file"),
    ],
)
async def test_what_cannot_be_registered_is_said_before_anything_is_sent(arguments: list[str], told: str) -> None:
    """No token and no service: the answer is there before either is needed."""
    done = await keyserver("chains", "add", *arguments)
    assert told in refusal(done)
    assert "abandon" not in done.stderr


@pytest.mark.parametrize("expires", ["soon", "2027-01-31T00:00:00", "0d"])
async def test_an_expiry_in_no_known_form_is_refused(expires: str) -> None:
    assert "--expires must" in refusal(await keyserver("keys", "create", "acme", "--expires", expires, ADMIN_TOKEN="x"))


async def test_an_upstream_is_added_listed_disabled_and_enabled(server: ServerProcess) -> None:
    options = ["--id", "main", "--base-url", "https://api.openai.com", "--model", "gpt-*", "--model", "o3"]
    added = await keyserver("upstreams", "add", *options, "--api-key", "-", stdin="sk-secret\n", **on(server))
    assert added.returncode == 0, added.stderr
    assert added.stdout.strip() == "Calls for gpt-*, o3 go to https://api.openai.com/v1."
    assert (await keyserver("upstreams", "disable", "main", **on(server))).returncode == 0
    (listed,) = json.loads((await keyserver("upstreams", "list", "--json", **on(server))).stdout)
    assert (listed["id"], listed["has_api_key"], listed["enabled"]) == ("main", True, False)
    assert (await keyserver("upstreams", "enable", "main", **on(server))).returncode == 0
    assert "gpt-* o3" in (await keyserver("upstreams", "list", **on(server))).stdout
    assert "409" in refusal(await keyserver("upstreams", "add", *options, **on(server)))


async def test_rates_are_set_listed_and_ended(server: ServerProcess) -> None:
    done = await keyserver("rates", "set", "chat", "gpt-4o*", "1K-input-tokens", "0.0025", "--json", **on(server))
    assert done.returncode == 0, done.stderr
    rate = json.loads(done.stdout)
    assert (
        "0.003 for"
        in (await keyserver("rates", "set", "chat", "gpt-4o*", "1K-input-tokens", "0.003", **on(server))).stdout
    )
    assert "0.0025" not in (await keyserver("rates", "list", **on(server))).stdout
    listed = json.loads((await keyserver("rates", "list", "--history", "--json", **on(server))).stdout)
    assert [(each["price_usd"], each["valid_to"] is None) for each in listed] == [("0.003", True), ("0.0025", False)]
    assert (await keyserver("rates", "end", listed[0]["id"], **on(server))).returncode == 0
    assert json.loads((await keyserver("rates", "list", "--json", **on(server))).stdout) == []
    assert "404" in refusal(await keyserver("rates", "end", "rate_0", **on(server)))
    assert listed[1]["id"] == rate["id"]
    wrong = await keyserver("rates", "set", "chat", "m", "token", "1", **on(server))
    assert "1K-tokens" in refusal(wrong)
