"""Runs of blocks, mempools in parts and news, from nodes too old, too busy or too forgetful for the usual way."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.nodes.rpc_server import Answer, Fault, ScriptedNode
from tests.watching.bitcoind_answers import (
    HEIGHT,
    MATURITY,
    NONE,
    P2PKH,
    P2WPKH,
    Follow,
    block,
    output,
    paying,
    quoted,
    sources,
    transaction,
)

from keyserver.watching.bitcoind import BitcoindSource
from keyserver.watching.ports import Block, BlockNotFound, BlockRef, NodeUnavailable

#: As dogecoind printed scripts: a list of addresses.
OLD_SCRIPT = f'{{"type": "pubkeyhash", "hex": "", "addresses": ["{P2PKH}"]}}'
NOT_A_BOOLEAN = "JSON value is not a boolean as expected"
NO_INDEX = "No such mempool transaction. Use -txindex to enable blockchain transaction queries."


@pytest.fixture
async def follow() -> AsyncIterator[Follow]:
    async with sources() as follow:
        yield follow


def hash_of(height: int) -> str:
    return f"{height:064x}"


class Chain(ScriptedNode):
    """Blocks up to height `tip`, each with one payment of its own height in units; `changed` are other answers."""

    def __init__(self, tip: int, **changed: Answer | Callable[..., Answer]) -> None:
        self.tip = tip
        self.refused: dict[int, Fault] = {}
        usual: dict[str, Answer | Callable[..., Answer]] = {
            "getblockchaininfo": lambda: json.dumps({"blocks": self.tip, "bestblockhash": hash_of(self.tip)}),
            "getblockhash": self.hash_at,
            "getblock": self.whole,
        }
        super().__init__(usual | changed)

    def hash_at(self, height: int) -> Answer:
        return quoted(hash_of(height)) if height <= self.tip else Fault(-8, "Block height out of range")

    def whole(self, block_hash: str, verbosity: int) -> Answer:
        assert verbosity == 2 and verbosity is not True
        height = int(block_hash, 16)
        return self.refused.get(height) or listed(height, transaction(paid(height), txid=f"tx{height}"))

    def asked(self, method: str) -> list[list[Any]]:
        return [parameters for name, parameters in self.calls if name == method]


def paid(units: int) -> str:
    return output(f"0.{units:08d}", paying(P2WPKH))


def listed(height: int, *transactions: str) -> str:
    return block(*transactions, hash=hash_of(height), height=height, previousblockhash=hash_of(height - 1))


async def run(source: BitcoindSource, first: int, count: int) -> list[int]:
    """Heights of the run, each block checked to be the one of its height."""
    blocks = await source.blocks(first, count, contracts=NONE)
    assert [each.hash for each in blocks] == [hash_of(each.height) for each in blocks]
    assert [[t.amount_units for t in each.transfers] for each in blocks] == [[each.height] for each in blocks]
    return [each.height for each in blocks]


# --- runs -------------------------------------------------------------------------------------------------------


async def test_a_run_costs_two_requests_and_the_next_is_on_its_way_meanwhile(follow: Follow) -> None:
    node = Chain(100)
    source = await follow(node)
    await source.tip()

    assert await run(source, 1, 8) == list(range(1, 9))
    async with asyncio.timeout(10):
        while len(node.asked("getblock")) < 16:  # noqa: ASYNC110 - the server is on the same loop
            await asyncio.sleep(0.01)
    assert await run(source, 9, 8) == list(range(9, 17))

    assert [len(body) for body in node.requests[1:5]] == [8, 8, 8, 8]
    assert [height for (height,) in node.asked("getblockhash")][:17] == [*range(1, 17), 16]  # 16: is it still so?


async def test_no_more_is_read_ahead_than_was_asked_for_and_nothing_above_the_tip(follow: Follow) -> None:
    node = Chain(10)
    source = await follow(node)
    await source.tip()

    assert await run(source, 1, 8) == list(range(1, 9))
    assert await run(source, 9, 8) == [9, 10]
    await asyncio.sleep(0.1)

    assert {int(parameters[0], 16) for parameters in node.asked("getblock")} == set(range(1, 11))


@pytest.mark.parametrize("fault", [Fault(-1, "Block not available (pruned data)"), Fault(-5, "Block not found")])
async def test_a_run_ends_before_a_block_that_fails_and_the_failure_is_told_when_it_is_first(
    follow: Follow, fault: Fault
) -> None:
    node = Chain(100)
    node.refused[4] = fault
    source = await follow(node)
    await source.tip()

    assert await run(source, 1, 8) == [1, 2, 3]
    with pytest.raises((NodeUnavailable, BlockNotFound), match="4"):
        await source.blocks(4, 8, contracts=NONE)

    del node.refused[4]
    assert await run(source, 4, 8) == list(range(4, 12))


async def test_a_run_too_large_for_one_answer_is_asked_for_in_parts(
    follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await follow(Chain(100))
    monkeypatch.setattr(source._rpc._rpc, "_max_bytes", 2_000)

    assert await run(source, 1, 16) == list(range(1, 17))


async def test_a_run_whose_parents_do_not_fit_ends_there(follow: Follow) -> None:
    node = Chain(100)

    def forked(block_hash: str, verbosity: int) -> Answer:
        answer = node.whole(block_hash, verbosity)
        assert isinstance(answer, str)
        return answer.replace(f'"previousblockhash": "{hash_of(5)}"', '"previousblockhash": "another"')

    node.answers = {**node.answers, "getblock": forked}
    source = await follow(node)

    assert await run(source, 1, 16) == [1, 2, 3, 4, 5]


# --- nodes without verbosity 2 ----------------------------------------------------------------------------------


class OldChain(Chain):
    """`verbose` is a boolean; transactions are had singly, by the block's hash if `by_block`, else by an index."""

    def __init__(self, *, refusal: str | None, by_block: bool, indexed: bool = True) -> None:
        self.refusal, self.by_block, self.indexed = refusal, by_block, indexed
        super().__init__(HEIGHT + 50, getrawtransaction=self.raw)

    def whole(self, block_hash: str, verbosity: int) -> Answer:
        if verbosity is not True and self.refusal is not None:
            return Fault(-1, self.refusal)
        return listed(int(block_hash, 16), '"coinbase"', '"paying"')

    def raw(self, tx_hash: str, _: int, *block_hash: str) -> Answer:
        if block_hash and not self.by_block:
            return Fault(-1, 'getrawtransaction "txid" ( verbose )')
        if not block_hash and not self.indexed:
            return Fault(-5, NO_INDEX)
        return transaction(output("1.5", OLD_SCRIPT), txid=tx_hash)


REFUSALS = [NOT_A_BOOLEAN, "value is type int, expected bool", None]


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize(("by_block", "indexed"), [(True, False), (False, True)])
async def test_an_older_nodes_block_is_put_together_from_its_transactions(
    follow: Follow, refusal: str | None, by_block: bool, indexed: bool
) -> None:
    node = OldChain(refusal=refusal, by_block=by_block, indexed=indexed)
    source = await follow(node)

    read = await source.block(HEIGHT, contracts=NONE)

    assert read.ref == BlockRef(HEIGHT, hash_of(HEIGHT))
    assert [(t.tx_hash, t.address, t.amount_units, t.least_confirmations) for t in read.transfers] == [
        ("coinbase", P2PKH, 150_000_000, MATURITY),
        ("paying", P2PKH, 150_000_000, 0),
    ]
    asked = len(node.calls)
    await source.block(HEIGHT, contracts=NONE)
    assert len(node.calls) - asked == 4, "what the node cannot do was tried again: hash, block, two transactions"


async def test_runs_of_an_older_nodes_blocks_are_read_too(follow: Follow) -> None:
    source = await follow(OldChain(refusal=NOT_A_BOOLEAN, by_block=False))
    await source.tip()

    heights: list[int] = []
    while len(heights) < 20:
        blocks: list[Block] = await source.blocks(HEIGHT + len(heights), 8, contracts=NONE)
        heights += [each.height for each in blocks]

    assert heights == list(range(HEIGHT, HEIGHT + len(heights)))


async def test_an_older_node_without_an_index_is_told_what_to_turn_on(follow: Follow) -> None:
    source = await follow(OldChain(refusal=NOT_A_BOOLEAN, by_block=False, indexed=False))

    with pytest.raises(NodeUnavailable, match=rf"^block {HEIGHT}: .* start it once with -txindex=1 -reindex"):
        await source.block(HEIGHT, contracts=NONE)


async def test_a_node_that_was_updated_is_asked_for_whole_blocks_again(follow: Follow) -> None:
    old = OldChain(refusal=NOT_A_BOOLEAN, by_block=False)
    old.answers = {
        **old.answers,
        "getnetworkinfo": '{"subversion": "/Shibetoshi:1.14.9/"}',
        "getblockchaininfo": f'{{"chain": "main", "blocks": {HEIGHT}, "headers": {HEIGHT}, "bestblockhash": "00"}}',
    }
    source = await follow(old)
    await source.block(HEIGHT, contracts=NONE)

    old.answers = {**old.answers, "getblock": Chain(HEIGHT).whole}
    await source.identify()
    await source.block(HEIGHT, contracts=NONE)

    assert old.asked("getblock")[-1] == [hash_of(HEIGHT), 2]


# --- a mempool in parts -----------------------------------------------------------------------------------------


async def test_a_great_mempool_is_given_in_parts_and_each_part_reads_only_what_is_new(
    follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keyserver.watching.bitcoind_mempool.MOST_AT_ONCE", 150)
    waiting = frozenset(f"{n:064x}" for n in range(400))
    node = Chain(
        1,
        getbestblockhash=quoted("tip"),
        getmempoolinfo="{}",
        getrawmempool=json.dumps(sorted(waiting)),
        getrawtransaction=lambda tx_hash, _: transaction(output("1", paying(P2PKH)), txid=tx_hash),
    )
    source = await follow(node)

    known, unread, seen = NONE, NONE, []
    for expected in (150, 150, 100):
        mempool = await source.mempool(known=known)
        assert mempool is not None
        assert mempool.tx_hashes == waiting
        assert len(mempool.transfers) == expected
        seen += [each.tx_hash for each in mempool.transfers]
        unread = mempool.unread
        known = mempool.tx_hashes - unread

    assert unread == NONE
    assert sorted(seen) == sorted(waiting)
    assert len(node.asked("getrawtransaction")) == 400


# --- news -------------------------------------------------------------------------------------------------------

TIP = BlockRef(7, "seven")


async def waited(source: BitcoindSource, within: float) -> float:
    began = time.monotonic()
    await source.news(TIP, within=within)
    return time.monotonic() - began


async def test_a_node_that_tells_no_news_is_asked_once_and_then_time_is_waited(follow: Follow) -> None:
    node = Chain(7, getbestblockhash=quoted("seven"), waitfornewblock=Fault(-32601, "Method not found"))
    source = await follow(node)

    assert await waited(source, 0.2) >= 0.2
    assert await waited(source, 0.2) >= 0.2

    assert node.methods().count("waitfornewblock") == 1


@pytest.mark.parametrize(
    "answer",
    [
        Fault(-28, "Loading block index…"),
        Fault(-1, "no"),
        '"garbage"',
        "null",
        json.dumps({"hash": "seven", "height": 7}),  # at once, as if it had waited
    ],
)
async def test_whatever_a_node_says_instead_of_news_the_time_is_waited_and_it_is_asked_again_next_time(
    follow: Follow, answer: Answer
) -> None:
    node = Chain(7, getbestblockhash=quoted("seven"), waitfornewblock=answer)
    source = await follow(node)

    assert await waited(source, 0.4) >= 0.4
    assert await waited(source, 0.4) >= 0.4

    assert node.methods().count("waitfornewblock") == 2


async def test_the_nodes_own_wait_is_as_long_as_ours_and_never_for_ever(follow: Follow) -> None:
    node = Chain(7, getbestblockhash=quoted("seven"), waitfornewblock=Fault(-1, "no"))
    source = await follow(node)

    for within in (0.0, 0.051, 0.3):
        await waited(source, within)

    assert all(1 <= milliseconds <= 300 for (milliseconds,) in node.asked("waitfornewblock"))
    assert node.asked("waitfornewblock")
