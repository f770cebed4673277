"""The EVM adapter with what nodes and providers do that no development node does: a server on loopback plays them."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web

from keyserver.watching.evm import EvmSource
from keyserver.watching.evm_wire import TRANSFER_TOPIC, bloom_bits
from keyserver.watching.ports import Block, BlockNotFound, NodeUnavailable, SourceError, Transfer

HEIGHT = 0x64
BLOCK = "0x" + "bb" * 32
OTHER_BLOCK = "0x" + "cc" * 32
PARENT = "0x" + "aa" * 32
PAYER = "0x" + "f0" * 20
ALICE = "0x" + "a1" * 20
TOKEN = "0x" + "70" * 20
HUGE = 2**256 - 1
LATER = "later"

Json = Any
Answer = Callable[[Sequence[Json]], Json]


@dataclass(frozen=True)
class Refused(Exception):
    code: int
    message: str


METHOD_MISSING = Refused(-32601, "the method eth_getBlockReceipts does not exist/is not available")


# --- a block ------------------------------------------------------------------------------------------------------


def tx_hash(number: int) -> str:
    return f"0x{number:064x}"


def a_transaction(number: int, *, wei: int = 0, to: str | None = ALICE) -> Json:
    return {"hash": tx_hash(number), "from": PAYER, "to": to, "value": hex(wei), "blockHash": BLOCK}


def a_log(number: int, *, units: int, index: int = 0) -> Json:
    return {
        "address": TOKEN,
        "topics": [TRANSFER_TOPIC, _word(PAYER), _word(ALICE)],
        "data": f"0x{units:064x}",
        "blockHash": BLOCK,
        "transactionHash": tx_hash(number),
        "logIndex": hex(index),
        "removed": False,
    }


def _word(address: str) -> str:
    return "0x" + "00" * 12 + address[2:]


class ScriptedNode:
    """One block at HEIGHT. Answers truthfully until a test puts something else into `answers`, by method.

    `answers` holds functions of the parameters; one that raises Refused becomes an error. `requests` are the methods
    asked for, one list an HTTP request; `batch` and `http`, when set, answer a batch or any request whole, and
    requests for the methods in `overloaded` get HTTP 503.
    """

    def __init__(self, *, transactions: Sequence[Json] = (), logs: Sequence[Json] = ()) -> None:
        bloom = 0
        for log in logs:
            bloom |= bloom_bits(log["address"]) | bloom_bits(TRANSFER_TOPIC)
        self.block = {
            "number": hex(HEIGHT),
            "hash": BLOCK,
            "parentHash": PARENT,
            "timestamp": "0x68000000",
            "logsBloom": f"0x{bloom:0512x}",
            "transactions": list(transactions),
        }
        self.logs = list(logs)
        self.receipts = [
            {
                "transactionHash": transaction["hash"],
                "blockHash": BLOCK,
                "status": "0x1",
                "logs": [log for log in logs if log["transactionHash"] == transaction["hash"]],
            }
            for transaction in transactions
        ]
        self.answers: dict[str, Answer] = {
            "eth_chainId": lambda _: "0x1",
            "eth_syncing": lambda _: False,
            "web3_clientVersion": lambda _: "Geth/v1.16.0",
            "eth_getBlockByNumber": lambda params: self.block if params[0] in {"latest", hex(HEIGHT)} else None,
            "eth_getBlockReceipts": lambda params: self.receipts if params[0] == BLOCK else None,
            "eth_getTransactionReceipt": self._receipt,
            "eth_getLogs": lambda params: self.logs if params[0]["blockHash"] == BLOCK else _raise(UNKNOWN_BLOCK),
        }
        self.batch: Callable[[Sequence[Json]], web.Response] | None = None
        self.http: Callable[[], web.Response] | None = None
        self.overloaded: set[str] = set()
        self.requests: list[list[str]] = []
        self.url = ""

    def refuses(self, method: str, error: Refused) -> None:
        self.answers[method] = lambda _: _raise(error)

    def answers_in_turn(self, method: str, *answers: Json) -> None:
        """One answer after the other, the last for ever."""
        waiting = list(answers)
        self.answers[method] = lambda _: waiting.pop(0) if len(waiting) > 1 else waiting[0]

    def methods(self) -> list[str]:
        return [method for request in self.requests for method in request]

    def _receipt(self, params: Sequence[Json]) -> Json:
        return next((receipt for receipt in self.receipts if receipt["transactionHash"] == params[0]), None)

    async def handle(self, request: web.Request) -> web.Response:
        asked = await request.json()
        batch = isinstance(asked, list)
        self.requests.append([call["method"] for call in (asked if batch else [asked])])
        if self.http is not None:
            return self.http()
        if self.overloaded.intersection(self.requests[-1]):
            return web.Response(status=503, headers={"Retry-After": "3"})
        if batch and self.batch is not None:
            return self.batch(asked)
        return web.json_response([self.reply(call) for call in asked] if batch else self.reply(asked))

    def reply(self, call: Json) -> Json:
        envelope = {"jsonrpc": "2.0", "id": call["id"]}
        try:
            if call["method"] not in self.answers:
                raise Refused(-32601, "Method not found")
            return {**envelope, "result": self.answers[call["method"]](call["params"])}
        except Refused as error:
            return {**envelope, "error": {"code": error.code, "message": error.message}}


UNKNOWN_BLOCK = Refused(-32000, "unknown block")


def _raise(error: Refused) -> Json:
    raise error


@asynccontextmanager
async def serving(node: ScriptedNode) -> AsyncIterator[EvmSource]:
    application = web.Application()
    application.router.add_post("/{path:.*}", node.handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    node.url = f"http://{host}:{port}"
    source = EvmSource(f"{node.url}/v3/a-key-in-the-path", chain_id=1, timeout=10.0)
    try:
        yield source
    finally:
        await source.close()
        await runner.cleanup()


async def read(source: EvmSource, *, tokens: bool = True) -> Block:
    return await source.block(HEIGHT, contracts=frozenset({TOKEN}) if tokens else frozenset())


def ether(number: int, wei: int) -> Transfer:
    return Transfer(tx_hash(number), 0, "native", ALICE, wei)


def tokens(number: int, units: int, index: int = 0) -> Transfer:
    return Transfer(tx_hash(number), index, TOKEN, ALICE, units)


# --- what a block costs -------------------------------------------------------------------------------------------


async def test_a_block_is_read_with_three_calls() -> None:
    transactions = [a_transaction(number, wei=number) for number in range(1, 301)]
    node = ScriptedNode(transactions=transactions, logs=[a_log(1, units=5)])
    async with serving(node) as source:
        block = await read(source)

    assert len(block.transfers) == 301
    assert node.methods() == ["eth_getBlockByNumber", "eth_getBlockReceipts", "eth_getLogs"]


async def test_a_block_without_ether_transfers_asks_for_no_receipts() -> None:
    node = ScriptedNode(transactions=[a_transaction(1), a_transaction(2, wei=5, to=None)], logs=[a_log(1, units=5)])
    async with serving(node) as source:
        assert (await read(source)).transfers == [tokens(1, 5)]

    assert node.methods() == ["eth_getBlockByNumber", "eth_getLogs"]


async def test_without_registered_contracts_no_logs_are_asked_for() -> None:
    node = ScriptedNode(transactions=[a_transaction(1, wei=5)], logs=[a_log(1, units=5)])
    async with serving(node) as source:
        assert (await read(source, tokens=False)).transfers == [ether(1, 5)]

    assert "eth_getLogs" not in node.methods()


# --- receipts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "refusal",
    [
        METHOD_MISSING,
        Refused(-32600, "Unsupported method: eth_getBlockReceipts. See available methods at https://docs.example"),
        Refused(-32001, "rpc method is not whitelisted"),
        Refused(-32004, "Method not supported"),
        Refused(-32000, "eth_getBlockReceipts is not available on this network"),
    ],
    ids=lambda refusal: f"{refusal.code}",
)
async def test_a_node_without_block_receipts_is_asked_for_them_singly_from_then_on(refusal: Refused) -> None:
    node = ScriptedNode(transactions=[a_transaction(1, wei=5), a_transaction(2), a_transaction(3, wei=6)])
    node.receipts[2]["status"] = "0x0"
    node.refuses("eth_getBlockReceipts", refusal)
    async with serving(node) as source:
        for _ in range(2):
            assert (await read(source)).transfers == [ether(1, 5)]

    assert node.methods().count("eth_getBlockReceipts") == 1
    assert node.methods().count("eth_getTransactionReceipt") == 4


@pytest.mark.parametrize(
    "answer",
    [
        Refused(-32000, "receipts length mismatch: 1 vs 0"),
        Refused(-32602, "invalid argument 0: hex string has length 64, want at most 16"),
        None,
    ],
    ids=["mismatch", "wants a number", "null"],
)
async def test_block_receipts_that_fail_once_are_tried_again_with_the_next_block(answer: Refused | None) -> None:
    node = ScriptedNode(transactions=[a_transaction(1, wei=5)])
    node.answers["eth_getBlockReceipts"] = lambda _: _raise(answer) if answer else None
    async with serving(node) as source:
        for _ in range(2):
            assert (await read(source)).transfers == [ether(1, 5)]

    assert node.methods().count("eth_getBlockReceipts") == 2


async def test_a_reconnection_tries_block_receipts_again() -> None:
    node = ScriptedNode(transactions=[a_transaction(1, wei=5)])
    truthful = node.answers["eth_getBlockReceipts"]
    node.refuses("eth_getBlockReceipts", METHOD_MISSING)
    async with serving(node) as source:
        await read(source)
        node.answers["eth_getBlockReceipts"] = truthful
        await source.identify()
        await read(source)

    assert node.methods().count("eth_getTransactionReceipt") == 1


async def test_a_receipt_left_out_of_the_block_s_is_asked_for_singly() -> None:
    node = ScriptedNode(transactions=[a_transaction(1, wei=5), a_transaction(2, wei=6)])
    node.answers["eth_getBlockReceipts"] = lambda _: node.receipts[:1]
    async with serving(node) as source:
        assert (await read(source)).transfers == [ether(1, 5), ether(2, 6)]


async def test_receipts_of_no_transaction_of_the_block_are_passed_over() -> None:
    node = ScriptedNode(transactions=[a_transaction(1, wei=5)])
    node.receipts.append({**node.receipts[0], "transactionHash": BLOCK})
    async with serving(node) as source:
        assert (await read(source)).transfers == [ether(1, 5)]


@pytest.mark.parametrize("method", ["eth_getBlockReceipts", "eth_getTransactionReceipt"])
async def test_receipts_of_a_rival_block_mean_that_the_branch_moved(method: str) -> None:
    node = ScriptedNode(transactions=[a_transaction(1, wei=5)])
    node.receipts[0]["blockHash"] = OTHER_BLOCK
    if method == "eth_getTransactionReceipt":
        node.refuses("eth_getBlockReceipts", METHOD_MISSING)
    async with serving(node) as source:
        with pytest.raises(BlockNotFound):
            await read(source)


async def test_a_transaction_without_a_receipt_means_that_the_branch_moved() -> None:
    node = ScriptedNode(transactions=[a_transaction(1, wei=5)])
    node.refuses("eth_getBlockReceipts", METHOD_MISSING)
    node.answers["eth_getTransactionReceipt"] = lambda _: None
    async with serving(node) as source:
        with pytest.raises(BlockNotFound):
            await read(source)


async def test_the_receipt_of_another_transaction_is_not_taken() -> None:
    node = ScriptedNode(transactions=[a_transaction(1, wei=5), a_transaction(2)])
    node.refuses("eth_getBlockReceipts", METHOD_MISSING)
    node.answers["eth_getTransactionReceipt"] = lambda _: node.receipts[1]
    async with serving(node) as source:
        with pytest.raises(NodeUnavailable, match="another transaction"):
            await read(source)


# --- batches ------------------------------------------------------------------------------------------------------


def without_block_receipts(count: int) -> ScriptedNode:
    node = ScriptedNode(transactions=[a_transaction(number, wei=number) for number in range(1, count + 1)])
    node.refuses("eth_getBlockReceipts", METHOD_MISSING)
    return node


async def test_a_batch_is_of_a_hundred_calls_at_most() -> None:
    node = without_block_receipts(250)
    async with serving(node) as source:
        assert len((await read(source, tokens=False)).transfers) == 250

    assert [len(request) for request in node.requests] == [1, 1, 100, 100, 50]


@pytest.mark.parametrize(
    "refuse",
    [
        lambda _: web.json_response({"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "no batches"}}),
        lambda _: web.Response(status=413, text="Request Entity Too Large"),
        lambda _: web.Response(status=200, text=""),
        lambda calls: web.json_response([{"jsonrpc": "2.0", "id": calls[0]["id"], "result": None}]),
        lambda calls: web.json_response(
            [
                {"jsonrpc": "2.0", "id": call["id"], "error": {"code": -32003, "message": "batch too large"}}
                for call in calls
            ]
        ),
    ],
    ids=["error object", "HTTP 413", "empty body", "cut short", "an error each"],
)
async def test_a_node_that_refuses_batches_is_asked_singly_from_then_on(
    refuse: Callable[[Sequence[Json]], web.Response],
) -> None:
    node = without_block_receipts(3)
    node.batch = refuse
    async with serving(node) as source:
        for _ in range(2):
            assert (await read(source)).transfers == [ether(1, 1), ether(2, 2), ether(3, 3)]

    assert [len(request) for request in node.requests].count(3) == 1


async def test_a_call_that_failed_in_a_batch_is_repeated_alone() -> None:
    node = without_block_receipts(3)
    failures = [Refused(-32000, "execution aborted")]

    def receipt(params: Sequence[Json]) -> Json:
        if params[0] == tx_hash(2) and failures:
            raise failures.pop()
        return node.receipts[int(params[0], 16) - 1]

    node.answers["eth_getTransactionReceipt"] = receipt
    async with serving(node) as source:
        for _ in range(2):
            assert (await read(source, tokens=False)).transfers == [ether(1, 1), ether(2, 2), ether(3, 3)]

    assert [len(request) for request in node.requests] == [1, 1, 3, 1, 1, 3]


# --- logs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "refusal",
    [
        UNKNOWN_BLOCK,  # geth, Infura, reth
        Refused(-32000, "Block not found"),  # besu
        Refused(-32000, f"block not found: {BLOCK}"),  # erigon
        Refused(-32001, f"{BLOCK} could not be found"),  # nethermind
        Refused(-32000, "One of the blocks specified in filter (fromBlock, toBlock or blockHash) cannot be found."),
        Refused(-32000, "The fromBlock or blockhash cannot be found"),  # Alchemy
        Refused(-32000, "header not found"),
        Refused(-32000, "block 36077340 not found"),
        Refused(-32000, "cannot query unfinalized data"),  # Avalanche
    ],
    ids=lambda refusal: refusal.message[:40],
)
@pytest.mark.parametrize("method", ["eth_getBlockByNumber", "eth_getBlockReceipts", "eth_getLogs"])
async def test_a_node_that_does_not_know_the_block_is_understood(method: str, refusal: Refused) -> None:
    node = ScriptedNode(transactions=[a_transaction(1, wei=5)], logs=[a_log(1, units=5)])
    node.refuses(method, refusal)
    async with serving(node) as source:
        with pytest.raises(BlockNotFound):
            await read(source)


async def test_an_empty_answer_that_the_bloom_filter_doubts_is_asked_again() -> None:
    node = ScriptedNode(transactions=[a_transaction(1)], logs=[a_log(1, units=5)])
    node.answers_in_turn("eth_getLogs", [], node.logs)
    async with serving(node) as source:
        assert (await read(source)).transfers == [tokens(1, 5)]

    assert node.methods() == ["eth_getBlockByNumber", "eth_getLogs", "eth_getLogs"]


@pytest.mark.parametrize("singly", [False, True], ids=["block receipts", "single receipts"])
async def test_logs_that_stay_empty_against_the_bloom_filter_are_read_from_the_receipts(singly: bool) -> None:
    node = ScriptedNode(transactions=[a_transaction(1), a_transaction(2, wei=7)], logs=[a_log(1, units=5)])
    node.answers["eth_getLogs"] = lambda _: []
    if singly:
        node.refuses("eth_getBlockReceipts", METHOD_MISSING)
    async with serving(node) as source:
        assert (await read(source)).transfers == [ether(2, 7), tokens(1, 5)]

    assert node.methods().count("eth_getLogs") == 2


async def test_a_wrong_yes_of_the_bloom_filter_does_not_hold_the_chain() -> None:
    node = ScriptedNode(transactions=[a_transaction(1)])
    node.block["logsBloom"] = "0x" + "ff" * 256
    async with serving(node) as source:
        assert (await read(source)).transfers == []


async def test_receipts_at_hand_are_not_asked_for_again() -> None:
    node = ScriptedNode(transactions=[a_transaction(1, wei=5)])
    node.block["logsBloom"] = "0x" + "ff" * 256
    async with serving(node) as source:
        await read(source)

    assert node.methods().count("eth_getBlockReceipts") == 1


async def test_logs_are_asked_for_even_when_the_bloom_filter_is_empty() -> None:
    node = ScriptedNode(transactions=[a_transaction(1)], logs=[a_log(1, units=5)])
    node.block["logsBloom"] = "0x" + "00" * 256
    async with serving(node) as source:
        assert (await read(source)).transfers == [tokens(1, 5)]


@pytest.mark.parametrize(
    "refusal",
    [
        Refused(-32005, "query returned more than 10000 results"),
        Refused(-32602, "Log response size exceeded"),
        Refused(-32602, "invalid params: blockHash is not accepted"),
    ],
    ids=lambda refusal: refusal.message,
)
async def test_logs_that_a_node_will_not_list_are_read_from_the_receipts(refusal: Refused) -> None:
    node = ScriptedNode(transactions=[a_transaction(1)], logs=[a_log(1, units=5)])
    node.refuses("eth_getLogs", refusal)
    async with serving(node) as source:
        assert (await read(source)).transfers == [tokens(1, 5)]


async def test_logs_of_a_rival_block_mean_that_the_branch_moved() -> None:
    node = ScriptedNode(transactions=[a_transaction(1)], logs=[a_log(1, units=5)])
    node.logs[0]["blockHash"] = OTHER_BLOCK
    async with serving(node) as source:
        with pytest.raises(BlockNotFound):
            await read(source)


async def test_a_log_that_is_listed_twice_is_one_transfer() -> None:
    node = ScriptedNode(transactions=[a_transaction(1)], logs=[a_log(1, units=5), a_log(1, units=6, index=1)])
    node.logs.append(deepcopy(node.logs[0]))
    async with serving(node) as source:
        assert (await read(source)).transfers == [tokens(1, 5), tokens(1, 6, index=1)]


# --- nodes that cannot serve now ----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
async def test_how_long_an_overloaded_provider_wants_us_to_wait_is_handed_on(status: int) -> None:
    node = ScriptedNode(transactions=[a_transaction(1, wei=5)])
    node.http = lambda: web.Response(status=status, headers={"Retry-After": "7"})
    async with serving(node) as source:
        for ask in (source.identify, source.tip, lambda: read(source)):
            with pytest.raises(NodeUnavailable) as refused:
                await ask()
            assert refused.value.retry_after == 7.0


@pytest.mark.parametrize(
    "limit",
    [
        Refused(429, "Your app has exceeded its compute units per second capacity"),
        Refused(-32005, "daily request count exceeded, request rate limited"),
        Refused(-32005, "limit exceeded"),
        Refused(-32016, "over rate limit"),
    ],
    ids=lambda limit: f"{limit.code} {limit.message[:12]}",
)
@pytest.mark.parametrize("method", ["eth_getBlockReceipts", "eth_getTransactionReceipt", "eth_getLogs"])
async def test_a_provider_at_its_limit_is_not_asked_more(method: str, limit: Refused) -> None:
    node = ScriptedNode(transactions=[a_transaction(1, wei=5), a_transaction(2, wei=6)], logs=[a_log(1, units=5)])
    if method == "eth_getTransactionReceipt":
        node.refuses("eth_getBlockReceipts", METHOD_MISSING)
    node.refuses(method, limit)
    async with serving(node) as source:
        with pytest.raises(NodeUnavailable):
            await read(source)

    assert node.requests[-1][0] == method
    assert len([request for request in node.requests if method in request]) == 1


async def test_a_batch_at_the_provider_s_limit_is_not_repeated_singly() -> None:
    node = without_block_receipts(3)
    node.batch = lambda _: web.Response(status=429, headers={"Retry-After": "2"})
    async with serving(node) as source:
        with pytest.raises(NodeUnavailable) as refused:
            await read(source)

    assert refused.value.retry_after == 2.0
    assert [len(request) for request in node.requests] == [1, 1, 3]


@pytest.mark.parametrize(
    "method", ["eth_getBlockByNumber", "eth_getBlockReceipts", "eth_getTransactionReceipt", "eth_getLogs"]
)
async def test_an_outage_in_the_middle_of_a_block_is_no_empty_block(method: str) -> None:
    node = ScriptedNode(transactions=[a_transaction(1, wei=5)], logs=[a_log(1, units=5)])
    node.overloaded.add(method)
    if method == "eth_getTransactionReceipt":
        node.refuses("eth_getBlockReceipts", METHOD_MISSING)
    async with serving(node) as source:
        with pytest.raises(NodeUnavailable) as refused:
            await read(source)
        node.overloaded.clear()
        assert (await read(source)).transfers == [ether(1, 5), tokens(1, 5)]

    assert refused.value.retry_after == 3.0


@pytest.mark.parametrize("method", ["eth_chainId", "eth_syncing", "web3_clientVersion"])
async def test_an_outage_while_a_node_is_identified_is_told(method: str) -> None:
    node = ScriptedNode()
    node.overloaded.add(method)
    async with serving(node) as source:
        with pytest.raises(NodeUnavailable):
            await source.identify()


async def test_an_answer_too_long_to_be_read_is_had_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    node = ScriptedNode(transactions=[a_transaction(number, wei=1) for number in range(1, 4)])
    node.answers["eth_getBlockReceipts"] = lambda _: node.receipts * 100
    node.answers["eth_getLogs"] = lambda _: [a_log(1, units=5)] * 100
    node.receipts[0]["logs"] = [a_log(1, units=5)]
    async with serving(node) as source:
        monkeypatch.setattr(source._rpc, "_max_bytes", 10_000)
        assert (await read(source)).transfers == [ether(1, 1), ether(2, 1), ether(3, 1), tokens(1, 5)]


async def test_a_syncing_node_is_unavailable_and_says_how_far_it_is() -> None:
    node = ScriptedNode()
    node.answers["eth_syncing"] = lambda _: {"startingBlock": "0x0", "currentBlock": "0x64", "highestBlock": "0x3e8"}
    async with serving(node) as source:
        with pytest.raises(NodeUnavailable, match="syncing: block 100 of 1000"):
            await source.identify()


@pytest.mark.parametrize("answer", [True, None, {}, {"stages": []}], ids=repr)
async def test_a_node_that_syncs_in_its_own_words_is_unavailable(answer: Json) -> None:
    node = ScriptedNode()
    node.answers["eth_syncing"] = lambda _: answer
    async with serving(node) as source:
        with pytest.raises(NodeUnavailable, match="syncing"):
            await source.identify()


async def test_a_node_that_fails_to_say_whether_it_syncs_is_unavailable() -> None:
    node = ScriptedNode()
    node.refuses("eth_syncing", Refused(-32603, "internal error"))
    async with serving(node) as source:
        with pytest.raises(NodeUnavailable, match="refused eth_syncing: internal error"):
            await source.identify()


async def test_a_provider_that_keeps_its_software_and_its_state_to_itself_is_taken() -> None:
    node = ScriptedNode()
    for method in ("eth_syncing", "web3_clientVersion"):
        node.refuses(method, Refused(-32601, "Method not found"))
    async with serving(node) as source:
        answered = await source.identify()

    assert answered.identity == "1"
    assert answered.capabilities == {"internal calls": "not shown: balances are compared"}


async def test_a_node_without_any_block_is_unavailable() -> None:
    node = ScriptedNode()
    node.answers["eth_getBlockByNumber"] = lambda _: None
    async with serving(node) as source:
        with pytest.raises(NodeUnavailable, match="no blocks yet"):
            await source.tip()


async def test_no_message_shows_the_key_in_the_node_s_url() -> None:
    node = ScriptedNode(transactions=[a_transaction(1, wei=5)])
    async with serving(node) as source:
        node.http = lambda: web.Response(status=401, text="invalid project id")
        with pytest.raises(NodeUnavailable) as refused:
            await source.tip()

    assert "a-key-in-the-path" not in str(refused.value)


# --- answers that are none ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    ["<html>Bad gateway</html>", "", "[]", "null", '{"jsonrpc": "2.0", "id": 0}', '{"result": {"number": "0x64", "ha'],
)
async def test_garbage_is_a_node_that_is_unavailable(body: str) -> None:
    node = ScriptedNode()
    node.http = lambda: web.Response(text=body, content_type="application/json")
    async with serving(node) as source:
        for ask in (source.identify, source.tip, lambda: source.block_hash(HEIGHT), lambda: read(source)):
            with pytest.raises(NodeUnavailable):
                await ask()


@pytest.mark.parametrize("answer", [{}, "0x", 5, [None], [{}]], ids=repr)
@pytest.mark.parametrize("method", ["eth_getBlockByNumber", "eth_getBlockReceipts", "eth_getLogs"])
async def test_an_answer_of_another_kind_is_a_node_that_is_unavailable(method: str, answer: Json) -> None:
    node = ScriptedNode(transactions=[a_transaction(1, wei=5)], logs=[a_log(1, units=5)])
    node.answers[method] = lambda _: answer
    async with serving(node) as source:
        with pytest.raises(NodeUnavailable, match="the node sent no"):
            await read(source)


WRONG: Sequence[Json] = (None, True, 0, -1, 1.5, "", "0x", "0xzz", "0x_1", " 0x1", "-0x1", "12", [], {}, [None], LATER)


def places(document: Json, *path: str | int) -> list[tuple[str | int, ...]]:
    """The path of every member in a JSON document."""
    members: Mapping[Any, Json] = dict(enumerate(document)) if isinstance(document, list) else document
    found: list[tuple[str | int, ...]] = []
    for name, value in members.items():
        found.append((*path, name))
        if isinstance(value, dict | list):
            found += places(value, *path, name)
    return found


def replace(document: Json, path: Sequence[str | int], value: Json) -> None:
    for name in path[:-1]:
        document = document[name]
    if value is LATER:
        del document[path[-1]]
    else:
        document[path[-1]] = value


def is_another_fact(path: Sequence[str | int], value: Json) -> bool:
    """Whether a change leaves something well-formed that says something else, and may change the transfers."""
    name = path[-1]
    if name in {"to", "removed"}:  # a contract creation, a log that was taken back
        return value in {"to": (None, LATER), "removed": (True,)}[str(name)]
    if name == "data":  # an event with other members
        return bool(value == "0x")
    return (name in {"transactions", "topics"} and value == []) or (isinstance(name, int) and value is LATER)


@pytest.mark.parametrize("part", ["block", "receipts", "logs"])
async def test_a_part_that_is_missing_or_malformed_is_never_passed_over(part: str) -> None:
    """Whatever one member is replaced by, the block is read as it is or not at all."""
    node = ScriptedNode(transactions=[a_transaction(1, wei=5), a_transaction(2, wei=6)], logs=[a_log(2, units=7)])
    truth = deepcopy(getattr(node, part))
    refused = 0
    async with serving(node) as source:
        whole = await read(source)
        for path in places(truth):
            for value in WRONG:
                changed = deepcopy(truth)
                replace(changed, path, value)
                setattr(node, part, changed)
                try:
                    block = await read(source)
                except SourceError:
                    refused += 1
                else:
                    assert block.transfers == whole.transfers or is_another_fact(path, value), (path, value)

    assert refused > 50


async def test_the_largest_amounts_are_kept_to_the_unit() -> None:
    node = ScriptedNode(transactions=[a_transaction(1, wei=HUGE)], logs=[a_log(1, units=HUGE, index=2**63 - 1)])
    async with serving(node) as source:
        assert (await read(source)).transfers == [ether(1, HUGE), tokens(1, HUGE, index=2**63 - 1)]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("transactions", 0, "value"), hex(2**256)),
        (("transactions", 0, "value"), "0x" + "f" * 5000),
        (("timestamp",), hex(2**62)),
        (("timestamp",), hex(2**64)),
        (("number",), hex(2**64 + HEIGHT)),
        (("number",), hex(HEIGHT + 1)),
    ],
    ids=lambda part: str(part)[:20],
)
async def test_numbers_beyond_what_they_count_are_refused(path: Sequence[str | int], value: str) -> None:
    node = ScriptedNode(transactions=[a_transaction(1, wei=5)])
    replace(node.block, path, value)
    async with serving(node) as source:
        with pytest.raises(NodeUnavailable) as refused:
            await read(source)

    assert len(str(refused.value)) < 200
