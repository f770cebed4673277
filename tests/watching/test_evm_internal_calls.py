"""Ether that contracts pass on: on a node that traces it, by both methods, and on one that shows only balances."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.nodes.anvil import AnvilNode
from tests.nodes.bytecode import borrows, code, leaves_all_to, pays, runs_with_value
from tests.nodes.rpc_proxy import TRACING, Door, door_before

from keyserver.watching.evm import EvmSource
from keyserver.watching.ports import Block, Transfer

pytestmark = pytest.mark.node

ALICE, BOB = "0x" + "a1" * 20, "0x" + "b0" * 20
FIRST, SECOND = "0x" + "c1" * 20, "0x" + "c2" * 20
#: The identity function (Yellow Paper, appendix E), whose calls not every tracer lists.
A_PRECOMPILE = "0x" + "00" * 19 + "04"
ETHER = 10**18


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[AnvilNode]:
    async with AnvilNode(tmp_path / "anvil") as node:
        yield node


@asynccontextmanager
async def connected(node: AnvilNode, *, refusing: tuple[str, ...] = ()) -> AsyncIterator[tuple[EvmSource, Door]]:
    async with door_before(node.url, refusing=refusing) as door:
        source = EvmSource(door.url, chain_id=31337)
        try:
            yield source, door
        finally:
            await source.close()


async def newest(node: AnvilNode, *, refusing: tuple[str, ...] = ()) -> Block:
    async with connected(node, refusing=refusing) as (source, _):
        await source.identify()
        return await source.block(await node.height(), contracts=frozenset())


def internal(tx_hash: str, number: int, address: str, wei: int) -> Transfer:
    return Transfer(tx_hash, number, "native", address, wei)


@pytest.fixture(params=["debug_traceBlockByHash", "trace_block"])
def other_tracer(request: pytest.FixtureRequest) -> str:
    """The method to be refused, so that the other one is used."""
    return str(request.param)


async def test_ether_from_a_contract_wallet_is_a_transfer_by_either_tracer(node: AnvilNode, other_tracer: str) -> None:
    wallet = await node.deploy_wallet()
    tx_hash = await node.forward(wallet, ALICE, ETHER)
    await node.mine()

    block = await newest(node, refusing=(other_tracer,))

    assert block.shows_internal_calls
    assert block.transfers == [internal(tx_hash, 0, wallet, ETHER), internal(tx_hash, 1, ALICE, ETHER)]


async def test_a_batch_of_an_exchange_pays_each_of_its_receivers(node: AnvilNode, other_tracer: str) -> None:
    await node.set_code(FIRST, code(pays(ALICE, 1), pays(BOB, 2), pays(ALICE, 3)))
    tx_hash = await node.send(FIRST, 6)
    await node.mine()

    block = await newest(node, refusing=(other_tracer,))

    assert block.transfers[1:] == [
        internal(tx_hash, 1, ALICE, 1),
        internal(tx_hash, 2, BOB, 2),
        internal(tx_hash, 3, ALICE, 3),
    ]


async def test_what_a_failed_frame_sent_on_never_arrived(node: AnvilNode, other_tracer: str) -> None:
    await node.set_code(SECOND, code(pays(ALICE, 5), reverts=True))
    await node.set_code(FIRST, code(pays(SECOND, 5), pays(BOB, 1)))
    tx_hash = await node.send(FIRST, 6)
    await node.mine()

    block = await newest(node, refusing=(other_tracer,))

    assert int(await node.rpc("eth_getBalance", ALICE, "latest"), 16) == 0
    assert block.transfers[1:] == [internal(tx_hash, 1, BOB, 1)]


async def test_calls_of_a_failed_transaction_never_arrived(node: AnvilNode, other_tracer: str) -> None:
    await node.set_code(FIRST, code(pays(ALICE, 5), reverts=True))
    await node.send(FIRST, 5)
    await node.mine()

    block = await newest(node, refusing=(other_tracer,))

    assert (block.shows_internal_calls, block.transfers) == (True, [])


async def test_what_a_destroyed_contract_held_goes_to_its_heir(node: AnvilNode, other_tracer: str) -> None:
    tx_hash = await node.create_with(leaves_all_to(ALICE), 7)
    await node.mine()

    block = await newest(node, refusing=(other_tracer,))

    assert int(await node.rpc("eth_getBalance", ALICE, "latest"), 16) == 7
    assert block.transfers == [internal(tx_hash, 1, ALICE, 7)]


async def test_borrowed_code_brings_its_owner_nothing(node: AnvilNode, other_tracer: str) -> None:
    await node.set_code(ALICE, code(pays(BOB, 1)))
    await node.set_code(FIRST, code(borrows(ALICE), runs_with_value(ALICE, 3)))
    tx_hash = await node.send(FIRST, 4)
    await node.mine()

    block = await newest(node, refusing=(other_tracer,))

    assert int(await node.rpc("eth_getBalance", ALICE, "latest"), 16) == 0
    assert block.transfers[1:] == [internal(tx_hash, 1, BOB, 1), internal(tx_hash, 2, BOB, 1)]


async def test_both_tracers_number_a_transaction_s_calls_alike(node: AnvilNode) -> None:
    await node.set_code(SECOND, code(pays(ALICE, 5), pays(BOB, 4), reverts=True))
    await node.set_code(BOB, code(pays(ALICE, 2), pays(A_PRECOMPILE, 0)))
    await node.set_code(FIRST, code(pays(SECOND, 9), pays(BOB, 4), borrows(SECOND), pays(ALICE, 1)))
    for sender in node.accounts[:3]:
        await node.rpc("eth_sendTransaction", {"from": sender, "to": FIRST, "value": hex(50), "gas": hex(900_000)})
    await node.mine()

    by_frames, by_traces = [await newest(node, refusing=(other,)) for other in reversed(TRACING)]

    assert by_frames == by_traces
    assert len(by_frames.transfers) == 3 * (1 + 3)


@pytest.mark.parametrize(
    ("refusing", "said"),
    [
        ((), "debug_traceBlockByHash"),
        (("debug_traceBlockByHash",), "trace_block"),
        (TRACING, "not shown: balances are compared"),
    ],
    ids=["both", "one", "none"],
)
async def test_how_a_node_shows_internal_calls_is_found_out_once_and_told(
    node: AnvilNode, refusing: tuple[str, ...], said: str
) -> None:
    wallet = await node.deploy_wallet()
    await node.forward(wallet, ALICE, ETHER)
    height = await node.mine()

    async with connected(node, refusing=refusing) as (source, door):
        capabilities = (await source.identify()).capabilities
        blocks = [await source.block(height, contracts=frozenset()) for _ in range(2)]

    assert capabilities["internal calls"] == said
    assert [block.shows_internal_calls for block in blocks] == [refusing != TRACING] * 2
    assert [door.asked[method] for method in refusing] == [1] * len(refusing)


async def test_a_block_without_transactions_hides_nothing(node: AnvilNode) -> None:
    await node.mine()

    block = await newest(node, refusing=TRACING)

    assert (block.shows_internal_calls, block.transfers) == (True, [])


async def test_a_node_that_stops_tracing_says_from_then_on_that_balances_must_be_compared(node: AnvilNode) -> None:
    wallet = await node.deploy_wallet()
    async with connected(node) as (source, door):
        await source.identify()
        await node.forward(wallet, ALICE, ETHER)
        height = await node.mine()
        door.refused.update(TRACING)

        blocks = [await source.block(height, contracts=frozenset()) for _ in range(2)]

    assert [block.shows_internal_calls for block in blocks] == [False, False]
    assert door.asked["debug_traceBlockByHash"] == 2  # once to find out, once in vain
