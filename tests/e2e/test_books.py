"""`keyserver audit` and `keyserver scan rescan` on real nodes: what is wrong is found, what is missing comes back."""

import json
import subprocess
from pathlib import Path
from typing import Any

import asyncpg
from tests.builders import ADMIN_TOKEN, AS_ADMIN
from tests.cli.commands import keyserver
from tests.e2e.coins import Coin, Ether, Litecoin, Token
from tests.e2e.world import PRICE, Made, World, a_world, worth
from tests.nodes.anvil import AnvilNode


async def command(world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await keyserver(*arguments, KEYSERVER_URL=world.server.url, ADMIN_TOKEN=ADMIN_TOKEN)


async def audited(world: World, *arguments: str, code: int) -> list[dict[str, Any]]:
    """The differences that `keyserver audit` finds."""
    done = await command(world, "audit", "--json", *arguments)
    assert done.returncode == code, (done.stdout, done.stderr, world.log_tail())
    return [difference for job in json.loads(done.stdout) for difference in job["differences"]]


async def by_hand(world: World, *statements: str) -> None:
    connection = await asyncpg.connect(world.database_url)
    try:
        await connection.execute("SET session_replication_role = replica")
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def settled(world: World, coin: Coin) -> tuple[Made, int]:
    """A settled charge, and the height of its payment's block."""
    await coin.register(world.api, price_usd=PRICE)
    made = await world.charge(coin)
    await coin.pay(made.address, made.units)
    await coin.mine(4)
    found = await world.until_charge(made, status="Settled")
    return made, found["payments"][0]["blockHeight"]


async def test_a_payment_that_was_lost_is_found_by_an_audit_and_brought_back_by_a_rescan(
    any_coin: Coin, world: World
) -> None:
    made, height = await settled(world, any_coin)
    assert await audited(world, "--from", str(height), code=0) == []
    await by_hand(world, "DELETE FROM payments")
    found = await audited(world, "--from", str(height), code=1)
    assert {each["kind"] for each in found} == {"payment_missing", "credit_without_payment"}

    again = await command(world, "scan", "rescan", "--chain", (await world.scanner())["chain"], "--from", str(height))
    assert again.returncode == 0, again.stderr
    assert "1 payment was missed" in again.stdout
    assert await audited(world, "--from", str(height), code=0) == []
    assert await world.entries() == [("purchase", worth(any_coin, made.units))]
    assert (await world.found(made))["status"] == "Settled"
    await world.assert_books_are_right()


async def test_what_was_changed_in_payments_and_ledger_is_shown_with_what_each_book_says(
    litecoin: Litecoin, world: World
) -> None:
    _, height = await settled(world, litecoin)
    await by_hand(
        world,
        "UPDATE payments SET amount_units = amount_units + 1",
        "DELETE FROM journal_lines",
        "DELETE FROM journal_entries",
    )
    found = await audited(world, "--from", str(height), code=1)
    assert {each["kind"] for each in found} == {"amount_differs", "value_differs", "ledger_entry_missing"}
    (amount,) = [each for each in found if each["kind"] == "amount_differs"]
    assert amount["height"] == height
    assert amount["node"] != amount["payments"]
    shown = await command(world, "audit", "--chain", "litecoin", "--from", str(height))
    assert shown.returncode == 1
    assert amount["tx_hash"] in shown.stdout
    assert "ledger_entry_missing: restore the entry" in shown.stdout
    assert "3 differences" in shown.stdout


async def test_a_token_registered_later_is_credited_from_where_it_was_paid(anvil: AnvilNode, world: World) -> None:
    ether, token = Ether(anvil), await Token(anvil).deploy()
    await ether.register(world.api, price_usd=PRICE)
    address = await world.address(ether)
    await token.pay(address, 5_000_000)
    await anvil.mine(4)
    height = await anvil.height()
    await world.until_scanned(height)
    await token.register(world.api, price_usd="1")
    assert await world.payments() == []
    done = await command(world, "scan", "rescan", "--chain", "ethereum", "--from", "1", "--json")
    assert (done.returncode, json.loads(done.stdout)["found"]) == (0, 1), done.stderr
    assert await world.entries() == [("purchase", 5 * 10**9)]
    assert await audited(world, "--from", "1", code=0) == []


async def test_a_rescan_survives_a_restart_of_the_server(litecoin: Litecoin, world: World) -> None:
    made, height = await settled(world, litecoin)
    await by_hand(world, "DELETE FROM payments")
    answer = await world.api.post(
        "/admin/scanners/litecoin/regtest/rescan", json={"from_height": height - 1}, headers=AS_ADMIN
    )
    await world.stop_server()
    await world.server.start()

    async def job() -> dict[str, Any]:
        document: dict[str, Any] = (await world.api.get(f"/admin/jobs/{answer.json()['id']}", headers=AS_ADMIN)).json()
        return document

    await world.until(job, lambda found: found["status"] == "done")
    assert len(await world.payments()) == 1
    assert await world.entries() == [("purchase", worth(litecoin, made.units))]


async def test_an_audit_that_cannot_be_done_is_no_difference(world: World) -> None:
    assert (await command(world, "audit")).returncode == 2
    assert (await command(world, "audit", "--chain", "bitcoin")).returncode == 2
    nowhere = await keyserver("audit", KEYSERVER_URL="http://127.0.0.1:1", ADMIN_TOKEN="x")
    assert nowhere.returncode == 2
    assert "Nothing answers" in nowhere.stderr


async def test_by_itself_the_service_finds_what_was_lost_says_so_in_a_metric_and_brings_it_back(
    litecoin: Litecoin, database_url: str, tmp_path: Path
) -> None:
    async with a_world(database_url, tmp_path, KEYSERVER_AUDIT_SECONDS="1") as world:
        await settled(world, litecoin)
        await by_hand(world, "DELETE FROM payments")

        async def differences() -> str:
            return (await world.api.get("/metrics")).text

        sample = 'keyserver_audit_differences{chain="litecoin",network="regtest"}'
        await world.until(differences, lambda text: f"{sample} 2.0" in text, within=80)
        await world.until(world.payments, lambda found: len(found) == 1)
        assert '"event":"audit_differences"' in world.server.log.read_text()
