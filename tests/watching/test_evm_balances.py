"""Payments from contract wallets on a real node that does not trace, and what such a node is asked for."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.nodes.anvil import AnvilNode
from tests.nodes.rpc_proxy import Door, door_before
from tests.watching.world import UNIT_NANOS, World

from keyserver.watching.evm import EvmSource
from keyserver.watching.ports import BlockNotFound, BlockRef, FinalityTag, Holding
from keyserver.watching.scanner import Follower

pytestmark = pytest.mark.node

ETHER = 10**18
OURS = "0x" + "a1" * 20


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[AnvilNode]:
    async with AnvilNode(tmp_path / "anvil") as node:
        yield node


@pytest.fixture
async def door(node: AnvilNode) -> AsyncIterator[Door]:
    async with door_before(node.url) as door:
        yield door


@pytest.fixture
async def source(door: Door) -> AsyncIterator[EvmSource]:
    source = EvmSource(door.url, chain_id=31337)
    yield source
    await source.close()


async def follow(world: World, source: EvmSource) -> Follower:
    follower = Follower(world.database, "coin:regtest", source, market=world.market, clock=world.clock)
    while (await follower.step()).behind:
        pass
    return follower


async def test_a_payment_from_a_contract_wallet_is_credited_by_its_balance(
    node: AnvilNode, source: EvmSource, world: World
) -> None:
    key = await world.address(match_key=OURS)
    wallet = await node.deploy_wallet()
    follower = await follow(world, source)
    await node.forward(wallet, key, 60)
    await node.send(key, 40, sender=node.accounts[1])
    found_in = await node.mine()
    await node.mine()

    await follower.step()

    payments = await world.payments()
    assert sorted((payment.amount_units, str(payment.status)) for payment in payments) == [
        (40, "confirmed"),
        (60, "confirmed"),
    ]
    (found,) = [payment for payment in payments if payment.found_above is not None]
    assert (found.tx_hash, found.block_height) == (await node.block_hash(found_in), found_in)
    assert await world.balance() == 50 * UNIT_NANOS  # a hundred base units at half a dollar


async def test_a_payment_from_a_contract_wallet_under_empty_blocks_is_credited_block_by_block(
    node: AnvilNode, source: EvmSource, world: World
) -> None:
    key = await world.address(match_key=OURS)
    wallet = await node.deploy_wallet()
    follower = await follow(world, source)
    await node.forward(wallet, key, 60)
    for _ in range(3):
        await node.mine()
        await follower.step()

    assert [(payment.amount_units, str(payment.status)) for payment in await world.payments()] == [(60, "confirmed")]


async def test_what_its_owner_sends_on_and_pays_in_fees_hides_no_arrival(
    node: AnvilNode, source: EvmSource, world: World
) -> None:
    key = await world.address(match_key=OURS)
    wallet = await node.deploy_wallet()
    await node.send(key, 5 * ETHER)
    await node.mine(2)
    follower = await follow(world, source)
    await node.send_from(key, node.accounts[5], ETHER)
    await node.forward(wallet, key, 7)
    await node.mine()
    await node.send_from(key, node.accounts[5], ETHER)
    await node.mine(3)

    await follower.step()

    assert sorted(payment.amount_units for payment in await world.payments()) == [7, 5 * ETHER]


async def test_a_reorganisation_moves_a_found_payment_to_its_new_block(
    node: AnvilNode, source: EvmSource, world: World
) -> None:
    key = await world.address(match_key=OURS)
    wallet = await node.deploy_wallet()
    await node.mine(2)
    follower = await follow(world, source)
    tx_hash = await node.forward(wallet, key, 60)
    await node.mine(2)
    await follower.step()
    await node.reorg(3, again={tx_hash: 1})
    await node.mine(2)

    await follower.step()
    await follower.step()

    standing = [payment for payment in await world.payments() if payment.block_hash is not None]
    assert [payment.amount_units for payment in standing] == [60]
    assert standing[0].block_hash == await node.block_hash(standing[0].block_height or 0)


# --- what accounts hold -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_hash", [True, False], ids=["EIP-1898", "by number"])
async def test_what_accounts_hold_is_read_of_the_very_block(
    node: AnvilNode, source: EvmSource, by_hash: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    source._accounts._by_hash = by_hash
    await node.send(OURS, 5)
    height = await node.mine()
    await node.send(OURS, 6)
    await node.mine()
    asked = [OURS, node.accounts[0]]

    first = await source.holdings(asked, block_hash=await node.block_hash(height))
    second = await source.holdings(asked, block_hash=await node.block_hash(height + 1))

    assert first is not None and second is not None
    assert (first[0], second[0]) == (Holding(5, 0), Holding(11, 0))
    assert (first[1].nonce, second[1].nonce) == (1, 2)
    for _ in range(2):
        with pytest.raises(BlockNotFound):
            await source.holdings(asked, block_hash="0x" + "11" * 32)
        await node.reorg(1)


async def test_what_an_account_spent_is_its_loss_to_the_unit(node: AnvilNode, source: EvmSource) -> None:
    payer = node.accounts[0]
    before = int(await node.rpc("eth_getBalance", payer, "latest"), 16)
    await node.send(OURS, 5 * ETHER)
    await node.send(payer, ETHER)
    await node.rpc("eth_sendTransaction", {"from": payer, "value": "0x7", "data": "0x00", "gas": hex(100_000)})
    height = await node.mine()

    spent = await source.spending(payer, block_hash=await node.block_hash(height))

    assert spent == before - int(await node.rpc("eth_getBalance", payer, "latest"), 16)


# --- finality and news --------------------------------------------------------------------------------------------


async def test_the_chain_s_own_finality_is_told_and_a_node_without_it_knows_none(
    node: AnvilNode, source: EvmSource, door: Door
) -> None:
    await node.mine(100)
    said = [int((await node.rpc("eth_getBlockByNumber", str(tag), False))["number"], 16) for tag in FinalityTag]

    assert [await source.final_height(tag) for tag in FinalityTag] == said
    door.refused.add("eth_getBlockByNumber")
    assert [await source.final_height(tag) for tag in FinalityTag] == [None, None]


@pytest.fixture
async def direct(node: AnvilNode) -> AsyncIterator[EvmSource]:
    source = EvmSource(node.url, chain_id=31337)
    yield source
    await source.close()


async def news_of(source: EvmSource, tip: BlockRef, *, within: float = 60.0) -> bool:
    """Whether news came before the time was over."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    await source.news(tip, within=within)
    return loop.time() - started < within


async def test_a_new_block_is_news_at_once_and_the_known_one_is_none(node: AnvilNode, direct: EvmSource) -> None:
    for _ in range(2):
        tip = await direct.tip()
        waiting = asyncio.create_task(news_of(direct, tip))
        while not direct._heads.stands:  # noqa: ASYNC110 - only the node knows
            await asyncio.sleep(0.01)
        await node.mine()
        assert await waiting
    assert not await news_of(direct, await direct.tip(), within=0.2)


async def test_news_survive_the_restart_of_the_node(node: AnvilNode, direct: EvmSource) -> None:
    await news_of(direct, await direct.tip(), within=0.2)
    tip = await direct.tip()
    await node.kill()
    assert not await news_of(direct, tip, within=0.3)
    await node.restart()
    await node.mine()

    assert await news_of(direct, tip)


async def test_a_node_without_subscriptions_is_asked_once_and_then_only_waited_for(source: EvmSource) -> None:
    tip = await source.tip()

    for _ in range(3):
        assert not await news_of(source, tip, within=0.2)

    assert await source._heads.subscribed() is False


async def test_nothing_outlives_a_closed_source(node: AnvilNode, direct: EvmSource) -> None:
    waiting = asyncio.create_task(news_of(direct, await direct.tip()))
    while not direct._heads.stands:  # noqa: ASYNC110 - only the node knows
        await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    await direct.close()

    assert not await news_of(direct, BlockRef(0, "0x"), within=0.05)
