"""Reading an EVM node's answers, as pure functions."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyserver.watching.evm_refusals import Refusal, classify
from keyserver.watching.evm_wire import (
    TRANSFER_TOPIC,
    Receipt,
    Transaction,
    bloom_bits,
    may_hold_transfers,
    native_transfers,
    quantity,
    read_block,
    read_header,
    read_receipt,
    token_transfers,
    transfer_logs,
)
from keyserver.watching.ports import NodeUnavailable, SourceError, Transfer

BLOCK = "0x" + "bb" * 32
TX = "0x" + "11" * 32
OTHER_EVENT = "0x" + "ee" * 32
REGISTERED = "0x" + "70" * 20
LOOK_ALIKE = "0x" + "71" * 20

uint256 = st.one_of(st.integers(0, 3), st.integers(0, 2**256 - 1))
addresses = st.sampled_from([f"0x{name * 20}" for name in ("a1", "b0", "c4", "00")])
contracts = st.binary(min_size=20, max_size=20).map(lambda raw: f"0x{raw.hex()}")
json_documents: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["0x1", BLOCK, REGISTERED]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["number", "hash", "logs", "topics", "address", "transactions", "status", "blockHash"]),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


def word(address: str) -> str:
    return "0x" + "00" * 12 + address[2:]


# --- quantities ---------------------------------------------------------------------------------------------------


@given(uint256)
def test_a_quantity_is_read_to_the_unit(number: int) -> None:
    assert quantity(hex(number), "value") == number


@pytest.mark.parametrize(
    "value",
    ["", "0x", "x1", "1", "0X1", "0xg", "0x_1", "0x1 ", " 0x1", "+0x1", "-0x1", "0x1\n", "0x٣", 1, 1.0, None, True],
)
def test_what_is_not_hex_digits_after_0x_is_no_quantity(value: object) -> None:
    with pytest.raises(NodeUnavailable, match="no valid amount"):
        quantity(value, "amount")


def test_a_quantity_beyond_its_width_is_refused() -> None:
    assert quantity("0xff", "index", bits=8) == 255
    with pytest.raises(NodeUnavailable):
        quantity("0x100", "index", bits=8)


def test_leading_zeros_of_a_quantity_change_nothing() -> None:
    assert quantity("0x01", "status", bits=1) == 1


# --- transfers ----------------------------------------------------------------------------------------------------


@st.composite
def payments(draw: st.DrawFn) -> tuple[Transaction, Receipt]:
    number = draw(st.integers(0, 2**256 - 1))
    transaction = Transaction(f"0x{number:064x}", draw(addresses), draw(st.none() | addresses), draw(uint256))
    return transaction, Receipt(transaction.hash, draw(st.booleans()), [])


@given(st.lists(payments(), unique_by=lambda payment: payment[0].hash))
def test_ether_arrives_where_successful_transactions_brought_it(block: list[tuple[Transaction, Receipt]]) -> None:
    expected: dict[str, int] = {}
    for transaction, receipt in block:
        if receipt.succeeded and transaction.to is not None and transaction.to != transaction.sender:
            expected[transaction.to] = expected.get(transaction.to, 0) + transaction.value_units

    found = native_transfers([transaction for transaction, _ in block], {r.tx_hash: r for _, r in block})

    assert arrived(found) == {address: units for address, units in expected.items() if units}
    assert all(transfer.amount_units > 0 for transfer in found)


def arrived(transfers: list[Transfer]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for transfer in transfers:
        sums[transfer.address] = sums.get(transfer.address, 0) + transfer.amount_units
    return sums


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    """An event of one of two contracts: mostly an ERC-20's Transfer, or something with another signature or shape."""
    members = [word(draw(addresses)), word(draw(addresses))]
    topics = [draw(st.sampled_from([TRANSFER_TOPIC, TRANSFER_TOPIC, OTHER_EVENT])), *members]
    return {
        "address": draw(st.sampled_from([REGISTERED, REGISTERED, LOOK_ALIKE])),
        "topics": draw(st.sampled_from([topics, topics, [*topics, word(draw(addresses))], topics[:2], []])),
        "data": f"0x{draw(uint256):064x}" + draw(st.sampled_from(["", "", "00", "00" * 32])),
        "blockHash": BLOCK,
        "transactionHash": TX,
        "removed": draw(st.sampled_from([False, False, True])),
    }


@given(st.lists(events(), max_size=12))
def test_tokens_arrive_where_their_contract_s_transfers_brought_them(logs: list[dict[str, Any]]) -> None:
    expected: dict[str, int] = {}
    for index, log in enumerate(logs):
        log["logIndex"] = hex(index)
        if log["address"] != REGISTERED or log["removed"] or len(log["data"]) != 66:
            continue
        if len(log["topics"]) == 3 and log["topics"][0] == TRANSFER_TOPIC and log["topics"][1] != log["topics"][2]:
            receiver = "0x" + log["topics"][2][26:]
            expected[receiver] = expected.get(receiver, 0) + int(log["data"], 16)

    found = token_transfers(transfer_logs(logs, block_hash=BLOCK, contracts=frozenset({REGISTERED})))

    assert arrived(found) == {address: units for address, units in expected.items() if units}
    assert all(transfer.asset == REGISTERED for transfer in found)
    assert len({transfer.output_index for transfer in found}) == len(found)


def test_a_member_that_is_no_address_makes_no_transfer() -> None:
    """A contract may put anything into a topic; none of our addresses is in a longer number."""
    log = {
        "address": REGISTERED,
        "topics": [TRANSFER_TOPIC, word(LOOK_ALIKE), "0x01" + "00" * 11 + REGISTERED[2:]],
        "data": f"0x{5:064x}",
        "transactionHash": TX,
        "logIndex": "0x0",
    }

    assert token_transfers([log]) == []


def test_contracts_match_however_the_node_writes_them() -> None:
    log = {
        "address": "0x" + "AbCdEf" + "00" * 17,
        "topics": [TRANSFER_TOPIC.upper().replace("0X", "0x"), word(REGISTERED), "0x" + "00" * 12 + "FE" * 20],
        "data": f"0x{5:064x}",
        "blockHash": BLOCK.upper().replace("0X", "0x"),
        "transactionHash": TX,
        "logIndex": "0x0",
    }
    contract = "0xabcdef" + "00" * 17

    logs = transfer_logs([log], block_hash=BLOCK, contracts=frozenset({contract}))

    assert token_transfers(logs) == [Transfer(TX, 0, contract, "0x" + "fe" * 20, 5)]


# --- any answer at all --------------------------------------------------------------------------------------------


@given(json_documents)
def test_whatever_a_node_sends_is_read_or_refused_with_a_sentence(document: Any) -> None:
    for read in (
        lambda: read_header(document),
        lambda: read_block(document, height=1),
        lambda: read_receipt(document, block_hash=BLOCK),
        lambda: transfer_logs([document], block_hash=BLOCK, contracts=frozenset({REGISTERED})),
    ):
        with suppress(SourceError):
            read()


# --- the bloom filter ---------------------------------------------------------------------------------------------


@given(st.lists(contracts, min_size=1, max_size=40), st.data())
def test_the_bloom_filter_never_denies_a_log_that_is_in_the_block(emitters: list[str], data: st.DataObject) -> None:
    bloom = bloom_bits(TRANSFER_TOPIC)
    for contract in emitters:
        bloom |= bloom_bits(contract)

    assert may_hold_transfers(bloom, [data.draw(st.sampled_from(emitters))])


@given(contracts)
def test_an_item_sets_one_to_three_of_the_filter_s_bits(contract: str) -> None:
    assert 1 <= bloom_bits(contract).bit_count() <= 3
    assert bloom_bits(contract).bit_length() <= 2048


def test_a_filter_without_the_event_or_without_the_contract_admits_nothing() -> None:
    assert not may_hold_transfers(0, [REGISTERED])
    assert not may_hold_transfers(bloom_bits(REGISTERED), [REGISTERED])
    assert not may_hold_transfers(bloom_bits(TRANSFER_TOPIC) | bloom_bits(REGISTERED), [LOOK_ALIKE])
    assert may_hold_transfers(bloom_bits(TRANSFER_TOPIC) | bloom_bits(REGISTERED), [LOOK_ALIKE, REGISTERED])
    assert not may_hold_transfers(2**2048 - 1, [])


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "message", "refusal"),
    [
        (-32601, "", Refusal.UNSUPPORTED),
        (-32000, "the method eth_getBlockReceipts does not exist/is not available", Refusal.UNSUPPORTED),
        (-32600, "Unsupported method: eth_getBlockReceipts", Refusal.UNSUPPORTED),
        (-32005, "query returned more than 10000 results", Refusal.OTHER),
        (-32005, "limit exceeded", Refusal.BUSY),
        (429, "", Refusal.BUSY),
        (-32000, "too many requests, try again later", Refusal.BUSY),
        (-32001, f"{BLOCK} could not be found", Refusal.UNKNOWN_BLOCK),
        (-32000, "requested a future epoch (beyond 'latest')", Refusal.UNKNOWN_BLOCK),
        (-32000, "requested block number greater than current block number", Refusal.UNKNOWN_BLOCK),
        (4444, "pruned history unavailable", Refusal.OTHER),
        (-32600, "project ID not found", Refusal.OTHER),
        (-32000, "method handler crashed", Refusal.OTHER),
        (-32603, "Internal error", Refusal.OTHER),
    ],
)
def test_a_refusal_is_understood_by_its_code_or_its_words(code: int, message: str, refusal: Refusal) -> None:
    assert classify(code, message) is refusal
