"""Runs of blocks from providers with limits: a server on loopback plays a chain of thirty-two blocks, and them."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from tests.nodes.rpc_server import http_server

from keyserver.watching.evm import EvmSource
from keyserver.watching.evm_wire import TRANSFER_TOPIC, bloom_bits
from keyserver.watching.ports import Block, BlockNotFound, NodeUnavailable

ALICE, PAYER, TOKEN = "0x" + "a1" * 20, "0x" + "f0" * 20, "0x" + "70" * 20
LENGTH = 32
Json = Any
Call = dict[str, Any]


@dataclass(frozen=True)
class Refused(Exception):
    code: int
    message: str
    data: Json = None


def block_hash(height: int, branch: int = 0) -> str:
    return f"0x{branch:032x}{height:032x}"


@dataclass
class Provider:
    """Every block holds one payment of its height in the coin, and one in the token if its height is even.

    `tip` is the newest block the node knows; above `forked_at` blocks are of another branch. `limit` may raise Refused
    for a range of blocks, `batch` answer a whole batch; `forget` are heights whose logs the node does not list.
    """

    tip: int = LENGTH
    forked_at: int = LENGTH
    limit: Callable[[range], None] = lambda _: None
    batch: Callable[[Sequence[Call]], web.Response | None] = lambda _: None
    forget: set[int] = field(default_factory=set)
    logs_of_rivals: bool = False
    requests: list[list[str]] = field(default_factory=list)
    ranges: list[int] = field(default_factory=list)

    def hash(self, height: int) -> str:
        return block_hash(height, int(height > self.forked_at))

    def block(self, height: int) -> Json:
        bloom = bloom_bits(TOKEN) | bloom_bits(TRANSFER_TOPIC) if height % 2 == 0 else 0
        payment = {"hash": f"0x{height:064x}", "from": PAYER, "to": ALICE, "value": hex(height)}
        return {
            "number": hex(height),
            "hash": self.hash(height),
            "parentHash": block_hash(height - 1),
            "timestamp": "0x68000000",
            "logsBloom": f"0x{bloom:0512x}",
            "transactions": [payment],
        }

    def log(self, height: int) -> Json:
        return {
            "address": TOKEN,
            "topics": [TRANSFER_TOPIC, "0x" + "00" * 12 + PAYER[2:], "0x" + "00" * 12 + ALICE[2:]],
            "data": f"0x{height:064x}",
            "blockNumber": hex(height),
            "blockHash": block_hash(height, 9) if self.logs_of_rivals else self.hash(height),
            "transactionHash": f"0x{height:064x}",
            "logIndex": "0x0",
        }

    def answer(self, method: str, params: Sequence[Json]) -> Json:
        match method:
            case "eth_getBlockByNumber":
                height = int(params[0], 16)
                return self.block(height) if height <= self.tip else None
            case "eth_getBlockReceipts":
                height = int(params[0][-32:], 16)
                receipt = {"transactionHash": f"0x{height:064x}", "blockHash": params[0], "status": "0x1"}
                return [{**receipt, "logs": [self.log(height)] if height % 2 == 0 else []}]
            case "eth_getLogs":
                return self._logs(params[0])
        raise Refused(-32601, "Method not found")

    def _logs(self, wanted: Json) -> Json:
        if "blockHash" in wanted:
            asked = range(int(wanted["blockHash"][-32:], 16), int(wanted["blockHash"][-32:], 16) + 1)
        else:
            asked = range(int(wanted["fromBlock"], 16), int(wanted["toBlock"], 16) + 1)
            self.ranges.append(len(asked))
            self.limit(asked)
        return [self.log(height) for height in asked if height % 2 == 0 and height not in self.forget]

    async def handle(self, request: web.Request) -> web.Response:
        asked = await request.json()
        calls = asked if isinstance(asked, list) else [asked]
        self.requests.append([call["method"] for call in calls])
        if isinstance(asked, list) and (answered := self.batch(calls)) is not None:
            return answered
        try:
            replies = [self._reply(call) for call in calls]
        except web.HTTPException as refusal:
            return web.Response(status=refusal.status, headers=refusal.headers)
        return web.json_response(replies if isinstance(asked, list) else replies[0])

    def _reply(self, call: Call) -> Json:
        envelope = {"jsonrpc": "2.0", "id": call["id"]}
        try:
            return {**envelope, "result": self.answer(call["method"], call["params"])}
        except Refused as error:
            return {**envelope, "error": {"code": error.code, "message": error.message, "data": error.data}}


@asynccontextmanager
async def serving(provider: Provider) -> AsyncIterator[EvmSource]:
    async with http_server(provider.handle) as url:
        source = EvmSource(url, chain_id=None, timeout=20.0)
        try:
            yield source
        finally:
            await source.close()


async def run(source: EvmSource, first: int = 1, count: int = 16) -> list[Block]:
    return await source.blocks(first, count, contracts=frozenset({TOKEN}))


def assert_whole(blocks: Sequence[Block], heights: range) -> None:
    assert [block.height for block in blocks] == list(heights)
    for block in blocks:
        paid = {transfer.asset: transfer.amount_units for transfer in block.transfers}
        assert paid == {"native": block.height} | ({TOKEN: block.height} if block.height % 2 == 0 else {})


async def test_a_run_of_blocks_takes_one_request_for_each_kind_of_part() -> None:
    provider = Provider()
    async with serving(provider) as source:
        assert_whole(await run(source), range(1, 17))

    assert provider.requests == [["eth_getBlockByNumber"] * 16, ["eth_getBlockReceipts"] * 16, ["eth_getLogs"]]
    assert provider.ranges == [16]


LIMITS = [
    Refused(-32005, "query returned more than 10000 results"),  # Infura, as documented
    Refused(-32602, "range 16 exceeds limit of 10000"),  # Infura, as it answers
    Refused(-32602, "invalid params", {"payload": "range 9009594 is bigger than range limit 2000"}),
    Refused(-32614, "eth_getLogs is limited to a 10,000 range"),  # QuickNode
    Refused(-32602, "Log response size exceeded. this block range should work: [0x1, 0x2]"),  # Alchemy
    Refused(-32000, "block range is larger than max block range, block range = 5120, max block range = 5000"),
    Refused(-32600, "block range too high"),
    Refused(-32005, "query timeout exceeded"),
    Refused(-32000, "exceed maximum block range: 50000"),
    Refused(-32603, "Internal error"),
]


@pytest.mark.parametrize("refusal", LIMITS, ids=lambda refusal: refusal.message[:30])
async def test_a_range_of_logs_is_halved_until_it_is_taken_in_whatever_words_it_was_refused(refusal: Refused) -> None:
    def at_most_five(asked: range) -> None:
        if len(asked) > 5:
            raise refusal

    provider = Provider(limit=at_most_five)
    async with serving(provider) as source:
        assert_whole(await run(source), range(1, 17))
        assert_whole(await run(source, 17), range(17, 33))

    assert provider.ranges == [16, 8, 4, 4, 4, 4, 4, 4, 4, 4]


async def test_a_range_that_is_too_long_for_one_http_answer_is_halved_too() -> None:
    def at_most_five(asked: range) -> None:
        if len(asked) > 5:
            raise web.HTTPRequestEntityTooLarge(1, 2)

    provider = Provider(limit=at_most_five)
    async with serving(provider) as source:
        assert_whole(await run(source), range(1, 17))


async def test_a_node_that_lists_no_range_at_all_is_asked_by_the_hashes_of_blocks() -> None:
    def never(asked: range) -> None:
        raise Refused(-32601, "the method eth_getLogs with a range is not available")

    provider = Provider(limit=never)
    async with serving(provider) as source:
        assert_whole(await run(source), range(1, 17))

    assert provider.ranges == [16, 8, 4, 2]


async def test_a_range_grows_back_when_shorter_ones_were_taken_for_a_while() -> None:
    refusals = [Refused(-32005, "query returned more than 10000 results")] * 3

    def in_the_beginning(asked: range) -> None:
        if refusals:
            raise refusals.pop()

    provider = Provider(limit=in_the_beginning)
    async with serving(provider) as source:
        for _ in range(12):
            assert_whole(await run(source), range(1, 17))

    assert provider.ranges[:5] == [16, 8, 4, 2, 2]
    assert max(provider.ranges[10:]) >= 4


async def test_an_empty_answer_for_a_block_of_the_range_that_its_bloom_filter_doubts_is_not_believed() -> None:
    provider = Provider(forget={4, 6})
    async with serving(provider) as source:
        assert_whole(await run(source), range(1, 17))


async def test_a_run_that_straddles_a_reorganisation_ends_before_it() -> None:
    provider = Provider(forked_at=5)
    async with serving(provider) as source:
        blocks = await run(source)

    assert_whole(blocks, range(1, 7))
    assert [block.hash for block in blocks] == [provider.hash(height) for height in range(1, 7)]


async def test_logs_of_a_rival_s_blocks_are_not_taken() -> None:
    provider = Provider(logs_of_rivals=True)
    async with serving(provider) as source:
        assert_whole(await run(source), range(1, 2))
        with pytest.raises(BlockNotFound):
            await run(source, 2)


async def test_a_run_ends_where_a_node_that_is_behind_knows_no_more() -> None:
    provider = Provider(tip=3)
    async with serving(provider) as source:
        assert_whole(await run(source), range(1, 4))
        with pytest.raises(BlockNotFound):
            await run(source, 4)


BATCH_LIMITS: list[Callable[[Sequence[Call]], web.Response]] = [
    lambda _: web.json_response(
        {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "batch too large"}}
    ),
    lambda _: web.json_response(
        {"jsonrpc": "2.0", "id": None, "error": {"code": -32005, "message": "batch request limit exceeded"}}
    ),
    lambda calls: web.json_response(
        [
            {"jsonrpc": "2.0", "id": call["id"], "error": {"code": -32014, "message": "maximum 10 calls in 1 batch"}}
            for call in calls
        ]
    ),
    lambda _: web.Response(status=413, text="too large"),
    lambda _: web.Response(status=400, text="<html>"),
    lambda calls: web.json_response([{"jsonrpc": "2.0", "id": calls[0]["id"], "result": None}]),
]


@pytest.mark.parametrize("refuse", BATCH_LIMITS, ids=["object", "limit", "an error each", "413", "400", "cut short"])
async def test_a_batch_is_halved_until_it_is_taken_and_stays_so(
    refuse: Callable[[Sequence[Call]], web.Response],
) -> None:
    provider = Provider(batch=lambda calls: refuse(calls) if len(calls) > 6 else None)
    async with serving(provider) as source:
        assert_whole(await run(source), range(1, 17))
        tries = len([request for request in provider.requests if len(request) > 6])
        assert_whole(await run(source, 17), range(17, 33))

    assert tries == 2  # sixteen, and eight
    assert len([request for request in provider.requests if len(request) > 6]) == tries


@pytest.mark.parametrize("status", [429, 503])
async def test_an_overloaded_provider_is_left_alone_for_as_long_as_it_wants(status: int) -> None:
    provider = Provider(batch=lambda _: web.Response(status=status, headers={"Retry-After": "7"}))
    async with serving(provider) as source:
        with pytest.raises(NodeUnavailable) as refused:
            await run(source)

    assert refused.value.retry_after == 7.0
    assert len(provider.requests) == 1


async def test_a_rate_limit_in_the_middle_of_a_run_is_no_reason_to_ask_for_less() -> None:
    def limited(asked: range) -> None:
        raise Refused(-32005, "daily request count exceeded, request rate limited")

    provider = Provider(limit=limited)
    async with serving(provider) as source:
        with pytest.raises(NodeUnavailable):
            await run(source)

    assert provider.ranges == [16]
