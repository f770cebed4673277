"""What EVM nodes answer, read strictly: a part that is missing or of another shape raises, none is passed over.

Pure. Sources: the execution API specification (ethereum/execution-apis), EIP-20, EIP-721, EIP-234 (logs by block
hash), and the Yellow Paper, 4.4.3, for the bloom filter of a block's logs.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from Crypto.Hash import keccak

from keyserver.chains.models import NATIVE
from keyserver.watching.ports import BlockNotFound, NodeUnavailable, Transfer

#: keccak256("Transfer(address,address,uint256)"), which ERC-20 and ERC-721 share.
TRANSFER_TOPIC = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"

HASH_BYTES = 32
ADDRESS_BYTES = 20
_BLOOM_BYTES = 256
_TRANSFER_TOPICS = 3
_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,100}")
_DATA = re.compile(r"0x([0-9a-fA-F]{2})*")


@dataclass(frozen=True, slots=True)
class Header:
    height: int
    hash: str
    parent_hash: str
    mined_at: datetime


@dataclass(frozen=True, slots=True)
class Transaction:
    """One that is in the block itself, not what a contract sends on in it. `to` is None when it creates a contract."""

    hash: str
    sender: str
    to: str | None
    value_units: int

    @property
    def pays(self) -> bool:
        """Whether it moves the chain's own coin to somebody else, if it succeeds."""
        return self.value_units > 0 and self.to is not None and self.to != self.sender


@dataclass(frozen=True, slots=True)
class FullBlock:
    header: Header
    bloom: int
    transactions: Sequence[Transaction]


@dataclass(frozen=True, slots=True)
class Receipt:
    tx_hash: str
    succeeded: bool
    logs: Sequence[Any]


# --- words ------------------------------------------------------------------------------------------------------


def malformed(what: str, value: object) -> NodeUnavailable:
    return NodeUnavailable(f"the node sent no valid {what}: {repr(value)[:100]}")


def quantity(value: object, what: str, *, bits: int = 256) -> int:
    """A QUANTITY: `0x` and hex digits, within `bits` bits. Leading zeros, which some nodes write, change nothing."""
    if isinstance(value, str) and _QUANTITY.fullmatch(value):
        number = int(value, 16)
        if number.bit_length() <= bits:
            return number
    raise malformed(what, value)


def hex_data(value: object, what: str, *, size: int | None = None) -> str:
    """DATA of `size` bytes, in lower case."""
    if isinstance(value, str) and _DATA.fullmatch(value) and size in {None, len(value) // 2 - 1}:
        return value.lower()
    raise malformed(what, value)


def json_object(value: object, what: str) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    raise malformed(what, value)


def json_list(value: object, what: str) -> Sequence[Any]:
    if isinstance(value, list):
        return value
    raise malformed(what, value)


# --- blocks -----------------------------------------------------------------------------------------------------


def read_header(answer: object, *, height: int | None = None) -> Header:
    """The header in an answer to eth_getBlockByNumber; `height` is what was asked for, None for the newest block."""
    block = json_object(answer, "block")
    number = quantity(block.get("number"), "block number", bits=63)
    if height not in {None, number}:
        raise NodeUnavailable(f"the node sent block {number} when asked for block {height}")
    return Header(
        height=number,
        hash=hex_data(block.get("hash"), "block hash", size=HASH_BYTES),
        parent_hash=hex_data(block.get("parentHash"), "parent hash", size=HASH_BYTES),
        mined_at=_instant(block.get("timestamp")),
    )


def _instant(value: object) -> datetime:
    seconds = quantity(value, "block timestamp", bits=63)
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        raise malformed("block timestamp", value) from None


def read_block(answer: object, *, height: int) -> FullBlock:
    header = read_header(answer, height=height)
    block = json_object(answer, "block")
    transactions = json_list(block.get("transactions"), "list of transactions")
    return FullBlock(
        header=header,
        bloom=int(hex_data(block.get("logsBloom"), "logs bloom", size=_BLOOM_BYTES), 16),
        transactions=[_read_transaction(transaction) for transaction in transactions],
    )


def _read_transaction(answer: object) -> Transaction:
    transaction = json_object(answer, "transaction")
    to = transaction.get("to")
    return Transaction(
        hash=hex_data(transaction.get("hash"), "transaction hash", size=HASH_BYTES),
        sender=hex_data(transaction.get("from"), "sender", size=ADDRESS_BYTES),
        to=None if to is None else hex_data(to, "receiver", size=ADDRESS_BYTES),
        value_units=quantity(transaction.get("value"), "transaction value"),
    )


def read_receipt(answer: object, *, block_hash: str) -> Receipt:
    """Raises BlockNotFound when the receipt is of another block than `block_hash`.

    `status` is there since Byzantium (EIP-658); receipts before it don't say whether a transaction succeeded.
    """
    receipt = json_object(answer, "receipt")
    require_block(receipt.get("blockHash"), block_hash)
    status = quantity(receipt.get("status"), "receipt status", bits=1)
    return Receipt(
        tx_hash=hex_data(receipt.get("transactionHash"), "transaction hash", size=HASH_BYTES),
        succeeded=status == 1,
        logs=json_list(receipt.get("logs"), "list of logs"),
    )


def read_fee(answer: object) -> int:
    """What the transaction of a receipt cost its sender in the chain's coin, as far as a receipt says.

    Gas at the price that was paid for it (EIP-1559), blobs (EIP-4844), and what rollups of the OP stack take for their
    data on the chain below. A fee that was paid in a token (Celo's `feeCurrency`) is none in the coin.
    """
    receipt = json_object(answer, "receipt")
    if receipt.get("feeCurrency") is not None:
        return 0
    gas = quantity(receipt.get("gasUsed"), "gas used") * quantity(receipt.get("effectiveGasPrice"), "gas price")
    blobs = _optional(receipt, "blobGasUsed") * _optional(receipt, "blobGasPrice")
    return gas + blobs + _optional(receipt, "l1Fee")


def _optional(answer: Mapping[str, Any], name: str) -> int:
    value = answer.get(name)
    return 0 if value is None else quantity(value, name)


def require_block(value: object, block_hash: str) -> None:
    if hex_data(value, "block hash", size=HASH_BYTES) != block_hash:
        raise BlockNotFound("the node's branch moved while a block was being read")


# --- transfers --------------------------------------------------------------------------------------------------


def native_transfers(transactions: Iterable[Transaction], receipts: Mapping[str, Receipt]) -> list[Transfer]:
    return [
        Transfer(transaction.hash, 0, NATIVE, transaction.to, transaction.value_units)
        for transaction in transactions
        if transaction.to is not None and transaction.pays and receipts[transaction.hash].succeeded
    ]


def transfer_logs(logs: Iterable[object], *, block_hash: str, contracts: frozenset[str]) -> list[Mapping[str, Any]]:
    """The logs that are a Transfer event, of any token standard, of one of `contracts`, in this block.

    Raises BlockNotFound for a log of another block.
    """
    found: list[Mapping[str, Any]] = []
    for answer in logs:
        log = json_object(answer, "log")
        topics = [
            hex_data(topic, "log topic", size=HASH_BYTES) for topic in json_list(log.get("topics"), "list of topics")
        ]
        contract = hex_data(log.get("address"), "log address", size=ADDRESS_BYTES)
        if log.get("removed") is True or contract not in contracts or topics[:1] != [TRANSFER_TOPIC]:
            continue
        require_block(log.get("blockHash"), block_hash)
        found.append({**log, "address": contract, "topics": topics})
    return found


def token_transfers(logs: Iterable[Mapping[str, Any]]) -> list[Transfer]:
    """ERC-20 transfers among `transfer_logs`. What an ERC-721 or a careless contract emits has other topics or data."""
    transfers = []
    for log in logs:
        topics, data = log["topics"], hex_data(log.get("data"), "log data")
        if len(topics) != _TRANSFER_TOPICS or len(data) != 2 + 2 * HASH_BYTES:
            continue
        sender, receiver = (_address(topic) for topic in topics[1:])
        amount = int(data, 16)
        if sender is None or receiver is None or sender == receiver or amount == 0:
            continue
        tx_hash = hex_data(log.get("transactionHash"), "transaction hash", size=HASH_BYTES)
        index = quantity(log.get("logIndex"), "log index", bits=63)
        transfers.append(Transfer(tx_hash, index, log["address"], receiver, amount))
    return list(dict.fromkeys(transfers))


def _address(topic: str) -> str | None:
    """The address in a 32-byte word; None when the word is no address."""
    padding = 2 * (HASH_BYTES - ADDRESS_BYTES)
    return f"0x{topic[2 + padding :]}" if topic[2 : 2 + padding].strip("0") == "" else None


# --- the bloom filter -------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def bloom_bits(item: str) -> int:
    """The up to three of 2,048 bits that a log's address or topic sets in its block's bloom filter."""
    digest = keccak.new(data=bytes.fromhex(item[2:]), digest_bits=256).digest()
    bits = 0
    for at in (0, 2, 4):
        bits |= 1 << (int.from_bytes(digest[at : at + 2], "big") % 2048)
    return bits


def may_hold_transfers(bloom: int, contracts: Iterable[str]) -> bool:
    """Whether the filter admits a Transfer event of one of `contracts`. It is wrong in one direction only: a yes may
    be due to other logs.
    """
    wanted = bloom_bits(TRANSFER_TOPIC)
    return any(bloom & (mask := wanted | bloom_bits(contract)) == mask for contract in contracts)
