"""What accounts of an EVM chain hold after a block, and what one of them spent in it."""

from collections.abc import Sequence
from typing import Any

from keyserver.kit.jsonrpc import RpcError
from keyserver.watching.evm_calls import EvmCalls, refused
from keyserver.watching.evm_refusals import Refusal, classify
from keyserver.watching.evm_wire import HASH_BYTES, hex_data, json_object, quantity, read_block, read_fee, read_receipt
from keyserver.watching.ports import BlockNotFound, Holding

_BALANCE, _NONCE = "eth_getBalance", "eth_getTransactionCount"


class AccountReader:
    def __init__(self, calls: EvmCalls) -> None:
        self._calls = calls
        self._by_hash = True  # whether this node takes block hashes (EIP-1898), as far as tried

    def reset(self) -> None:
        self._by_hash = True

    async def holdings(self, addresses: Sequence[str], *, block_hash: str) -> list[Holding] | None:
        """In the order of `addresses`; None when the node no longer has the state after this block."""
        if self._by_hash:
            answers = await self._ask(addresses, {"blockHash": block_hash})
            refusals = _refusals(answers)
            if not refusals or refusals & {Refusal.STATE_GONE, Refusal.UNKNOWN_BLOCK}:
                return _holdings(answers)
        number = await self._number_of(block_hash)
        answers = await self._ask(addresses, number)
        holdings = _holdings(answers)
        # Only now: before, the branch could still have moved under the questions.
        answer = await self._calls.call("eth_getBlockByNumber", number, False)
        if answer is None or json_object(answer, "block").get("hash") != block_hash:
            raise BlockNotFound("the node's branch moved while balances were being read")
        self._by_hash = False
        return holdings

    async def spending(self, address: str, *, block_hash: str) -> int:
        """Base units that left the account by its own transactions in this block, fees included."""
        answer = await self._calls.call("eth_getBlockByHash", block_hash, True)
        if answer is None:
            raise BlockNotFound("the node no longer knows the block")
        height = quantity(json_object(answer, "block").get("number"), "block number", bits=63)
        block = read_block(answer, height=height)
        own = [transaction for transaction in block.transactions if transaction.sender == address]
        receipts = await self._calls.many("eth_getTransactionReceipt", [(transaction.hash,) for transaction in own])
        spent = 0
        for transaction, answered in zip(own, receipts, strict=True):
            if answered is None:
                raise BlockNotFound(f"the node has no receipt of a transaction of its block {height}")
            succeeded = read_receipt(answered, block_hash=block_hash).succeeded
            spent += read_fee(answered)
            spent += transaction.value_units if succeeded and transaction.to != address else 0
        return spent

    async def _ask(self, addresses: Sequence[str], block: object) -> list[Any]:
        return await self._calls.each([(method, (each, block)) for each in addresses for method in (_BALANCE, _NONCE)])

    async def _number_of(self, block_hash: str) -> str:
        answer = await self._calls.call("eth_getBlockByHash", block_hash, False)
        if answer is None or hex_data(json_object(answer, "block").get("hash"), "hash", size=HASH_BYTES) != block_hash:
            raise BlockNotFound("the node no longer knows the block")
        return hex(quantity(answer.get("number"), "block number", bits=63))


def _refusals(answers: Sequence[Any]) -> set[Refusal]:
    return {classify(answer.code, answer.message) for answer in answers if isinstance(answer, RpcError)}


def _holdings(answers: Sequence[Any]) -> list[Holding] | None:
    if Refusal.STATE_GONE in _refusals(answers):
        return None
    for answer in answers:
        if isinstance(answer, RpcError):
            raise refused(_BALANCE, answer) from answer
    return [
        Holding(quantity(balance, "balance"), quantity(nonce, "transaction count", bits=64))
        for balance, nonce in zip(answers[::2], answers[1::2], strict=True)
    ]
