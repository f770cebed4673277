"""What becomes of payments on a real litecoind: replaced, evicted, chained, doubled, spent, mined as new coins."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest
from tests.builders import ManualClock
from tests.nodes.litecoin import FEE, FIRST_HEIGHT, GENESIS, LitecoinNode
from tests.watching.world import UNIT_NANOS, World, make_world

from keyserver.charges.models import Charge
from keyserver.kit.db import Database
from keyserver.watching.bitcoind import BitcoindSource
from keyserver.watching.scanner import Follower

pytestmark = pytest.mark.node

#: Base units of every charge here, and the coins they are.
UNITS, COINS = 100_000, "0.001"
MATURITY = 100


@pytest.fixture
async def litecoin() -> AsyncIterator[LitecoinNode]:
    async with LitecoinNode() as node:
        yield node


@pytest.fixture
async def world(database: Database, clock: ManualClock) -> World:
    return await make_world(database, clock, start_height=FIRST_HEIGHT)


@asynccontextmanager
async def following(world: World, node: LitecoinNode) -> AsyncIterator[Follower]:
    source = BitcoindSource(node.url, network="regtest", genesis_hash=GENESIS, coinbase_maturity=MATURITY)
    try:
        yield world.follower(chain=source)
    finally:
        await source.close()


@pytest.fixture
async def follower(world: World, litecoin: LitecoinNode) -> AsyncIterator[Follower]:
    async with following(world, litecoin) as follower:
        yield follower


async def charged(world: World, node: LitecoinNode, units: int = UNITS) -> Charge:
    """A charge at an address of the node's wallet, which can spend what it is paid."""
    return await world.charge(units, match_key=await node.address())


async def payments(world: World) -> list[tuple[str, int, str]]:
    """(transaction, base units, status) of each, in the order of the looks that found them."""
    return [(each.tx_hash, each.amount_units, str(each.status)) for each in await world.payments()]


async def settled_once(world: World, charge: Charge, units: int = UNITS) -> None:
    assert (await world.state(charge))[0] == "Settled"
    assert await world.balance() == units * UNIT_NANOS
    assert await world.entries() == [("purchase", "credit:1")]


# --- replacement ------------------------------------------------------------------------------------------------


async def test_a_replacement_with_a_higher_fee_takes_the_place_of_the_payment(
    world: World, litecoin: LitecoinNode, follower: Follower
) -> None:
    charge = await charged(world, litecoin)
    first = await litecoin.send(charge.address, COINS)
    await world.step(follower)
    assert (await world.state(charge))[0] == "Processing"

    second = await rival_that_pays(litecoin, first, {charge.address: COINS})
    await world.step(follower)

    assert await payments(world) == [(first, UNITS, "replaced"), (second, UNITS, "confirming")]
    assert await world.state(charge) == ("Processing", "None", UNITS, 0)
    await litecoin.mine()
    await world.step(follower)
    await settled_once(world, charge)


async def test_a_replacement_that_pays_us_less_leaves_the_charge_partly_paid(
    world: World, litecoin: LitecoinNode, follower: Follower
) -> None:
    charge = await charged(world, litecoin)
    first = await litecoin.send(charge.address, COINS)
    await world.step(follower)

    await rival_that_pays(litecoin, first, {charge.address: "0.0004"})
    await litecoin.mine()
    await world.step(follower)

    assert await world.state(charge) == ("New", "PaidPartial", 40_000, 40_000)
    assert await world.balance() == 40_000 * UNIT_NANOS


async def test_a_replacement_that_no_longer_pays_us_leaves_nothing(
    world: World, litecoin: LitecoinNode, follower: Follower
) -> None:
    charge = await charged(world, litecoin)
    first = await litecoin.send(charge.address, COINS)
    await world.step(follower)

    await rival_that_pays(litecoin, first, {})
    await litecoin.mine(3)
    await world.step(follower)

    assert await payments(world) == [(first, UNITS, "replaced")]
    assert await world.state(charge) == ("New", "None", 0, 0)
    assert await world.entries() == []


async def rival_that_pays(node: LitecoinNode, tx_hash: str, outputs: dict[str, str]) -> str:
    """Mines a transaction over the inputs of `tx_hash` that pays these outputs, and the rest to somebody else.

    This node's mempool takes no replacement: that a miner took it shows the same to us.
    """
    spent = [
        {"txid": each["txid"], "vout": each["vout"]}
        for each in (await node.rpc("getrawtransaction", tx_hash, 1))["vin"]
    ]
    coins = [await node.rpc("gettxout", each["txid"], each["vout"], False) for each in spent]
    rest = sum((each["value"] for each in coins), Decimal(0)) - sum(map(Decimal, outputs.values())) - FEE
    raw = await node.rpc("createrawtransaction", spent, outputs | {await node.address(): str(rest)})
    signed = await node.sign(raw)
    await node.generate_block(await node.address(), [signed])
    return str((await node.rpc("decoderawtransaction", signed))["txid"])


# --- eviction ---------------------------------------------------------------------------------------------------


async def test_a_payment_that_a_node_forgot_at_its_restart_counts_again_when_it_is_sent_again(
    database: Database, world: World
) -> None:
    async with (
        LitecoinNode(options=["-persistmempool=0", "-walletbroadcast=0"]) as node,
        following(world, node) as follower,
    ):
        charge = await charged(world, node)
        tx_hash = await node.send(charge.address, COINS)
        raw = (await node.rpc("gettransaction", tx_hash))["hex"]
        await node.broadcast(raw)
        await world.step(follower)
        assert (await world.state(charge))[0] == "Processing"

        await node.restart()
        await world.step(follower)
        assert await payments(world) == [(tx_hash, UNITS, "replaced")]
        assert (await world.state(charge))[0] == "New"

        await node.broadcast(raw)
        await world.step(follower)
        assert (await world.state(charge))[0] == "Processing"
        await node.mine(2)
        await world.step(follower)
        await settled_once(world, charge)


async def test_a_payment_evicted_for_its_age_stops_counting_and_is_credited_when_a_miner_takes_it_all_the_same(
    world: World,
) -> None:
    async with LitecoinNode(options=["-mempoolexpiry=1"]) as node, following(world, node) as follower:
        charge = await charged(world, node)
        tx_hash = await node.send(charge.address, COINS)
        raw = await node.rpc("getrawtransaction", tx_hash)
        await world.step(follower)
        coins = [each for each in await node.rpc("listunspent") if each["confirmations"] > 0]

        await node.rpc("setmocktime", int(time.time()) + 2 * 3600)
        outputs = {await node.address(): str(coins[0]["amount"] - FEE)}  # old ones leave when a new one comes
        inputs = [{"txid": coins[0]["txid"], "vout": coins[0]["vout"]}]
        await node.broadcast(await node.sign(await node.rpc("createrawtransaction", inputs, [outputs])))
        await world.step(follower)
        assert await payments(world) == [(tx_hash, UNITS, "replaced")]
        assert await world.state(charge) == ("New", "None", 0, 0)

        await node.generate_block(await node.address(), [raw])
        await node.mine()
        await world.step(follower)
        assert (await world.state(charge))[0] == "Settled"
        assert await world.balance() == UNITS * UNIT_NANOS


# --- unconfirmed chains -----------------------------------------------------------------------------------------


async def chained(node: LitecoinNode, address: str, second: str) -> tuple[str, str]:
    """A payment to `address`, and its child, a payment to `second` out of its change: both wait."""
    parent = await node.send(address, COINS)
    outputs = (await node.rpc("getrawtransaction", parent, 1))["vout"]
    change = max(outputs, key=lambda output: Decimal(output["value"]))
    inputs = [{"txid": parent, "vout": change["n"]}]
    rest = change["value"] - Decimal(COINS) - FEE
    raw = await node.rpc("createrawtransaction", inputs, {second: COINS, await node.address(): str(rest)})
    return parent, await node.broadcast(await node.sign(raw))


async def test_a_payment_out_of_an_unconfirmed_one_is_seen_and_both_settle(
    world: World, litecoin: LitecoinNode, follower: Follower
) -> None:
    charges = [await charged(world, litecoin) for _ in range(2)]
    await chained(litecoin, charges[0].address, charges[1].address)
    await world.step(follower)
    assert [(await world.state(charge))[0] for charge in charges] == ["Processing", "Processing"]

    await litecoin.mine(2)
    await world.step(follower)

    assert [(await world.state(charge))[0] for charge in charges] == ["Settled", "Settled"]
    assert await world.balance() == 2 * UNITS * UNIT_NANOS


async def test_a_replaced_parent_takes_its_unconfirmed_child_with_it(
    world: World, litecoin: LitecoinNode, follower: Follower
) -> None:
    charges = [await charged(world, litecoin) for _ in range(2)]
    parent, child = await chained(litecoin, charges[0].address, charges[1].address)
    await world.step(follower)

    await rival_that_pays(litecoin, parent, {})
    await litecoin.mine(3)
    await world.step(follower)

    assert set(await payments(world)) == {(parent, UNITS, "replaced"), (child, UNITS, "replaced")}
    assert [(await world.state(charge))[0] for charge in charges] == ["New", "New"]
    assert await world.entries() == []


async def test_a_child_in_the_block_of_its_parent_is_found(
    world: World, litecoin: LitecoinNode, follower: Follower
) -> None:
    charges = [await charged(world, litecoin) for _ in range(2)]
    await chained(litecoin, charges[0].address, charges[1].address)
    await litecoin.mine(2)  # before anybody saw them wait

    await world.step(follower)

    assert [(await world.state(charge))[0] for charge in charges] == ["Settled", "Settled"]


# --- several ----------------------------------------------------------------------------------------------------


async def test_several_payments_to_one_address_in_one_transaction_and_in_several_add_up(
    world: World, litecoin: LitecoinNode, follower: Follower
) -> None:
    charge = await charged(world, litecoin, 4 * UNITS)
    twice = await litecoin.send_twice(charge.address, COINS, COINS)
    once = await litecoin.send(charge.address, COINS)
    await world.step(follower)
    assert await world.state(charge) == ("New", "PaidPartial", 3 * UNITS, 0)
    await litecoin.mine()
    later = await litecoin.send(charge.address, COINS)
    await litecoin.mine(2)
    await world.step(follower)

    assert sorted(await payments(world)) == sorted(
        (tx_hash, UNITS, "confirmed") for tx_hash in (twice, twice, once, later)
    )
    assert await world.state(charge) == ("Settled", "None", 4 * UNITS, 4 * UNITS)
    assert await world.balance() == 4 * UNITS * UNIT_NANOS


# --- while we were away -----------------------------------------------------------------------------------------


async def test_a_payment_received_and_spent_while_we_were_down_is_credited(
    world: World, litecoin: LitecoinNode, follower: Follower
) -> None:
    charge = await charged(world, litecoin)
    await world.step(follower)

    tx_hash = await litecoin.send(charge.address, COINS)
    paid = (await litecoin.rpc("getrawtransaction", tx_hash, 1))["vout"]
    (index,) = [output["n"] for output in paid if charge.address in output["scriptPubKey"]["addresses"]]
    await litecoin.mine()
    raw = await litecoin.rpc(
        "createrawtransaction", [{"txid": tx_hash, "vout": index}], [{await litecoin.address(): "0.0005"}]
    )
    await litecoin.broadcast(await litecoin.sign(raw))
    await litecoin.mine(2)
    assert await litecoin.rpc("gettxout", tx_hash, index) is None, "it was not spent: this test shows nothing"
    async with following(world, litecoin) as restarted:
        await world.step(restarted)

    await settled_once(world, charge)


async def test_a_payment_received_and_spent_in_one_block_is_credited(
    world: World, litecoin: LitecoinNode, follower: Follower
) -> None:
    charge = await charged(world, litecoin)
    tx_hash = await litecoin.send(charge.address, COINS)
    paid = (await litecoin.rpc("getrawtransaction", tx_hash, 1))["vout"]
    (index,) = [output["n"] for output in paid if charge.address in output["scriptPubKey"]["addresses"]]
    raw = await litecoin.rpc(
        "createrawtransaction", [{"txid": tx_hash, "vout": index}], [{await litecoin.address(): "0.0005"}]
    )
    await litecoin.broadcast(await litecoin.sign(raw))
    await litecoin.mine(2)

    await world.step(follower)

    await settled_once(world, charge)


# --- new coins --------------------------------------------------------------------------------------------------


async def test_new_coins_of_a_block_settle_a_charge_only_when_they_can_be_spent(
    world: World, litecoin: LitecoinNode, follower: Follower
) -> None:
    charge = await charged(world, litecoin, 50 * 10**6)
    (block_hash,) = await litecoin.mine(1, charge.address)
    reward = (await litecoin.rpc("getblock", block_hash, 2))["tx"][0]
    raw = await litecoin.rpc(
        "createrawtransaction", [{"txid": reward["txid"], "vout": 0}], [{await litecoin.address(): "49.999"}]
    )
    spending = await litecoin.sign(raw)
    await litecoin.mine(MATURITY - 2)
    await world.step(follower)
    (payment,) = await world.payments()
    assert (payment.status, payment.confirmations, payment.confirmations_required) == ("confirming", 99, 100)
    assert (await world.state(charge))[0] == "Processing"
    (refused,) = await litecoin.rpc("testmempoolaccept", [spending])
    assert refused["reject-reason"] == "bad-txns-premature-spend-of-coinbase"

    await litecoin.mine()
    await world.step(follower)

    assert (await litecoin.rpc("testmempoolaccept", [spending]))[0]["allowed"]
    assert (await world.state(charge))[0] == "Settled"
    (payment,) = await world.payments()
    assert payment.status == "confirmed"
