"""The bitcoind adapter against a real litecoind."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from tests.nodes.litecoin import FEE, FIRST_HEIGHT, GENESIS, MWEB_HEIGHT, LitecoinNode

from keyserver.kit.jsonrpc import JsonRpc
from keyserver.watching.bitcoind import BitcoindSource
from keyserver.watching.bitcoind_rpc import connect
from keyserver.watching.bitcoind_wire import NO_PARENT
from keyserver.watching.ports import Block, BlockNotFound, BlockRef, Mempool, NodeUnavailable, Transfer, WrongNode

pytestmark = pytest.mark.node

NEXT = FIRST_HEIGHT + 1
MATURITY = 100
NONE: frozenset[str] = frozenset()

Follow = Callable[..., BitcoindSource]


@pytest.fixture
async def litecoin() -> AsyncIterator[LitecoinNode]:
    async with LitecoinNode() as node:
        yield node


@pytest.fixture
async def follow() -> AsyncIterator[Follow]:
    """Sources for a node, closed at the end."""
    async with AsyncExitStack() as stack:

        def follow(node: LitecoinNode, **changed: Any) -> BitcoindSource:
            arguments: dict[str, Any] = {
                "url": node.url,
                "network": "regtest",
                "genesis_hash": GENESIS,
                "coinbase_maturity": MATURITY,
            }
            source = BitcoindSource(**arguments | changed)
            stack.push_async_callback(source.close)
            return source

        yield follow


@pytest.fixture
def source(litecoin: LitecoinNode, follow: Follow) -> BitcoindSource:
    return follow(litecoin)


async def block_at(source: BitcoindSource, height: int) -> Block:
    return await source.block(height, contracts=NONE)


async def waiting(source: BitcoindSource, known: frozenset[str] = NONE) -> Mempool:
    mempool = await source.mempool(known=known)
    assert mempool is not None
    return mempool


def paid_by(tx_hash: str, transfers: Block | Mempool) -> dict[tuple[int, str], int]:
    """Units by output index and address."""
    return {(t.output_index, t.address): t.amount_units for t in transfers.transfers if t.tx_hash == tx_hash}


# --- who it is --------------------------------------------------------------------------------------------------


async def test_the_node_is_identified_by_its_genesis_block(source: BitcoindSource) -> None:
    node = await source.identify()

    assert node.identity == GENESIS
    assert node.capabilities["software"].startswith("LitecoinCore:")
    assert (node.capabilities["blocks"], node.capabilities["mempool"]) == ("all", "yes")


async def test_a_fresh_regtest_node_is_usable_although_it_says_that_it_syncs(follow: Follow) -> None:
    async with LitecoinNode(fresh=True) as node:
        assert (await node.rpc("getblockchaininfo"))["initialblockdownload"] is True
        source = follow(node, genesis_hash=None)

        assert (await source.identify()).identity == GENESIS
        assert await source.tip() == BlockRef(0, GENESIS)


@pytest.mark.parametrize("network", ["mainnet", "testnet", "signet"])
async def test_a_node_of_another_network_is_the_wrong_node(
    litecoin: LitecoinNode, follow: Follow, network: str
) -> None:
    with pytest.raises(WrongNode, match=f"follows regtest, but was registered for {network}"):
        await follow(litecoin, network=network).identify()


async def test_a_node_with_another_first_block_is_the_wrong_node(litecoin: LitecoinNode, follow: Follow) -> None:
    bitcoins_regtest = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"

    with pytest.raises(WrongNode, match=f"starts with {GENESIS}"):
        await follow(litecoin, genesis_hash=bitcoins_regtest).identify()


# --- blocks -----------------------------------------------------------------------------------------------------


async def test_the_tip_moves_with_every_block(litecoin: LitecoinNode, source: BitcoindSource) -> None:
    before = await source.tip()
    mined = await litecoin.mine(2)

    assert before.height == FIRST_HEIGHT
    assert await source.tip() == BlockRef(FIRST_HEIGHT + 2, mined[1])
    assert [await source.block_hash(height) for height in (NEXT, NEXT + 1)] == mined


async def test_blocks_are_chained_by_their_parents_from_the_first(source: BitcoindSource) -> None:
    blocks = [await block_at(source, height) for height in range(4)]

    assert [block.parent_hash for block in blocks] == [NO_PARENT, *(block.hash for block in blocks[:3])]
    assert blocks[0].hash == GENESIS


async def test_a_block_was_mined_when_its_header_says(litecoin: LitecoinNode, source: BitcoindSource) -> None:
    await litecoin.mine()

    mined_at = await source.mined_at(NEXT)

    assert (await block_at(source, NEXT)).mined_at == mined_at
    assert mined_at.tzinfo is UTC
    assert abs(mined_at - datetime.now(UTC)) < timedelta(minutes=5)


async def test_nothing_is_found_above_the_tip(source: BitcoindSource) -> None:
    for ask in (source.block_hash(NEXT), source.mined_at(NEXT), block_at(source, NEXT)):
        with pytest.raises(BlockNotFound, match=f"no block at height {NEXT}"):
            await ask


@pytest.mark.parametrize("kind", ["legacy", "p2sh-segwit", "bech32"])
async def test_a_payment_in_a_block_is_exact_to_the_unit(
    litecoin: LitecoinNode, source: BitcoindSource, kind: str
) -> None:
    address = await litecoin.address(kind)
    tx_hash = await litecoin.send(address, "1.10000003")
    (block_hash,) = await litecoin.mine()

    block = await block_at(source, NEXT)

    assert block.hash == block_hash
    (payment,) = [transfer for transfer in block.transfers if transfer.address == address]
    assert (payment.tx_hash, payment.asset, payment.amount_units) == (tx_hash, "native", 110_000_003)


async def test_one_transaction_pays_many_addresses(litecoin: LitecoinNode, source: BitcoindSource) -> None:
    amounts = {await litecoin.address(): Decimal(n) / 1000 for n in range(1, 21)}
    tx_hash = await litecoin.send_many(amounts)
    await litecoin.mine()

    paid = paid_by(tx_hash, await block_at(source, NEXT))

    assert {address: units for (_, address), units in paid.items() if address in amounts} == {
        address: int(amount * 10**8) for address, amount in amounts.items()
    }
    assert [index for index, _ in paid] == list(range(21))  # and the change


async def test_two_outputs_to_one_address_are_two_transfers(litecoin: LitecoinNode, source: BitcoindSource) -> None:
    address = await litecoin.address("legacy")
    tx_hash = await litecoin.send_twice(address, 1, "2.5")
    await litecoin.mine()

    paid = paid_by(tx_hash, await block_at(source, NEXT))

    assert paid[0, address] == 100_000_000
    assert paid[1, address] == 250_000_000


async def test_the_miners_own_output_is_a_transfer(litecoin: LitecoinNode, source: BitcoindSource) -> None:
    address = await litecoin.address()
    await litecoin.mine(1, address)

    (reward,) = (await block_at(source, NEXT)).transfers
    assert (reward.address, reward.output_index, reward.amount_units) == (address, 0, 50 * 10**8)
    assert reward.least_confirmations == MATURITY


@pytest.mark.parametrize(("descriptor", "transfers"), [("pkh({})", 1), ("pk({})", 0), ("multi(1,{})", 0)])
async def test_bare_keys_and_bare_multisig_are_no_addresses(
    litecoin: LitecoinNode, source: BitcoindSource, descriptor: str, transfers: int
) -> None:
    """Of a 1-of-1 multisig this node prints one address, though no output to that address looks so."""
    key = (await litecoin.rpc("getaddressinfo", await litecoin.address()))["pubkey"]
    checked = (await litecoin.rpc("getdescriptorinfo", descriptor.format(key)))["descriptor"]
    await litecoin.rpc("generatetodescriptor", 1, checked)

    assert len((await block_at(source, NEXT)).transfers) == transfers


async def test_data_and_worthless_outputs_are_passed_over(litecoin: LitecoinNode, source: BitcoindSource) -> None:
    coin = (await litecoin.rpc("listunspent"))[0]
    address = await litecoin.address()
    outputs = [{"data": "00ff"}, {await litecoin.address(): "0"}, {address: "0.00000001"}]
    raw = await litecoin.sign(await litecoin.rpc("createrawtransaction", [_outpoint(coin)], outputs))
    await litecoin.generate_block(await litecoin.address(), [raw])
    tx_hash = (await litecoin.rpc("decoderawtransaction", raw))["txid"]

    assert paid_by(tx_hash, await block_at(source, NEXT)) == {(2, address): 1}


def _outpoint(coin: dict[str, Any]) -> dict[str, Any]:
    return {"txid": coin["txid"], "vout": coin["vout"]}


# --- forks ------------------------------------------------------------------------------------------------------


async def test_after_a_reorganisation_the_heights_have_other_blocks(
    litecoin: LitecoinNode, source: BitcoindSource
) -> None:
    await litecoin.mine(2)
    orphaned = [await block_at(source, height) for height in (NEXT, NEXT + 1)]
    mined = await litecoin.reorg(2)

    now = [await block_at(source, height) for height in range(NEXT, NEXT + 3)]

    assert [block.hash for block in now] == mined
    assert now[0].parent_hash == orphaned[0].parent_hash
    assert {block.hash for block in orphaned}.isdisjoint(mined)


async def test_a_payment_can_leave_the_chain_with_its_block(litecoin: LitecoinNode, source: BitcoindSource) -> None:
    tx_hash = await litecoin.send(await litecoin.address(), 1)
    await litecoin.mine()
    assert paid_by(tx_hash, await block_at(source, NEXT))

    await litecoin.reorg(1, transactions=[])

    assert [paid_by(tx_hash, await block_at(source, height)) for height in (NEXT, NEXT + 1)] == [{}, {}]
    assert tx_hash in (await waiting(source)).tx_hashes


async def test_a_shortened_branch_has_no_block_at_its_old_height(
    litecoin: LitecoinNode, source: BitcoindSource
) -> None:
    (block_hash,) = await litecoin.mine()
    await litecoin.invalidate(block_hash)

    assert (await source.tip()).height == FIRST_HEIGHT
    with pytest.raises(BlockNotFound):
        await block_at(source, NEXT)


# --- the mempool ------------------------------------------------------------------------------------------------


async def test_a_payment_is_seen_before_it_is_in_a_block(litecoin: LitecoinNode, source: BitcoindSource) -> None:
    address = await litecoin.address()
    tx_hash = await litecoin.send(address, "0.12345678")

    mempool = await waiting(source)

    assert mempool.tip_hash == await litecoin.best()
    assert mempool.tx_hashes == {tx_hash}
    (seen,) = [transfer for transfer in mempool.transfers if transfer.address == address]
    assert (seen.tx_hash, seen.amount_units) == (tx_hash, 12_345_678)

    await litecoin.mine()
    assert seen in (await block_at(source, NEXT)).transfers
    assert (await waiting(source)).tx_hashes == NONE


async def test_known_transactions_are_listed_but_not_looked_at_again(
    litecoin: LitecoinNode, source: BitcoindSource
) -> None:
    first = await litecoin.send(await litecoin.address(), 1)
    second = await litecoin.send(await litecoin.address(), 1)

    mempool = await waiting(source, frozenset({first, "00" * 32}))

    assert mempool.tx_hashes == {first, second}
    assert {transfer.tx_hash for transfer in mempool.transfers} == {second}


async def test_a_double_spent_payment_leaves_the_mempool_for_its_rival(
    litecoin: LitecoinNode, source: BitcoindSource
) -> None:
    payment = await litecoin.send(await litecoin.address(), 1)
    elsewhere = await litecoin.address()
    rival = await litecoin.rival(payment, elsewhere)
    assert payment in (await waiting(source)).tx_hashes

    block_hash = await litecoin.generate_block(await litecoin.address(), [rival])

    mempool = await waiting(source, frozenset({payment}))
    assert (mempool.tip_hash, mempool.tx_hashes) == (block_hash, NONE)
    block = await block_at(source, NEXT)
    assert [t.amount_units for t in block.transfers if t.address == elsewhere] == [50 * 10**8 - int(FEE * 10**8)]


async def test_more_transactions_than_fit_one_request_are_all_seen(
    litecoin: LitecoinNode, source: BitcoindSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keyserver.watching.bitcoind_transactions.BATCH", 4)
    target = await litecoin.address()
    sent = {}
    for number, coin in enumerate(await litecoin.rpc("listunspent"), start=1):
        outputs = [{target: str(Decimal(number))}]
        raw = await litecoin.rpc("createrawtransaction", [_outpoint(coin)], outputs)
        sent[await litecoin.rpc("sendrawtransaction", await litecoin.sign(raw), 0)] = number * 10**8

    mempool = await waiting(source)

    assert len(sent) > 8
    assert mempool.tx_hashes == sent.keys()
    assert {(t.tx_hash, t.address, t.amount_units) for t in mempool.transfers} == {
        (tx_hash, target, units) for tx_hash, units in sent.items()
    }


# --- MWEB -------------------------------------------------------------------------------------------------------


async def test_confidential_outputs_are_passed_over_and_peg_outs_are_payments(
    litecoin: LitecoinNode, source: BitcoindSource
) -> None:
    await litecoin.rpc("createwallet", "confidential")
    confidential = connect(litecoin.wallet_url("confidential"))
    try:
        peg_in, peg_out = await _peg_in_and_out(litecoin, source, confidential)
    finally:
        await confidential.close()

    assert [(t.output_index, t.amount_units) for t in peg_out if t.amount_units == 150_000_000] == [(1, 150_000_000)]
    assert len(peg_in) == 1  # the miner's


async def _peg_in_and_out(
    litecoin: LitecoinNode, source: BitcoindSource, confidential: JsonRpc
) -> tuple[list[Transfer], list[Transfer]]:
    """Transfers of the block with the peg-in, and those to the address of a peg-out in its own block."""
    await litecoin.mine(MWEB_HEIGHT - FIRST_HEIGHT - 1)
    peg_in = await litecoin.send(await confidential.call("getnewaddress", "", "mweb"), 7)
    seen = await waiting(source)
    assert seen.tx_hashes == {peg_in}
    assert seen.transfers == []
    await litecoin.mine()
    assert "mweb" in await litecoin.rpc("getblock", await litecoin.best(), 2)

    address = await litecoin.address()
    inside = await confidential.call("sendtoaddress", address, "1.5")
    seen = await waiting(source)
    assert seen.tx_hashes == {inside}
    assert seen.transfers == []
    await litecoin.mine()

    with_peg_in, with_peg_out = await block_at(source, MWEB_HEIGHT), await block_at(source, MWEB_HEIGHT + 1)
    return list(with_peg_in.transfers), [t for t in with_peg_out.transfers if t.address == address]


# --- getting in, and staying ------------------------------------------------------------------------------------


async def test_a_wrong_password_is_said_without_saying_it(litecoin: LitecoinNode, follow: Follow) -> None:
    source = follow(litecoin, url=f"http://somebody:sesame@127.0.0.1:{litecoin.port}/")

    with pytest.raises(NodeUnavailable, match="refused our user name and password") as caught:
        await source.tip()

    assert "sesame" not in repr(caught.value)


async def test_the_cookie_file_lets_us_in_and_may_change_with_a_restart(follow: Follow) -> None:
    async with LitecoinNode(cookie=True) as node:
        source = follow(node)
        assert (await source.tip()).height == FIRST_HEIGHT
        first = node.cookie_file.read_text()

        await node.restart()

        assert node.cookie_file.read_text() != first
        assert (await source.tip()).height == FIRST_HEIGHT


async def test_a_missing_cookie_file_is_a_node_that_does_not_run(follow: Follow) -> None:
    async with LitecoinNode(cookie=True) as node:
        source = follow(node)
        node.cookie_file.unlink()

        with pytest.raises(NodeUnavailable, match=r"cookie file .* cannot be read; is the node running\?"):
            await source.tip()


async def test_a_killed_node_is_unavailable_until_it_runs_again(litecoin: LitecoinNode, source: BitcoindSource) -> None:
    tip = await source.tip()
    await litecoin.kill()
    for ask in (source.identify(), source.tip(), block_at(source, 1), source.mempool(known=NONE)):
        with pytest.raises(NodeUnavailable, match=f"127.0.0.1:{litecoin.port}"):
            await ask

    await litecoin.restart()

    assert await source.tip() == tip


async def test_blocks_and_mempool_outlive_a_restart(litecoin: LitecoinNode, source: BitcoindSource) -> None:
    await litecoin.mine(3)
    tip = await source.tip()
    tx_hash = await litecoin.send(await litecoin.address(), 1)

    await litecoin.restart()

    assert await source.tip() == tip
    assert tx_hash in (await waiting(source)).tx_hashes


async def test_a_node_that_hangs_is_unavailable_when_the_time_is_up(litecoin: LitecoinNode, follow: Follow) -> None:
    source = follow(litecoin, timeout=0.3)
    litecoin.pause()
    try:
        with pytest.raises(NodeUnavailable, match=r"did not answer within 0\.3 seconds"):
            await source.tip()
    finally:
        litecoin.resume()

    assert (await source.tip()).height == FIRST_HEIGHT
