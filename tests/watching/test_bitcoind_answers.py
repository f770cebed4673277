"""The bitcoind adapter against what a real litecoind on regtest cannot be made to answer."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from tests.nodes.rpc_server import Answer, Fault, Handler, ScriptedNode
from tests.watching.bitcoind_answers import (
    BITCOIN_GENESIS,
    HASH,
    HEIGHT,
    MATURITY,
    NONE,
    P2PKH,
    P2TR,
    P2WPKH,
    PARENT,
    TX,
    Follow,
    block,
    holding,
    network,
    output,
    paying,
    quoted,
    sources,
    transaction,
)

from keyserver.kit.money import format_units
from keyserver.watching.bitcoind import BitcoindSource
from keyserver.watching.bitcoind_wire import read_transfers
from keyserver.watching.ports import BlockNotFound, BlockRef, NodeUnavailable, SourceError, Transfer, WrongNode


@pytest.fixture
async def follow() -> AsyncIterator[Follow]:
    async with sources() as follow:
        yield follow


# --- who it is --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chain", "ours"),
    [
        ("main", "mainnet"),
        ("test", "testnet"),
        ("testnet4", "testnet"),
        ("signet", "signet"),
        ("regtest", "regtest"),
    ],
)
async def test_every_network_has_one_word_of_ours(follow: Follow, chain: str, ours: str) -> None:
    source = await follow(ScriptedNode(network(chain)), network=ours, genesis_hash=BITCOIN_GENESIS.upper())

    assert (await source.identify()).identity == BITCOIN_GENESIS


async def test_an_unheard_of_network_is_the_wrong_one(follow: Follow) -> None:
    source = await follow(ScriptedNode(network("liquidv1")))

    with pytest.raises(WrongNode, match="follows liquidv1"):
        await source.identify()


async def test_a_syncing_node_is_unavailable_and_says_how_far_it_is(follow: Follow) -> None:
    answers = network(initialblockdownload=True, blocks=780_123)
    answers["getblockchaininfo"] = answers["getblockchaininfo"].replace(
        '"verificationprogress": 1', '"verificationprogress": 0.9314159265358979'
    )
    source = await follow(ScriptedNode(answers))

    with pytest.raises(NodeUnavailable, match=r"still syncing: 93\.1 % of the chain, block 780123 of 840000"):
        await source.identify()


async def test_a_wrong_node_is_told_while_it_syncs(follow: Follow) -> None:
    source = await follow(ScriptedNode(network("test", initialblockdownload=True)))

    with pytest.raises(WrongNode):
        await source.identify()


async def test_capabilities_tell_of_pruning_and_of_a_mempool_that_stays_empty(follow: Follow) -> None:
    answers = network(pruned=True, pruneheight=839_000)
    answers["getnetworkinfo"] = '{"subversion": "/Satoshi:27.0.0/", "localrelay": false}'
    source = await follow(ScriptedNode(answers))

    assert (await source.identify()).capabilities == {
        "software": "Satoshi:27.0.0",
        "blocks": "from 839000",
        "mempool": "only blocks are relayed",
    }


async def test_an_older_relative_without_the_newer_fields_is_understood(follow: Follow) -> None:
    answers = network()
    answers["getblockchaininfo"] = f'{{"chain": "main", "blocks": 5, "headers": 5, "bestblockhash": "{HASH}"}}'
    answers["getnetworkinfo"] = '{"subversion": "/Shibetoshi:1.14.9/"}'
    source = await follow(ScriptedNode(answers))

    assert (await source.identify()).capabilities["software"] == "Shibetoshi:1.14.9"
    assert await source.tip() == BlockRef(5, HASH)


# --- blocks -----------------------------------------------------------------------------------------------------


async def test_addresses_of_newer_nodes_are_read(follow: Follow) -> None:
    outputs = [
        output("0.00000001", paying(P2WPKH), 0),
        output("20999999.97690000", paying(P2TR, "witness_v1_taproot"), 1),
        output("7", paying(P2PKH, "pubkeyhash"), 2),
    ]
    source = await follow(holding(block(transaction(*outputs))))

    read = await source.block(HEIGHT, contracts=NONE)

    assert (read.ref, read.parent_hash) == (BlockRef(HEIGHT, HASH), PARENT)
    assert read.mined_at == datetime(2024, 4, 20, 0, 9, 27, tzinfo=UTC)
    assert read.transfers == [
        Transfer(TX, 0, "native", P2WPKH, 1, MATURITY),
        Transfer(TX, 1, "native", P2TR, 2_099_999_997_690_000, MATURITY),
        Transfer(TX, 2, "native", P2PKH, 700_000_000, MATURITY),
    ]


@pytest.mark.parametrize(
    "script",
    [
        '{"type": "nulldata", "hex": "6a"}',
        '{"type": "nonstandard", "hex": "51"}',
        '{"type": "witness_mweb_hogaddr", "hex": "5820"}',
        '{"type": "pubkey", "hex": ""}',
        f'{{"type": "pubkey", "hex": "", "addresses": ["{P2PKH}"]}}',
        f'{{"type": "multisig", "hex": "", "addresses": ["{P2PKH}"]}}',
        f'{{"type": "multisig", "hex": "", "addresses": ["{P2PKH}", "{P2WPKH}"]}}',
        '{"type": "nonstandard", "hex": "", "addresses": []}',
        f'{{"type": "nonstandard", "hex": "", "addresses": ["{P2PKH}", "{P2WPKH}"]}}',
    ],
)
async def test_outputs_without_one_address_are_passed_over(follow: Follow, script: str) -> None:
    outputs = [output("1.00000000", script, 0), '{"ismweb": true, "output_id": "00"}', output("1", paying(P2PKH), 2)]
    source = await follow(holding(block(transaction(*outputs))))

    assert [t.output_index for t in (await source.block(HEIGHT, contracts=NONE)).transfers] == [2]


@given(units=st.integers(min_value=1, max_value=10**19 - 1))
def test_every_amount_is_read_exactly(units: int) -> None:
    value = json.loads(f"{units // 10**8}.{units % 10**8:08d}", parse_float=Decimal)
    script = {"type": "pubkeyhash", "address": P2PKH}

    (transfer,) = read_transfers({"txid": TX, "vout": [{"value": value, "n": 0, "scriptPubKey": script}]})

    assert transfer.amount_units == units
    assert Decimal(format_units(transfer.amount_units, 8)) == value


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "{}",
        "[]",
        '"00ff"',
        block().replace('"tx": []', '"tx": null'),
        block().replace('"tx": []', '"no": 1'),
        block(transaction()).replace('"vout"', '"outs"'),
        block(transaction('{"value": 1, "n": 0}')),
        block(transaction(output("1", "null"))),
        block(transaction(output("1.000000001", paying(P2PKH)))),
        block(transaction(output("-1", paying(P2PKH)))),
        block(transaction(output("1e400", paying(P2PKH)))),
        block(transaction(output("1e-400000", paying(P2PKH)))),
        block(transaction(output("9" * 40, paying(P2PKH)))),
        block(transaction(output('"1.0"', paying(P2PKH)))),
        block(transaction(output("null", paying(P2PKH)))),
        block(transaction(output("true", paying(P2PKH)))),
        block(transaction(output("1", '{"type": "pubkeyhash", "address": null}'))),
        block(transaction(output("1", '{"type": "pubkeyhash", "addresses": [["1"]]}'))),
        block(time="yesterday"),
        block(time=10**30),
    ],
)
async def test_a_block_of_another_shape_is_an_error_and_never_an_empty_block(follow: Follow, text: str) -> None:
    source = await follow(holding(text))

    with pytest.raises(NodeUnavailable, match=f"getblock of {HEIGHT} is not understood"):
        await source.block(HEIGHT, contracts=NONE)


@pytest.mark.parametrize("changed", [{"hash": "ee" * 32}, {"height": HEIGHT - 1}])
async def test_another_block_than_the_one_asked_for_is_refused(follow: Follow, changed: dict[str, Any]) -> None:
    source = await follow(holding(block(**changed)))

    with pytest.raises(NodeUnavailable, match=f"asked for block {HEIGHT}"):
        await source.block(HEIGHT, contracts=NONE)


@pytest.mark.parametrize("answer", [block(confirmations=-1), Fault(-5, "Block not found")])
async def test_a_block_that_left_the_branch_while_we_asked_is_not_found(follow: Follow, answer: Answer) -> None:
    source = await follow(holding(answer))

    with pytest.raises(BlockNotFound, match=str(HEIGHT)):
        await source.block(HEIGHT, contracts=NONE)


async def test_a_header_that_left_the_branch_is_not_found(follow: Follow) -> None:
    source = await follow(ScriptedNode({"getblockhash": quoted(HASH), "getblockheader": Fault(-5, "Block not found")}))

    with pytest.raises(BlockNotFound):
        await source.mined_at(HEIGHT)


async def test_a_block_that_is_not_on_the_nodes_disk_is_unavailable_by_its_height(follow: Follow) -> None:
    source = await follow(holding(Fault(-1, "Block not found on disk")))

    with pytest.raises(NodeUnavailable) as caught:
        await source.block(HEIGHT, contracts=NONE)

    assert str(caught.value) == f"block {HEIGHT}: getblock: Block not found on disk (code -1)"


@pytest.mark.parametrize("code", [-1, -32603])
@pytest.mark.parametrize(
    ("info", "kept"),
    [('{"pruned": true, "pruneheight": 841200}', "keeps blocks from 841200 on"), ("{}", "has dropped old blocks")],
)
async def test_a_pruned_block_is_named_with_the_height_the_node_is_pruned_to(
    follow: Follow, code: int, info: str, kept: str
) -> None:
    node = holding(Fault(code, "Block not available (pruned data)"))
    source = await follow(ScriptedNode({**node.answers, "getblockchaininfo": info}))

    with pytest.raises(NodeUnavailable) as caught:
        await source.block(HEIGHT, contracts=NONE)

    assert str(caught.value).startswith(
        f"block {HEIGHT} is missing, and is not stepped over: the node is pruned and {kept}. "
    )


# --- the mempool ------------------------------------------------------------------------------------------------


class MempoolNode(ScriptedNode):
    """`tips` and `contents` are what is answered in turn, the last of each for ever; `gone` left meanwhile."""

    def __init__(self, *, tips: list[str], contents: list[list[str]], gone: frozenset[str] = NONE) -> None:
        self.tips, self.contents = tips, contents

        def looked_at(tx_hash: str, _: int) -> Answer:
            if tx_hash in gone:
                return Fault(-5, "No such mempool transaction.")
            return transaction(output("1.5", paying(P2PKH)), txid=tx_hash)

        super().__init__(
            {
                "getbestblockhash": lambda: quoted(_next(self.tips)),
                "getmempoolinfo": lambda: '{"loaded": true}',
                "getrawmempool": lambda: json.dumps(_next(self.contents)),
                "getrawtransaction": looked_at,
            }
        )

    @property
    def looked_at(self) -> list[str]:
        return [parameters[0] for method, parameters in self.calls if method == "getrawtransaction"]


def _next(answers: list[Any]) -> Any:
    return answers.pop(0) if len(answers) > 1 else answers[0]


async def test_a_node_that_relays_only_blocks_does_not_say_that_a_payment_is_gone(follow: Follow) -> None:
    """As one that took over from a node which had shown the payment."""
    answers = network() | {"getbestblockhash": '"t1"', "getmempoolinfo": '{"loaded": true}', "getrawmempool": "[]"}
    answers["getnetworkinfo"] = '{"subversion": "/Satoshi:27.0.0/", "localrelay": false}'
    source = await follow(ScriptedNode(answers))
    await source.identify()

    assert await source.mempool(known=NONE) is None


async def test_when_a_block_comes_meanwhile_the_mempool_is_read_again(follow: Follow) -> None:
    node = MempoolNode(tips=["t1", "t2"], contents=[["a", "b"], ["b", "c"]])
    source = await follow(node)

    mempool = await source.mempool(known=NONE)

    assert mempool is not None
    assert (mempool.tip_hash, mempool.tx_hashes) == ("t2", frozenset("bc"))
    assert [t.tx_hash for t in mempool.transfers] == ["b", "c"]
    assert node.looked_at == ["a", "b", "c"]  # b once


async def test_while_blocks_keep_coming_the_mempool_is_not_known(follow: Follow) -> None:
    node = MempoolNode(tips=[f"t{n}" for n in range(100)], contents=[["a"]])
    source = await follow(node)

    assert await source.mempool(known=NONE) is None
    assert node.methods().count("getrawmempool") == 3


async def test_a_transaction_that_left_meanwhile_is_not_listed(follow: Follow) -> None:
    source = await follow(MempoolNode(tips=["t"], contents=[["a", "b"]], gone=frozenset("a")))

    mempool = await source.mempool(known=NONE)

    assert mempool is not None
    assert mempool.tx_hashes == {"b"}
    assert [t.tx_hash for t in mempool.transfers] == ["b"]


async def test_a_transaction_that_left_and_came_back_is_seen(follow: Follow) -> None:
    node = MempoolNode(tips=["t1", "t2"], contents=[["a"]])
    answers: Iterator[Answer] = iter([Fault(-5, "gone"), transaction(output("1", paying(P2PKH)), txid="a")])
    node.answers = {**node.answers, "getrawtransaction": lambda *_: next(answers)}
    source = await follow(node)

    mempool = await source.mempool(known=NONE)

    assert mempool is not None
    assert mempool.tx_hashes == {"a"}
    assert [t.tx_hash for t in mempool.transfers] == ["a"]


async def test_a_mempool_that_is_still_loading_is_not_an_empty_one(follow: Follow) -> None:
    node = MempoolNode(tips=["t"], contents=[[]])
    node.answers = {**node.answers, "getmempoolinfo": '{"loaded": false, "size": 0}'}
    source = await follow(node)

    assert await source.mempool(known=NONE) is None


async def test_requests_for_transactions_are_bounded(follow: Follow) -> None:
    hashes = [f"{n:064x}" for n in range(250)]
    node = MempoolNode(tips=["t"], contents=[hashes])
    source = await follow(node)

    mempool = await source.mempool(known=frozenset(hashes[:10]))

    assert mempool is not None
    assert mempool.tx_hashes == set(hashes)
    assert [len(body) for body in node.requests if isinstance(body, list)] == [100, 100, 40]
    assert node.looked_at == hashes[10:]


async def test_transactions_too_large_for_one_answer_are_asked_for_in_parts(
    follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = MempoolNode(tips=["t"], contents=[["a", "b", "c", "d", "e"]])
    source = await follow(node)
    monkeypatch.setattr(source._rpc._rpc, "_max_bytes", 900)

    mempool = await source.mempool(known=NONE)

    assert mempool is not None
    assert [t.tx_hash for t in mempool.transfers] == ["a", "b", "c", "d", "e"]


async def test_one_transaction_too_large_for_an_answer_is_an_error(
    follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await follow(MempoolNode(tips=["t"], contents=[["a"]]))
    monkeypatch.setattr(source._rpc._rpc, "_max_bytes", 150)

    with pytest.raises(NodeUnavailable, match="more than 150 bytes"):
        await source.mempool(known=NONE)


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("getrawmempool", "null"),
        ("getmempoolinfo", "null"),
        ("getrawtransaction", "null"),
        ("getrawtransaction", Fault(-28, "Verifying blocks…")),
        ("getrawmempool", Fault(-32601, "Method not found")),
    ],
)
async def test_a_mempool_that_cannot_be_read_is_not_an_empty_one(follow: Follow, method: str, answer: Answer) -> None:
    node = MempoolNode(tips=["t"], contents=[["a"]])
    node.answers = {**node.answers, method: answer}
    source = await follow(node)

    with pytest.raises(NodeUnavailable):
        await source.mempool(known=NONE)


# --- getting in, and failing ------------------------------------------------------------------------------------


async def every_question(source: BitcoindSource) -> list[SourceError]:
    """What each method raises."""
    asked = [
        source.identify(),
        source.tip(),
        source.block_hash(1),
        source.mined_at(1),
        source.block(1, contracts=NONE),
        source.mempool(known=NONE),
    ]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    raised = [outcome for outcome in outcomes if isinstance(outcome, SourceError)]
    assert len(raised) == len(asked), outcomes
    return raised


def saying(text: str, status: int, **headers: str) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(text=text, status=status, headers={n.replace("_", "-"): v for n, v in headers.items()})

    return handler


WARMING_UP = '{"result": null, "error": {"code": -28, "message": "Loading block index…"}, "id": 0}'


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (saying(WARMING_UP, 500), "the node is starting: Loading block index…"),
        (saying("", 401, www_authenticate='Basic realm="jsonrpc"'), "refused our user name and password"),
        (saying("", 403), "refused our user name and password"),
        (saying("Work queue depth exceeded", 503), "busy (work queue depth exceeded)"),
        (saying("Work queue depth exceeded", 500), "busy (work queue depth exceeded)"),
        (saying("", 503), "HTTP 503"),
        (saying("<html>welcome</html>", 200), "not JSON-RPC"),
        (saying('{"result": null, "error": {"code": -32601, "message": "Method not found"}, "id": 0}', 404), "-32601"),
    ],
)
async def test_every_failure_says_what_it_is_and_never_the_password(
    follow: Follow, handler: Handler, words: str
) -> None:
    source = await follow(handler, userinfo="operator:sesame@", query="?apikey=topsecret")

    for error in await every_question(source):
        assert isinstance(error, NodeUnavailable)
        assert words in str(error)
        assert not [secret for secret in ("operator", "sesame", "topsecret") if secret in repr(error)]


async def test_the_nodes_wish_when_to_come_back_is_kept(follow: Follow) -> None:
    source = await follow(saying("", 429, retry_after="9"))

    assert {error.retry_after for error in await every_question(source) if isinstance(error, NodeUnavailable)} == {9.0}


async def test_an_answer_beyond_the_cap_is_a_failure(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    source = await follow(holding(block(transaction(*[output("1", paying(P2PKH))] * 100))))
    monkeypatch.setattr(source._rpc._rpc, "_max_bytes", 5000)

    with pytest.raises(NodeUnavailable, match=f"block {HEIGHT}: .* more than 5000 bytes"):
        await source.block(HEIGHT, contracts=NONE)


async def test_headers_are_sent(follow: Follow) -> None:
    node = ScriptedNode({"getblockhash": quoted(HASH)})
    source = await follow(node, headers={"x-api-key": "k"})

    await source.block_hash(1)

    assert node.headers[0]["x-api-key"] == "k"


async def test_the_path_of_the_cookie_file_is_not_sent(follow: Follow, tmp_path: Path) -> None:
    cookie = tmp_path / "my node" / ".cookie"
    cookie.parent.mkdir()
    cookie.write_text("__cookie__:" + "0f" * 32 + "\n")
    node = ScriptedNode({"getblockhash": quoted(HASH)})
    source = await follow(node, query=f"wallet/?a=1&cookie={str(cookie).replace(' ', '%20')}&b=%2F")

    await source.block_hash(1)

    assert node.paths == ["/wallet/?a=1&b=%2F"]
    assert node.headers[0]["authorization"].startswith("Basic X19jb29raWVfXzow")  # __cookie__:0


@pytest.mark.parametrize("text", ["root:x:0:0:root:/root:/bin/sh\n", "__cookie__:", "__cookie__:0f\nmore", "", "\xff"])
async def test_a_file_that_is_no_cookie_is_never_sent(follow: Follow, tmp_path: Path, text: str) -> None:
    path = tmp_path / "passwd"
    path.write_bytes(text.encode("latin-1"))
    node = ScriptedNode({"getblockhash": quoted(HASH)})
    source = await follow(node, query=f"?cookie={path}")

    with pytest.raises(NodeUnavailable, match="cookie file"):
        await source.block_hash(1)

    assert node.requests == []


async def test_a_pipe_in_place_of_the_cookie_file_does_not_hold_us_up(follow: Follow, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    source = await follow(ScriptedNode({}), query=f"?cookie={tmp_path / 'pipe'}")

    with pytest.raises(NodeUnavailable, match="cookie file"):
        await source.tip()


@pytest.mark.parametrize("url", ["http://user:sesame@[node/", "http://user:sesame\u2100@node/", "user:sesame@node"])
def test_a_url_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="URL") as caught:
        BitcoindSource(url, network="mainnet", genesis_hash=None, coinbase_maturity=MATURITY)

    assert "sesame" not in repr(caught.value)
