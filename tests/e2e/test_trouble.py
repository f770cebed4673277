"""Nodes and servers that die, start in any order, or are two: no payment is lost, and none is credited twice."""

import asyncio
import contextlib
import random
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.builders import AS_ADMIN
from tests.e2e.coins import Coin, Ether, Litecoin
from tests.e2e.wire import Wire
from tests.e2e.world import PRICE, Made, World, worth
from tests.nodes.anvil import AnvilNode
from tests.nodes.litecoin import LitecoinNode
from tests.server import running_server

from keyserver.kit.jsonrpc import RpcError


async def _assert_each_is_settled_and_credited_once(world: World, coin: Coin, charges: list[Made]) -> None:
    for made in charges:
        settled = await world.until_charge(made, status="Settled", additionalStatus="None")
        assert settled["receivedAmount"] == str(made.units)
    assert sorted(await world.entries()) == sorted(("purchase", worth(coin, made.units)) for made in charges)
    assert len(await world.payments()) == len(charges)
    await world.assert_books_are_right()


# --- the node -----------------------------------------------------------------------------------------------------


async def test_payments_before_and_after_a_node_was_killed_are_all_credited(coin: Coin, world: World) -> None:
    await coin.register(world.api, price_usd=PRICE)
    charges = [await world.charge(coin, amount) for amount in (10, 11, 12)]
    await coin.pay(charges[0].address, charges[0].units)
    await coin.mine()
    await world.until_charge(charges[0], confirmations=1)
    await coin.pay(charges[1].address, charges[1].units)
    await coin.mine()

    await coin.kill_node()
    failing = await world.until(world.scanner, lambda each: each["last_error"] is not None)
    assert coin.node.url not in failing["last_error"]
    await coin.node.restart()
    await coin.pay(charges[2].address, charges[2].units)
    await coin.mine(3)

    await _assert_each_is_settled_and_credited_once(world, coin, charges)


async def test_a_node_that_forgot_its_newest_blocks_when_it_was_killed_is_followed(
    litecoin: Litecoin, world: World
) -> None:
    await litecoin.register(world.api, price_usd=PRICE)
    made = await world.charge(litecoin)
    tx_hash = await litecoin.pay(made.address, made.units)
    raw = await litecoin.node.rpc("getrawtransaction", tx_hash)
    await litecoin.mine(3)
    await world.until_charge(made, status="Settled")
    before = await litecoin.height()

    await litecoin.node.kill()
    await litecoin.node.restart()
    assert await litecoin.height() < before, "the node forgot nothing: this test shows nothing"
    with contextlib.suppress(RpcError):  # when its wallet brought it back already
        await litecoin.node.broadcast(raw)
    await litecoin.mine()
    await world.until_charge(made, status="Processing", additionalStatus="Reorged", confirmations=1)
    await litecoin.mine(2)
    await world.until_charge(made, status="Settled")

    credited = worth(litecoin, made.units)
    assert await world.entries() == [("purchase", credited), ("correction", -credited), ("purchase", credited)]
    await world.assert_books_are_right()


async def test_payments_made_while_the_node_was_out_of_reach_at_the_start_are_found(coin: Coin, world: World) -> None:
    async with Wire(coin.node.url) as wire:
        await coin.register(world.api, price_usd=PRICE, rpc_url=wire.rpc_url)
        await world.until_scanned(await coin.height())
        charges = [await world.charge(coin, 20)]
        await world.stop_server()
        await wire.cut()

        await world.server.start()
        await world.until(world.scanner, lambda each: each["last_error"] is not None)
        charges.append(await world.charge(coin, 21))
        for made in charges:
            await coin.pay(made.address, made.units)
        await coin.mine(3)
        assert await world.payments() == []
        await wire.mend()

        await _assert_each_is_settled_and_credited_once(world, coin, charges)


async def test_a_node_that_was_never_reached_before_is_followed_from_its_registration_on(
    coin: Coin, world: World
) -> None:
    async with Wire(coin.node.url) as wire:
        await wire.cut()
        await coin.register(world.api, price_usd=PRICE, rpc_url=wire.rpc_url, start_height=None)
        made = await world.charge(coin)
        await coin.pay(made.address, made.units)
        await coin.mine(3)
        failing = await world.until(world.scanner, lambda each: each["last_error"] is not None)
        assert (failing["height"], failing["tip"]) == (None, None)
        await wire.mend()

        await _assert_each_is_settled_and_credited_once(world, coin, [made])


async def test_a_node_that_answers_nothing_does_not_keep_the_server_from_stopping(
    litecoin: Litecoin, world: World
) -> None:
    await litecoin.register(world.api, price_usd=PRICE)
    await world.until_scanned(await litecoin.height())

    litecoin.node.pause()
    try:
        await asyncio.sleep(0.5)  # some polls: one of them is waiting for its answer now
        await world.stop_server(within=10)
    finally:
        litecoin.node.resume()


# --- the server ---------------------------------------------------------------------------------------------------


async def test_a_server_killed_again_and_again_credits_every_payment_once(coin: Coin, world: World) -> None:
    await coin.register(world.api, price_usd=PRICE)
    charges = [await world.charge(coin, 10 + number) for number in range(12)]
    chance = random.Random(coin.id)  # noqa: S311 - moments to die at

    async def pay() -> None:
        for made in charges:
            await coin.pay(made.address, made.units)
            await coin.mine()
            await asyncio.sleep(chance.uniform(0.0, 0.8))

    paying = asyncio.create_task(pay())
    for _ in range(3):
        await asyncio.sleep(chance.uniform(0.0, 0.6))
        world.server.kill()
        await world.server.start()
    await paying
    await coin.mine(3)

    await _assert_each_is_settled_and_credited_once(world, coin, charges)
    for made in charges:  # what a killed server had begun to tell is told again when its claim has run out
        await world.until_told(made, status="Settled")


async def test_a_payment_made_in_time_while_the_server_was_down_gets_the_locked_rate(
    anvil: AnvilNode, world: World
) -> None:
    coin = Ether(anvil)
    await coin.register(world.api, price_usd=PRICE)
    made = await world.charge(coin)
    await world.reprice(coin, "61.7")
    await world.stop_server()
    await coin.pay(made.address, made.units)
    await coin.mine()
    block = await anvil.rpc("eth_getBlockByNumber", "latest", False)
    expires_at = datetime.fromtimestamp(int(block["timestamp"], 16) + 1, UTC)
    await world.let_it_expire(made, at=expires_at)

    while datetime.now(UTC) < expires_at:  # noqa: ASYNC110 - time has no event
        await asyncio.sleep(0.05)
    await world.server.start()
    await coin.mine(2)

    await world.until_charge(made, status="Settled", additionalStatus="None")
    assert await world.balance() == worth(coin, made.units)


async def test_five_hundred_blocks_mined_while_the_server_was_down_are_followed_after_the_start(
    coin: Coin, world: World
) -> None:
    await coin.register(world.api, price_usd=PRICE)
    charges = [await world.charge(coin, 10 + number) for number in range(5)]
    await world.until_scanned(await coin.height())
    await world.stop_server()
    for made in charges:
        await coin.pay(made.address, made.units)
        await coin.mine(100)

    await world.server.start()
    started = time.monotonic()
    await world.until_scanned(await coin.height(), within=60)
    print(f"500 blocks of {coin.token} were followed in {time.monotonic() - started:.1f} s")  # see it with pytest -rP

    await _assert_each_is_settled_and_credited_once(world, coin, charges)


async def test_two_servers_over_one_database_double_nothing(
    coin: Coin, world: World, database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "second").mkdir()
    async with running_server(database_url, tmp_path / "second", KEYSERVER_POLL_SECONDS="0.1"):
        await coin.register(world.api, price_usd=PRICE)
        charges = [await world.charge(coin, 10 + number) for number in range(6)]
        await world.until_scanned(await coin.height())
        tx_hash = ""
        for made in charges:
            tx_hash = await coin.pay(made.address, made.units)
            await coin.mine()
        await coin.orphan(1, tx_hash)
        await coin.again()
        await coin.mine(3)

        await _assert_each_is_settled_and_credited_once(world, coin, charges)
        for made in charges:
            await world.until_told(made, status="Settled")


# --- what an operator is told --------------------------------------------------------------------------------------


async def test_a_password_that_was_changed_is_said_and_following_goes_on_with_the_new_url(
    litecoin: Litecoin, world: World
) -> None:
    wrong = f"http://somebody:sesame@127.0.0.1:{litecoin.node.port}/"
    await litecoin.register(world.api, price_usd=PRICE, rpc_url=wrong)
    failing = await world.until(world.scanner, lambda each: each["last_error"] is not None)
    assert "refused our user name and password" in failing["last_error"]
    assert "sesame" not in failing["last_error"] + world.server.log.read_text()
    made = await world.charge(litecoin)
    await litecoin.pay(made.address, made.units)
    await litecoin.mine(3)

    patched = await world.api.patch("/admin/chains/LTC", json={"rpc_url": litecoin.node.url}, headers=AS_ADMIN)

    assert patched.status_code == 200, patched.text
    await _assert_each_is_settled_and_credited_once(world, litecoin, [made])


async def test_a_node_by_its_cookie_file_is_followed_across_its_restarts(world: World) -> None:
    async with LitecoinNode(cookie=True) as node:
        litecoin = Litecoin(node)
        await litecoin.register(world.api, price_usd=PRICE)
        charges = [await world.charge(litecoin, 10), await world.charge(litecoin, 11)]
        await litecoin.pay(charges[0].address, charges[0].units)
        await litecoin.mine()
        await world.until_charge(charges[0], confirmations=1)

        await node.restart()  # writes another cookie
        await litecoin.pay(charges[1].address, charges[1].units)
        await litecoin.mine(3)

        await _assert_each_is_settled_and_credited_once(world, litecoin, charges)
