"""The EVM adapter on a real node."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.nodes.anvil import AnvilNode

from keyserver.watching.evm import EvmSource
from keyserver.watching.evm_wire import may_hold_transfers, read_block
from keyserver.watching.ports import Block, BlockNotFound, NodeUnavailable, Transfer, WrongNode

pytestmark = pytest.mark.node

ALICE = "0x" + "a1" * 20
BOB = "0x" + "b0" * 20
ETHER = 10**18


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[AnvilNode]:
    async with AnvilNode(tmp_path / "anvil") as node:
        yield node


@pytest.fixture
async def source(node: AnvilNode) -> AsyncIterator[EvmSource]:
    async with connected(node) as source:
        yield source


@asynccontextmanager
async def connected(node: AnvilNode, *, chain_id: int | None = 31337) -> AsyncIterator[EvmSource]:
    source = EvmSource(node.url, chain_id=chain_id)
    try:
        yield source
    finally:
        await source.close()


async def newest(source: EvmSource, *contracts: str) -> Block:
    tip = await source.tip()
    return await source.block(tip.height, contracts=frozenset(contracts))


# --- identity -----------------------------------------------------------------------------------------------------


async def test_a_node_is_identified_by_its_chain_id_in_decimal(source: EvmSource) -> None:
    node = await source.identify()

    assert node.identity == "31337"
    assert node.capabilities["client"].startswith("anvil/")


async def test_a_chain_id_nobody_registered_is_taken_as_it_is(node: AnvilNode) -> None:
    async with connected(node, chain_id=None) as source:
        assert (await source.identify()).identity == "31337"


async def test_a_node_of_another_chain_is_the_wrong_node(node: AnvilNode) -> None:
    async with connected(node, chain_id=1) as source:
        with pytest.raises(WrongNode, match=r"31337; registered is 1$"):
            await source.identify()


# --- blocks -------------------------------------------------------------------------------------------------------


async def test_the_tip_is_the_newest_block(node: AnvilNode, source: EvmSource) -> None:
    height = await node.mine(3)

    tip = await source.tip()

    assert tip.height == height
    assert tip.hash == await node.block_hash(height) == await source.block_hash(height)


async def test_a_block_names_its_parent_and_its_time(node: AnvilNode, source: EvmSource) -> None:
    height = await node.mine(2)

    block = await newest(source)

    assert block.ref == await source.tip()
    assert block.parent_hash == await source.block_hash(height - 1)
    assert block.mined_at == await source.mined_at(height)
    assert abs(datetime.now(UTC) - block.mined_at) < timedelta(hours=1)


async def test_above_the_tip_no_block_is_found(node: AnvilNode, source: EvmSource) -> None:
    above = await node.mine() + 1

    for ask in (source.block_hash, source.mined_at, lambda height: source.block(height, contracts=frozenset())):
        with pytest.raises(BlockNotFound):
            await ask(above)


async def test_an_evm_chain_shows_no_mempool(node: AnvilNode, source: EvmSource) -> None:
    await node.send(ALICE, ETHER)

    assert await source.mempool(known=frozenset()) is None


# --- ether --------------------------------------------------------------------------------------------------------


async def test_ether_sent_by_a_transaction_is_a_transfer(node: AnvilNode, source: EvmSource) -> None:
    tx_hash = await node.send(ALICE, ETHER)
    await node.mine()

    block = await newest(source)

    assert block.transfers == [Transfer(tx_hash, 0, "native", ALICE, ETHER)]


async def test_a_receiver_is_in_lower_case_however_it_was_written(node: AnvilNode, source: EvmSource) -> None:
    await node.send("0xAb5801a7D398351b8bE11C439e05C5B3259aeC9B", 5)
    await node.mine()

    assert [transfer.address for transfer in (await newest(source)).transfers] == [
        "0xab5801a7d398351b8be11c439e05c5b3259aec9b"
    ]


async def test_every_transfer_of_a_block_is_seen(node: AnvilNode, source: EvmSource) -> None:
    first = await node.send(ALICE, 1, sender=node.accounts[1])
    second = await node.send(BOB, 2, sender=node.accounts[2])
    third = await node.send(ALICE, 3, sender=node.accounts[3])
    await node.mine()

    assert set((await newest(source)).transfers) == {
        Transfer(first, 0, "native", ALICE, 1),
        Transfer(second, 0, "native", BOB, 2),
        Transfer(third, 0, "native", ALICE, 3),
    }


async def test_a_failed_transaction_is_in_the_block_but_not_a_transfer(node: AnvilNode, source: EvmSource) -> None:
    failed = await node.send_and_fail(ALICE, ETHER)
    paid = await node.send(BOB, 7, sender=node.accounts[1])
    await node.mine()

    block = await newest(source)

    assert (await node.rpc("eth_getTransactionReceipt", failed))["blockHash"] == block.hash
    assert block.transfers == [Transfer(paid, 0, "native", BOB, 7)]


async def test_a_contract_creation_and_a_transaction_without_ether_are_no_transfers(
    node: AnvilNode, source: EvmSource
) -> None:
    await node.deploy_erc20()
    creation = await newest(source)
    await node.send(ALICE, 0)
    await node.mine()

    assert creation.transfers == []
    assert (await newest(source)).transfers == []


async def test_ether_sent_to_oneself_is_no_transfer(node: AnvilNode, source: EvmSource) -> None:
    await node.send(node.accounts[0], ETHER)
    await node.mine()

    assert (await newest(source)).transfers == []


async def test_ether_forwarded_by_a_contract_shows_as_the_contract_s_only(node: AnvilNode, source: EvmSource) -> None:
    wallet = await node.deploy_wallet()
    tx_hash = await node.forward(wallet, ALICE, ETHER)
    await node.mine()

    assert int(await node.rpc("eth_getBalance", ALICE, "latest"), 16) == ETHER
    assert (await newest(source)).transfers == [Transfer(tx_hash, 0, "native", wallet, ETHER)]


# --- tokens -------------------------------------------------------------------------------------------------------


@pytest.fixture
async def token(node: AnvilNode) -> str:
    """A registered token, of which the first account holds some."""
    token = await node.deploy_erc20()
    await node.mint(token, node.accounts[0], 1_000_000)
    await node.mine()
    return token


async def test_a_token_transfer_is_one_by_its_log(node: AnvilNode, source: EvmSource, token: str) -> None:
    tx_hash = await node.transfer_token(token, ALICE, 250_000)
    await node.mine()

    assert (await newest(source, token)).transfers == [Transfer(tx_hash, 0, token, ALICE, 250_000)]


async def test_a_minted_token_is_a_transfer_too(node: AnvilNode, source: EvmSource, token: str) -> None:
    tx_hash = await node.mint(token, ALICE, 5)
    await node.mine()

    assert (await newest(source, token)).transfers == [Transfer(tx_hash, 0, token, ALICE, 5)]


async def test_two_transfers_of_one_transaction_are_told_apart(node: AnvilNode, source: EvmSource, token: str) -> None:
    tx_hash = await node.two_transfers_in_one_transaction(token, (ALICE, 30), (BOB, 40))
    await node.mine()

    assert (await newest(source, token)).transfers == [
        Transfer(tx_hash, 0, token, ALICE, 30),
        Transfer(tx_hash, 1, token, BOB, 40),
    ]


async def test_log_indexes_count_through_the_whole_block(node: AnvilNode, source: EvmSource, token: str) -> None:
    for account in node.accounts[1:4]:
        await node.mint(token, account, 10)
    await node.mine()
    for account in node.accounts[1:4]:
        await node.transfer_token(token, ALICE, 10, sender=account)
    await node.mine()

    assert sorted(transfer.output_index for transfer in (await newest(source, token)).transfers) == [0, 1, 2]


async def test_ether_and_tokens_of_one_block_are_both_seen(node: AnvilNode, source: EvmSource, token: str) -> None:
    ether = await node.send(ALICE, 9, sender=node.accounts[1])
    tokens = await node.transfer_token(token, ALICE, 9)
    await node.mine()

    assert {(transfer.tx_hash, transfer.asset) for transfer in (await newest(source, token)).transfers} == {
        (ether, "native"),
        (tokens, token),
    }


async def test_a_fee_on_transfer_leaves_what_arrived(node: AnvilNode, source: EvmSource, token: str) -> None:
    await node.set_fee(token, 100)
    await node.transfer_token(token, ALICE, 10_000)
    await node.mine()

    arrived = [transfer for transfer in (await newest(source, token)).transfers if transfer.address == ALICE]

    assert [transfer.amount_units for transfer in arrived] == [9_900]


async def test_a_failed_token_transfer_is_none(node: AnvilNode, source: EvmSource, token: str) -> None:
    await node.transfer_token_and_fail(token, ALICE, 5)
    await node.mine()

    assert (await newest(source, token)).transfers == []


async def test_a_look_alike_that_nobody_registered_is_ignored(node: AnvilNode, source: EvmSource, token: str) -> None:
    look_alike = await node.deploy_erc20()
    await node.mint(look_alike, ALICE, 10**12)
    await node.mine()

    assert (await newest(source, token)).transfers == []
    assert len((await newest(source, token, look_alike)).transfers) == 1


async def test_no_registered_contract_means_no_token(node: AnvilNode, source: EvmSource, token: str) -> None:
    await node.transfer_token(token, ALICE, 5)
    await node.mine()

    assert (await newest(source)).transfers == []


async def test_a_collectible_of_a_registered_contract_is_no_payment(node: AnvilNode, source: EvmSource) -> None:
    collectible = await node.deploy_collectible()
    await node.mint_collectible(collectible, ALICE, 42)
    await node.mine()

    assert (await newest(source, collectible)).transfers == []


async def test_tokens_that_moved_nothing_are_no_transfers(node: AnvilNode, source: EvmSource, token: str) -> None:
    await node.transfer_token(token, ALICE, 0)
    await node.transfer_token(token, node.accounts[0], 10)
    await node.mine()

    assert (await newest(source, token)).transfers == []


async def test_the_bloom_filter_of_a_real_block_admits_what_is_in_it(node: AnvilNode, token: str) -> None:
    await node.transfer_token(token, ALICE, 5)
    height = await node.mine()
    busy = read_block(await node.rpc("eth_getBlockByNumber", hex(height), True), height=height)
    height = await node.mine()
    idle = read_block(await node.rpc("eth_getBlockByNumber", hex(height), True), height=height)

    assert may_hold_transfers(busy.bloom, [token])
    assert not may_hold_transfers(busy.bloom, [ALICE])
    assert not may_hold_transfers(idle.bloom, [token])


# --- forks and outages --------------------------------------------------------------------------------------------


async def test_after_a_reorganisation_the_rival_blocks_are_given(node: AnvilNode, source: EvmSource) -> None:
    kept = await node.send(ALICE, 5, sender=node.accounts[1])
    lost = await node.send(BOB, 6, sender=node.accounts[2])
    height = await node.mine()
    before = await newest(source)
    await node.mine()

    await node.reorg(2, again={kept: 1})

    assert {transfer.tx_hash for transfer in before.transfers} == {kept, lost}
    rival = await source.block(height, contracts=frozenset())
    assert rival.hash == await source.block_hash(height) != before.hash
    assert rival.parent_hash == before.parent_hash
    assert rival.transfers == []
    assert (await source.block(height + 1, contracts=frozenset())).transfers == [Transfer(kept, 0, "native", ALICE, 5)]


async def test_tokens_of_an_orphaned_block_are_gone(node: AnvilNode, source: EvmSource, token: str) -> None:
    await node.transfer_token(token, ALICE, 5)
    await node.mine()
    assert len((await newest(source, token)).transfers) == 1

    await node.reorg(1)

    assert (await newest(source, token)).transfers == []


async def test_a_killed_node_is_unavailable_until_it_is_back(node: AnvilNode, source: EvmSource, token: str) -> None:
    tx_hash = await node.transfer_token(token, ALICE, 5)
    await node.mine()
    before = await newest(source, token)

    await node.kill()
    for ask in (source.tip, source.identify, lambda: newest(source)):
        with pytest.raises(NodeUnavailable):
            await ask()
    await node.restart()

    assert await source.tip() == before.ref
    assert await newest(source, token) == before
    assert before.transfers == [Transfer(tx_hash, 0, token, ALICE, 5)]
