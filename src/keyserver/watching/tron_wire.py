"""What Tron's nodes answer where it is not what EVM nodes do, read as strictly. Pure.

Sources: java-tron's JSON-RPC (framework/src/main/java/org/tron/core/services/jsonrpc) and its HTTP API, `/wallet`.
Addresses are twenty bytes here, as on EVM chains; Tron itself writes 41 before them.
"""

from collections.abc import Mapping
from typing import Any

from keyserver.watching.evm_wire import (
    HASH_BYTES,
    FullBlock,
    hex_data,
    json_list,
    json_object,
    quantity,
    read_block,
)
from keyserver.watching.ports import BlockNotFound, NodeUnavailable

#: The kind of transaction that moves TRX, and nothing else does at the top level.
_COIN_TRANSFER = "TransferContract"
_SUCCESS = "SUCCESS"
_NOBODY = "0x" + "00" * 20
_PREFIXED = len("0x41") + 40
_PADDING = "0x" + "00" * 11


def read_tron_block(answer: object, *, height: int) -> FullBlock:
    """As `read_block`, with transactions that name no sender (shielded ones) or no amount."""
    block = json_object(answer, "block")
    transactions = json_list(block.get("transactions"), "list of transactions")
    return read_block({**block, "transactions": [_plain(each) for each in transactions]}, height=height)


def _plain(answer: object) -> Mapping[str, Any]:
    transaction = json_object(answer, "transaction")
    return {
        **transaction,
        "from": _account(transaction.get("from")) or _NOBODY,
        "to": _account(transaction.get("to")),
        "value": "0x0" if transaction.get("value") is None else transaction["value"],
    }


def _account(value: object) -> object:
    """Without the prefix; None where Tron has none to say."""
    if value in {None, "0x"}:
        return None
    prefixed = isinstance(value, str) and len(value) == _PREFIXED and value.startswith("0x41")
    return f"0x{str(value)[4:]}" if prefixed else value


def plain_topics(log: Mapping[str, Any]) -> dict[str, Any]:
    """The log with addresses in its topics as EVM chains write them: contracts of Tron's first year kept the 41."""
    first, *rest = log["topics"]
    prefix = f"{_PADDING}41"
    return {
        **log,
        "topics": [
            first,
            *(_PADDING + "00" + each[len(prefix) :] if each.startswith(prefix) else each for each in rest),
        ],
    }


def read_chain_id(value: object) -> int:
    """The last four bytes of the genesis block's hash, which older nodes answer whole."""
    return quantity(value, "chain id") & 0xFFFFFFFF


def blocks_behind(syncing: object) -> int:
    """How far a node says it lags, by its answer to eth_syncing: java-tron never says that it is done.

    What it calls the highest block is reckoned from the clock, a block every three seconds.
    """
    if syncing is False:
        return 0
    progress = json_object(syncing, "sync status")
    highest = quantity(progress.get("highestBlock"), "highest block")
    return max(0, highest - quantity(progress.get("currentBlock"), "current block"))


def coin_transfers(answer: object, block: FullBlock) -> frozenset[str]:
    """Hashes of the transactions that moved TRX, by `/wallet/getblockbyid` for this very block.

    By JSON-RPC alone they look the same as transfers of TRC-10 tokens, which anybody can issue, votes and freezes:
    each has a receiver and a value. Raises BlockNotFound when the node does not know the block.
    """
    native = json_object(answer, "block")
    if not native:
        raise BlockNotFound(f"the node's /wallet does not know block {block.header.height}")
    if hex_data(_hex(native.get("blockID")), "block id", size=HASH_BYTES) != block.header.hash:
        raise NodeUnavailable("the node's /wallet sent another block than asked for")
    transactions = json_list(native.get("transactions", []), "list of transactions")
    kinds = dict(_read_native(each) for each in transactions)
    if not kinds.keys() >= {transaction.hash for transaction in block.transactions}:
        raise NodeUnavailable("the node's /wallet sent a block without all of its transactions")
    return frozenset(tx_hash for tx_hash, moves_coin in kinds.items() if moves_coin)


def _read_native(answer: object) -> tuple[str, bool]:
    transaction = json_object(answer, "transaction")
    tx_hash = hex_data(_hex(transaction.get("txID")), "transaction id", size=HASH_BYTES)
    contracts = json_list(json_object(transaction.get("raw_data"), "transaction's data").get("contract"), "contracts")
    kinds = [json_object(each, "contract").get("type") for each in contracts]
    results = [json_object(each, "result").get("contractRet", _SUCCESS) for each in transaction.get("ret") or []]
    return tx_hash, kinds == [_COIN_TRANSFER] and set(results) <= {_SUCCESS}


def _hex(value: object) -> object:
    return f"0x{value}" if isinstance(value, str) else value
