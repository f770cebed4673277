"""Reading what only Tron's nodes answer, as pure functions."""

from typing import Any

import pytest

from keyserver.watching.evm_wire import FullBlock, read_header
from keyserver.watching.ports import BlockNotFound, NodeUnavailable, SourceError
from keyserver.watching.tron_wire import blocks_behind, coin_transfers, plain_topics, read_tron_block

#: From java-tron's documentation of eth_getBlockByHash: block 67026080 of Nile, shortened to one transaction.
NILE_BLOCK: dict[str, Any] = {
    "number": "0x3fe1ca0",
    "hash": "0x0000000003fe1ca05cf728c92ee79f5f2758c3e4e4ea88501826726880e8b81c",
    "parentHash": "0x0000000003fe1c9f1030bf08074186a7c119391405507ce6cceb95855f5ef164",
    "timestamp": "0x69f18c42",
    "stateRoot": "0x",
    "logsBloom": "0x" + "00" * 256,
    "nonce": "0x0000000000000000",
    "transactions": [
        {
            "from": "0xdd791d6b49e190062d650e6a23c575510d35f2f9",
            "to": "0x9ff8fc48fb114ccd5bbdc24a86f0c73082f08825",
            "hash": "0x01b4cde4197b9d1a1ff09ef5d2b1d939d3ec2401b3f002ebd0802c0f30a6e4ca",
            "value": "0x0",
            "input": "0xa6bd98ac",
            "type": "0x0",
            "nonce": "0x0000000000000000",
        }
    ],
}
TX = NILE_BLOCK["transactions"][0]["hash"]


def native(*, block_id: str = NILE_BLOCK["hash"][2:], kind: str = "TransferContract", **changes: Any) -> dict[str, Any]:
    transaction = {
        "ret": [{"contractRet": "SUCCESS"}],
        "txID": TX[2:],
        "raw_data": {"contract": [{"type": kind, "parameter": {"value": {"amount": 50}}}]},
    }
    return {"blockID": block_id, "transactions": [transaction | changes]}


def the_block() -> FullBlock:
    return read_tron_block(NILE_BLOCK, height=0x3FE1CA0)


def test_a_block_of_the_nile_network_is_read() -> None:
    block = the_block()
    assert block.header.mined_at.isoformat() == "2026-04-29T04:42:42+00:00"
    assert block.header == read_header(NILE_BLOCK)
    assert [(each.hash, each.value_units) for each in block.transactions] == [(TX, 0)]


@pytest.mark.parametrize(("written", "read"), [("0x41" + "ab" * 20, "0x" + "ab" * 20), ("0x", None), (None, None)])
def test_a_receiver_may_carry_trons_prefix_or_be_missing(written: str | None, read: str | None) -> None:
    changed = NILE_BLOCK["transactions"][0] | {"to": written, "from": written, "value": None}
    (transaction,) = read_tron_block(NILE_BLOCK | {"transactions": [changed]}, height=0x3FE1CA0).transactions
    assert (transaction.to, transaction.sender) == (read, read or "0x" + "00" * 20)
    assert not transaction.pays


def test_an_address_with_trons_prefix_in_a_topic_is_the_same_address() -> None:
    topics = ["0x" + "dd" * 32, "0x" + "00" * 11 + "41" + "ab" * 20, "0x" + "00" * 12 + "41" * 20]
    assert plain_topics({"topics": topics, "data": "0x"}) == {
        "topics": [topics[0], "0x" + "00" * 12 + "ab" * 20, topics[2]],
        "data": "0x",
    }


@pytest.mark.parametrize(
    ("answer", "behind"),
    [
        (False, 0),
        ({"currentBlock": "0x10", "highestBlock": "0x12"}, 2),
        ({"currentBlock": "0x12", "highestBlock": "0x10"}, 0),
    ],
)
def test_how_far_a_node_lags(answer: object, behind: int) -> None:
    assert blocks_behind(answer) == behind


def test_only_a_successful_transfer_contract_moves_trx() -> None:
    assert coin_transfers(native(), the_block()) == {TX}
    assert coin_transfers(native(ret=[{}]), the_block()) == {TX}  # of the days before results were written
    assert coin_transfers(native(ret=[{"contractRet": "OUT_OF_ENERGY"}]), the_block()) == frozenset()
    assert coin_transfers(native(kind="TransferAssetContract"), the_block()) == frozenset()


def test_a_block_that_the_http_api_does_not_know_is_not_found() -> None:
    with pytest.raises(BlockNotFound):
        coin_transfers({}, the_block())


@pytest.mark.parametrize(
    "answer",
    [
        native(block_id="00" * 32),
        native(txID="00" * 32),
        {"blockID": NILE_BLOCK["hash"][2:]},
        native(raw_data=None),
        native(ret=[7]),
        {"Error": "class java.lang.NullPointerException : null"},
        [],
    ],
)
def test_an_answer_that_is_not_the_whole_block_is_refused(answer: object) -> None:
    with pytest.raises(SourceError) as caught:
        coin_transfers(answer, the_block())
    assert isinstance(caught.value, NodeUnavailable)
