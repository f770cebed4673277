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

_HASH_BYTES = 32
_ADDRESS_BYTES = 20
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


def _malformed(what: str, value: object) -> NodeUnavailable:
    return NodeUnavailable(f"the node sent no valid {what}: {repr(value)[:100]}")


def quantity(value: object, what: str, *, bits: int = 256) -> int:
    """A QUANTITY: `0x` and hex digits, within `bits` bits. Leading zeros, which some nodes write, change nothing."""
    if isinstance(value, str) and _QUANTITY.fullmatch(value):
        number = int(value, 16)
        if number.bit_length() <= bits:
            return number
    raise _malformed(what, value)


def _data(value: object, what: str, *, size: int | None = None) -> str:
    """DATA of `size` bytes, in lower case."""
    if isinstance(value, str) and _DATA.fullmatch(value) and size in {None, len(value) // 2 - 1}:
        return value.lower()
    raise _malformed(what, value)


def _object(value: object, what: str) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    raise _malformed(what, value)


def _list(value: object, what: str) -> Sequence[Any]:
    if isinstance(value, list):
        return value
    raise _malformed(what, value)


# --- blocks -----------------------------------------------------------------------------------------------------


def read_header(answer: object, *, height: int | None = None) -> Header:
    """The header in an answer to eth_getBlockByNumber; `height` is what was asked for, None for the newest block."""
    block = _object(answer, "block")
    number = quantity(block.get("number"), "block number", bits=63)
    if height not in {None, number}:
        raise NodeUnavailable(f"the node sent block {number} when asked for block {height}")
    return Header(
        height=number,
        hash=_data(block.get("hash"), "block hash", size=_HASH_BYTES),
        parent_hash=_data(block.get("parentHash"), "parent hash", size=_HASH_BYTES),
        mined_at=_instant(block.get("timestamp")),
    )


def _instant(value: object) -> datetime:
    seconds = quantity(value, "block timestamp", bits=63)
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        raise _malformed("block timestamp", value) from None


def read_block(answer: object, *, height: int) -> FullBlock:
    header = read_header(answer, height=height)
    block = _object(answer, "block")
    transactions = _list(block.get("transactions"), "list of transactions")
    return FullBlock(
        header=header,
        bloom=int(_data(block.get("logsBloom"), "logs bloom", size=_BLOOM_BYTES), 16),
        transactions=[_read_transaction(transaction) for transaction in transactions],
    )


def _read_transaction(answer: object) -> Transaction:
    transaction = _object(answer, "transaction")
    to = transaction.get("to")
    return Transaction(
        hash=_data(transaction.get("hash"), "transaction hash", size=_HASH_BYTES),
        sender=_data(transaction.get("from"), "sender", size=_ADDRESS_BYTES),
        to=None if to is None else _data(to, "receiver", size=_ADDRESS_BYTES),
        value_units=quantity(transaction.get("value"), "transaction value"),
    )


def read_receipt(answer: object, *, block_hash: str) -> Receipt:
    """Raises BlockNotFound when the receipt is of another block than `block_hash`.

    `status` is there since Byzantium (EIP-658); receipts before it don't say whether a transaction succeeded.
    """
    receipt = _object(answer, "receipt")
    _require_block(receipt.get("blockHash"), block_hash)
    status = quantity(receipt.get("status"), "receipt status", bits=1)
    return Receipt(
        tx_hash=_data(receipt.get("transactionHash"), "transaction hash", size=_HASH_BYTES),
        succeeded=status == 1,
        logs=_list(receipt.get("logs"), "list of logs"),
    )


def _require_block(value: object, block_hash: str) -> None:
    if _data(value, "block hash", size=_HASH_BYTES) != block_hash:
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
        log = _object(answer, "log")
        topics = [_data(topic, "log topic", size=_HASH_BYTES) for topic in _list(log.get("topics"), "list of topics")]
        contract = _data(log.get("address"), "log address", size=_ADDRESS_BYTES)
        if log.get("removed") is True or contract not in contracts or topics[:1] != [TRANSFER_TOPIC]:
            continue
        _require_block(log.get("blockHash"), block_hash)
        found.append({**log, "address": contract, "topics": topics})
    return found


def token_transfers(logs: Iterable[Mapping[str, Any]]) -> list[Transfer]:
    """ERC-20 transfers among `transfer_logs`. What an ERC-721 or a careless contract emits has other topics or data."""
    transfers = []
    for log in logs:
        topics, data = log["topics"], _data(log.get("data"), "log data")
        if len(topics) != _TRANSFER_TOPICS or len(data) != 2 + 2 * _HASH_BYTES:
            continue
        sender, receiver = (_address(topic) for topic in topics[1:])
        amount = int(data, 16)
        if sender is None or receiver is None or sender == receiver or amount == 0:
            continue
        tx_hash = _data(log.get("transactionHash"), "transaction hash", size=_HASH_BYTES)
        index = quantity(log.get("logIndex"), "log index", bits=63)
        transfers.append(Transfer(tx_hash, index, log["address"], receiver, amount))
    return list(dict.fromkeys(transfers))


def _address(topic: str) -> str | None:
    """The address in a 32-byte word; None when the word is no address."""
    padding = 2 * (_HASH_BYTES - _ADDRESS_BYTES)
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
