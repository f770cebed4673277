"""One blockchain behind several real nodes: one dies, lags, is of another chain, or all are gone for a while."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.e2e.coins import Ether, Litecoin
from tests.e2e.wire import Wire
from tests.e2e.world import PRICE, Document, Made, World, worth
from tests.nodes.anvil import AnvilNode
from tests.nodes.litecoin import LitecoinNode


def states(scanner: Document) -> dict[str, str]:
    return {node["node"]: node["state"] for node in scanner["nodes"]}


def name(wire: Wire) -> str:
    return wire.rpc_url.rpartition("@")[2].removeprefix("http://").rstrip("/")


async def until_states(world: World, *wanted: tuple[Wire, str]) -> Document:
    """Once every node is in this state."""
    expected = {name(wire): state for wire, state in wanted}
    return await world.until(world.scanner, lambda each: states(each) == expected, within=60)


@contextlib.asynccontextmanager
async def wires(*urls: str) -> AsyncIterator[list[Wire]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Wire(url)) for url in urls]


async def pay(world: World, coin: Ether | Litecoin) -> Made:
    made = await world.charge(coin)
    await coin.pay(made.address, made.units)
    return made


async def settled_and_credited_once(world: World, coin: Ether | Litecoin, *charges: Made) -> None:
    for made in charges:
        await world.until_charge(made, status="Settled", additionalStatus="None")
    assert sorted(await world.entries()) == sorted(("purchase", worth(coin, made.units)) for made in charges)
    await world.assert_books_are_right()


async def test_of_two_litecoinds_one_is_killed_mid_way_and_the_other_goes_on(world: World) -> None:
    async with LitecoinNode() as first, LitecoinNode() as second:
        coin, other = Litecoin(first), Litecoin(second)
        async with wires(first.url, second.url) as (near, far):
            await coin.register(world.api, price_usd=PRICE, rpc_url=[near.rpc_url, far.rpc_url])
            charges = [await pay(world, coin)]
            await coin.mine()
            await world.until_charge(charges[0], confirmations=1)
            await relay(first, second)
            await first.kill()
            await other.mine()
            charges.append(await pay(world, other))
            await other.mine(3)
            await settled_and_credited_once(world, coin, *charges)
            await until_states(world, (near, "failing"), (far, "in use"))


async def relay(source: LitecoinNode, to: LitecoinNode) -> None:
    """Hands on the blocks that the other lacks, as a peer would."""
    for height in range(await to.height() + 1, await source.height() + 1):
        block_hash = await source.rpc("getblockhash", height)
        await to.rpc("submitblock", await source.rpc("getblock", block_hash, 0))
    assert await to.best() == await source.best()


@pytest.fixture
async def ether(anvil: AnvilNode) -> Ether:
    return Ether(anvil)


async def test_a_second_url_of_another_chain_is_never_believed(ether: Ether, world: World, tmp_path: Path) -> None:
    async with AnvilNode(tmp_path / "other", chain_id=999) as other, wires(ether.node.url, other.url) as (near, far):
        await other.mine(500)
        await ether.register(world.api, price_usd=PRICE, rpc_url=[near.rpc_url, far.rpc_url])
        made = await pay(world, ether)
        await ether.mine()
        await world.until_charge(made, confirmations=1)
        height = await ether.height()
        await near.cut()
        failing = await until_states(world, (near, "failing"), (far, "wrong chain"))
        assert (failing["height"], failing["tip"]) == (height, height)
        assert "999" in failing["nodes"][1]["last_error"]
        assert far.rpc_url not in str(failing)
        await world.until(world.scanner, lambda each: bool(each["error_stands"]))
        await near.mend()
        await ether.mine(2)
        await settled_and_credited_once(world, ether, made)
        assert not (await world.until(world.scanner, lambda each: not each["error_stands"]))["error_stands"]


async def test_all_nodes_down_and_back_loses_nothing(ether: Ether, world: World) -> None:
    url = ether.node.url
    async with wires(url, url) as (first, second):
        await ether.register(world.api, price_usd=PRICE, rpc_url=[first.rpc_url, second.rpc_url])
        await world.until_scanned(await ether.height())
        await first.cut()
        before = await pay(world, ether)
        await ether.mine()
        await world.until_charge(before, confirmations=1)
        await until_states(world, (first, "failing"), (second, "in use"))
        await second.cut()
        down = await world.until(world.scanner, lambda each: bool(each["error_stands"]))
        assert "none of 2 nodes can be used" in down["last_error"]
        during = await pay(world, ether)
        await ether.mine(3)
        await first.mend()
        await settled_and_credited_once(world, ether, before, during)


async def test_a_payment_waits_for_the_chains_own_word(ether: Ether, world: World) -> None:
    """anvil calls a block safe 32 blocks below its tip, and final 64 below."""
    await ether.register(world.api, price_usd=PRICE, finality="safe")
    made = await pay(world, ether)
    await ether.mine(ether.confirmations + 5)
    await world.until_scanned(await ether.height())
    await world.until_charge(made, status="Processing", confirmations=ether.confirmations - 1)
    paid_in = int((await world.found(made))["payments"][0]["blockHeight"])
    while int((await ether.node.rpc("eth_getBlockByNumber", "safe", False))["number"], 16) < paid_in:
        await world.until_charge(made, status="Processing")
        await ether.mine(10)
    await settled_and_credited_once(world, ether, made)
    scanner = await world.scanner()
    assert (scanner["finality"], scanner["state"]) == ("safe", "following")
    assert scanner["final_height"] >= paid_in
