"""What a transaction brings in the block that wins, on a real node: not what it brought in the one that lost."""

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest
from tests.nodes.anvil import AnvilNode
from tests.watching.world import DECIMALS, UNIT_NANOS, World, method

from keyserver.watching.evm import EvmSource

pytestmark = pytest.mark.node

ALICE, BOB = "0x" + "a1" * 20, "0x" + "b2" * 20


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[AnvilNode]:
    async with AnvilNode(tmp_path / "anvil") as node:
        yield node


@pytest.fixture
async def source(node: AnvilNode) -> AsyncIterator[EvmSource]:
    source = EvmSource(node.url, chain_id=31337)
    yield source
    await source.close()


async def register(world: World, token: str) -> None:
    async with world.database.transaction() as session:
        session.add(method("REAL", "REAL", token, decimals=DECIMALS))
    world.market.prices["REAL"] = Decimal(100)


async def standing(world: World) -> list[tuple[int, str, int]]:
    """(log index, receiver, amount) of what is credited."""
    credited = [each for each in await world.payments() if each.credited_nanos is not None]
    return sorted((each.output_index, each.address.lower(), each.amount_units) for each in credited)


async def test_a_batch_whose_log_indexes_moved_is_credited_to_the_same_receivers(
    node: AnvilNode, source: EvmSource, world: World
) -> None:
    token = await node.deploy_erc20()
    await register(world, token)
    await world.address(tenant_id="alice", match_key=ALICE)
    await world.address(tenant_id="bob", match_key=BOB)
    await node.mint(token, node.accounts[0], 70)
    await node.mint(token, node.accounts[1], 5)
    await node.mine()
    await node.transfer_token(token, node.accounts[2], 5, sender=node.accounts[1])  # the log before those of the batch
    batch = await node.two_transfers_in_one_transaction(token, (ALICE, 30), (BOB, 40))
    await node.mine(2)
    follower = world.follower(chain=source)
    await world.step(follower)
    assert await standing(world) == [(1, ALICE, 30), (2, BOB, 40)]

    await node.reorg(2, again={batch: 0})
    await node.mine()
    await world.step(follower)

    assert await standing(world) == [(0, ALICE, 30), (1, BOB, 40)]
    assert await world.balance("alice") == 30 * UNIT_NANOS
    assert await world.balance("bob") == 40 * UNIT_NANOS


async def test_a_token_that_takes_a_higher_fee_in_the_winning_block_is_credited_with_what_arrived(
    node: AnvilNode, source: EvmSource, world: World
) -> None:
    token = await node.deploy_erc20()
    await register(world, token)
    await world.address(tenant_id="alice", match_key=ALICE)
    await node.mint(token, node.accounts[1], 1_000)
    await node.mine()
    paid = await node.transfer_token(token, ALICE, 1_000, sender=node.accounts[1])
    await node.mine(2)
    follower = world.follower(chain=source)
    await world.step(follower)
    assert await world.balance("alice") == 1_000 * UNIT_NANOS

    fee = await node.set_fee(token, 1_000)
    await node.mine()
    await node.reorg(3, again={fee: 0, paid: 1})
    await node.mine()
    await world.step(follower)

    assert [(receiver, units) for _, receiver, units in await standing(world)] == [(ALICE, 900)]
    assert await world.balance("alice") == 900 * UNIT_NANOS
