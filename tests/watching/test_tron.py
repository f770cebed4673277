"""The Tron adapter against a chain on loopback that answers as java-tron and TronGrid do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from tests.nodes.tron import USDT, Sent, TronNode, a_tron_node, batch, trc20, trx

from keyserver.watching.ports import BlockNotFound, FinalityTag, NodeUnavailable, Transfer, WrongNode
from keyserver.watching.tron import TronSource
from keyserver.watching.tron_native import places

#: Addresses of the published BIP-39 test phrase.
ALICE, BOB = "TUEZSdKsoDHQMeZwihtdoBiN46zxhGWYdH", "TSeJkUh4Qv67VNFwY8LaAxERygNdy6NQZK"
LOOK_ALIKE = "0xa614f803b6fd780986a42c78ec9c7f77e6ded13d"
#: Kinds of transactions that the JSON-RPC shows with a receiver and a value, and that are not TRX.
NOT_TRX = ["TransferAssetContract", "VoteWitnessContract", "FreezeBalanceContract", "UnfreezeBalanceContract"]


@asynccontextmanager
async def following(*, offers_coin: bool = True, **options: Any) -> AsyncIterator[tuple[TronNode, TronSource]]:
    async with a_tron_node(**options) as node:
        source = TronSource(node.url, chain_id=0x2B6653DC, offers_coin=offers_coin, timeout=10.0)
        try:
            yield node, source
        finally:
            await source.close()


async def newest(source: TronSource) -> list[Transfer]:
    """What the newest block moved, after the node was identified."""
    await source.identify()
    tip = await source.tip()
    return list((await source.block(tip.height, contracts=frozenset({USDT}))).transfers)


def summary(transfers: list[Transfer]) -> list[tuple[str, str, int]]:
    return [(each.asset, each.address, each.amount_units) for each in transfers]


# --- what is seen -------------------------------------------------------------------------------------------------


async def test_a_trc20_transfer_arrives_at_the_address_as_tron_writes_it() -> None:
    async with following() as (node, source):
        block_hash = node.mine(trc20(ALICE, 25_000_000))
        (transfer,) = await newest(source)

        (receipt,) = node.receipts(node.blocks[-1])
        assert transfer == Transfer(receipt["transactionHash"], 0, USDT, ALICE, 25_000_000)
        assert (await source.tip()).hash == block_hash
        block = await source.block(1001, contracts=frozenset({USDT}))
        assert block.mined_at.timestamp() == node.started_at + 3 * 1001


async def test_trx_sent_by_a_transaction_arrives_in_sun() -> None:
    async with following() as (node, source):
        node.mine(trx(ALICE, 1_500_000), trc20(BOB, 7))
        assert summary(await newest(source)) == [("native", ALICE, 1_500_000), (USDT, BOB, 7)]


@pytest.mark.parametrize("kind", NOT_TRX)
async def test_what_only_looks_like_trx_by_the_json_rpc_is_not_trx(kind: str) -> None:
    async with following() as (node, source):
        node.mine(trx(ALICE, 10**15, kind=kind), trx(BOB, 3))
        assert summary(await newest(source)) == [("native", BOB, 3)]


@pytest.mark.parametrize("offers_block_receipts", [True, False])
async def test_a_failed_transaction_moves_nothing_though_it_is_on_the_chain_with_its_events(
    offers_block_receipts: bool,
) -> None:
    async with following(offers_block_receipts=offers_block_receipts) as (node, source):
        failed = Sent("TransferContract", "0x" + "a1" * 20, 5, failed=True)
        node.mine(trc20(ALICE, 10**12, failed=True), failed, trc20(BOB, 1))
        assert summary(await newest(source)) == [(USDT, BOB, 1)]


async def test_one_call_that_pays_many_is_as_many_transfers() -> None:
    async with following() as (node, source):
        node.mine(batch((ALICE, 1), (BOB, 2), (ALICE, 3)))
        transfers = await newest(source)
        assert summary(transfers) == [(USDT, ALICE, 1), (USDT, BOB, 2), (USDT, ALICE, 3)]
        assert [each.output_index for each in transfers] == [0, 1, 2]


async def test_a_look_alike_token_is_nothing() -> None:
    async with following() as (node, source):
        node.mine(trc20(ALICE, 10**12, token=LOOK_ALIKE), trc20(ALICE, 2))
        assert summary(await newest(source)) == [(USDT, ALICE, 2)]


async def test_a_node_without_block_receipts_is_believed_when_receipts_agree_with_its_logs() -> None:
    async with following(offers_block_receipts=False) as (node, source):
        node.mine(trc20(ALICE, 4), trc20(BOB, 5))
        assert summary(await newest(source)) == [(USDT, ALICE, 4), (USDT, BOB, 5)]
        assert "eth_getLogs" in node.asked


async def test_an_empty_list_of_logs_proves_nothing_since_blocks_have_no_bloom_filter() -> None:
    async with following(offers_block_receipts=False, finds_logs=False) as (node, source):
        node.mine(trc20(ALICE, 4))
        assert summary(await newest(source)) == [(USDT, ALICE, 4)]


async def test_a_block_costs_three_calls_where_receipts_come_by_block() -> None:
    async with following() as (node, source):
        node.mine(*(trx(ALICE, 1 + number) for number in range(200)), trc20(BOB, 1))
        await newest(source)
        node.asked.clear()
        await source.block(1001, contracts=frozenset({USDT}))
        assert sorted(node.asked) == ["eth_getBlockByNumber", "eth_getBlockReceipts", "wallet"]


async def test_a_run_of_blocks_is_the_same_blocks() -> None:
    async with following() as (node, source):
        for number in range(1, 6):
            node.mine(trc20(ALICE, number), trx(BOB, number))
        await source.identify()
        run = await source.blocks(1001, 5, contracts=frozenset({USDT}))
        singly = [await source.block(height, contracts=frozenset({USDT})) for height in range(1001, 1006)]
        assert run == singly
        assert len(run) == 5


async def test_a_transaction_without_a_sender_is_read_and_moves_what_it_moves() -> None:
    async with following() as (node, source):
        node.mine(Sent("ShieldedTransferContract", "0x" + "a1" * 20, 9, sender=None), trc20(ALICE, 1))
        assert summary(await newest(source)) == [(USDT, ALICE, 1)]


@pytest.mark.parametrize("offers_block_receipts", [True, False])
async def test_a_block_that_a_second_node_does_not_know_is_not_read_as_empty(offers_block_receipts: bool) -> None:
    async with following(offers_block_receipts=offers_block_receipts) as (node, source):
        await source.identify()
        node.unknown.add(node.mine(trc20(ALICE, 1)))
        with pytest.raises(BlockNotFound):
            await source.block(1001, contracts=frozenset({USDT}))


# --- who answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chain_id", ["0x2b6653dc", "0x00000000000000001ebf88508a03865c71d452e25f4d51194196a1d22b6653dc"]
)
async def test_the_network_is_known_by_the_end_of_its_genesis_hash_which_older_nodes_answer_whole(
    chain_id: str,
) -> None:
    async with following(chain_id=chain_id) as (_, source):
        node = await source.identify()
        assert node.identity == str(0x2B6653DC)
        assert node.capabilities["client"].startswith("TRON/v4")
        assert node.capabilities["TRX"] == "told from TRC-10 tokens by /wallet/getblockbyid"


async def test_a_node_of_another_network_is_the_wrong_node() -> None:
    async with following(chain_id="0xcd8690dc") as (_, source):
        with pytest.raises(WrongNode, match="3448148188; registered is 728126428"):
            await source.identify()


async def test_a_node_that_always_says_it_syncs_is_synced_while_it_is_near_the_head() -> None:
    async with following(behind=30) as (node, source):
        await source.identify()
        node.behind = 5000
        with pytest.raises(NodeUnavailable, match="syncing: it is about 5000 blocks behind"):
            await source.identify()


async def test_where_trx_is_offered_a_node_that_cannot_tell_it_from_tokens_is_refused() -> None:
    async with following(offers_wallet=False) as (_, source):
        with pytest.raises(NodeUnavailable, match="TRX is offered as a payment method, but not seen"):
            await source.identify()


async def test_where_only_tokens_are_offered_such_a_node_serves_and_says_what_it_does_not_see() -> None:
    async with following(offers_wallet=False, offers_coin=False) as (node, source):
        node.mine(trx(ALICE, 10**9), trx(ALICE, 10**9, kind="TransferAssetContract"), trc20(ALICE, 1))
        assert summary(await newest(source)) == [(USDT, ALICE, 1)]
        assert (await source.identify()).capabilities["TRX"].startswith("not seen")


async def test_the_final_block_is_the_solid_one() -> None:
    async with following() as (node, source):
        node.mine(empty=29)
        assert await source.final_height(FinalityTag.FINALIZED) == 1030 - 19
        assert await source.final_height(FinalityTag.SAFE) is None  # which Tron does not have


async def test_balances_and_news_that_no_node_tells_are_not_asked_for() -> None:
    async with following() as (node, source):
        tip = await source.tip()
        node.asked.clear()
        assert await source.holdings([ALICE], block_hash=tip.hash) is None
        await source.news(tip, within=0.01)
        assert node.asked == []


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://api.example/jsonrpc", ["https://api.example/wallet/getblockbyid"]),
        ("https://a.example/key/jsonrpc?x=1", ["https://a.example/key/wallet/getblockbyid?x=1"]),
        (
            "http://10.0.0.5:8545/jsonrpc",
            ["http://10.0.0.5:8545/wallet/getblockbyid", "http://10.0.0.5:8090/wallet/getblockbyid"],
        ),
    ],
)
def test_the_http_api_is_looked_for_beside_the_json_rpc_and_on_java_trons_other_port(
    url: str, found: list[str]
) -> None:
    assert list(places(url)) == found


# --- limits of providers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "headers", "pause"),
    [
        (403, '{"Error":"The key exceeds the frequency limit(15), and the query server is suspended for 5s"}', {}, 5.0),
        (
            403,
            '{"Error":"request rate exceeded the allowed_rps(10), and the query server is suspended for 30 s"}',
            {},
            30.0,
        ),
        (503, '{"Error":"... the query server is suspended for 25s"}', {}, 25.0),
        (503, "<html>503 Service Temporarily Unavailable</html>", {}, None),
        (429, "", {"Retry-After": "7"}, 7.0),
    ],
)
async def test_a_suspension_is_waited_for_and_no_other_call_is_made_in_its_stead(
    status: int, body: str, headers: dict[str, str], pause: float | None
) -> None:
    async with following() as (node, source):
        node.mine(trc20(ALICE, 1), trx(ALICE, 1))
        await source.identify()
        node.headers.clear()
        node.refusal = web.Response(status=status, text=body, headers=headers)
        with pytest.raises(NodeUnavailable, match=f"HTTP {status}") as caught:
            await source.blocks(1001, 1, contracts=frozenset({USDT}))

    assert caught.value.retry_after == pause
    assert len(node.headers) == 1


async def test_a_403_that_names_no_pause_is_told_as_it_is() -> None:
    async with following() as (node, source):
        node.refusal = web.Response(status=403, text="<html>403 Forbidden</html>")
        with pytest.raises(NodeUnavailable, match="HTTP 403") as caught:
            await source.tip()
    assert caught.value.retry_after is None


async def test_the_providers_key_is_sent_to_both_of_its_doors() -> None:
    async with a_tron_node() as node:
        node.mine(trx(ALICE, 1))
        source = TronSource(
            node.url, chain_id=0x2B6653DC, offers_coin=True, headers={"TRON-PRO-API-KEY": "a-key"}, timeout=10.0
        )
        await newest(source)
        await source.close()
    assert "wallet" in node.asked
    assert {each["TRON-PRO-API-KEY"] for each in node.headers} == {"a-key"}
