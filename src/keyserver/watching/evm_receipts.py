"""Receipts of an EVM block's transactions: all in one call where the node can, singly where it cannot."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from keyserver.kit.jsonrpc import RpcError
from keyserver.watching.evm_calls import EvmCalls, Unanswered, refused
from keyserver.watching.evm_refusals import Refusal, classify
from keyserver.watching.evm_wire import FullBlock, Receipt, read_receipt
from keyserver.watching.ports import BlockNotFound, NodeUnavailable

Receipts = dict[str, Receipt]


class ReceiptReader:
    def __init__(self, calls: EvmCalls) -> None:
        self._calls = calls
        self._by_block = True  # whether this node knows eth_getBlockReceipts, as far as tried

    def reset(self) -> None:
        self._by_block = True

    async def of_blocks(self, blocks: Sequence[FullBlock]) -> dict[str, Receipts]:
        """By block hash: receipts by transaction hash, at least of those transactions that move the coin."""
        paid = [block for block in blocks if any(transaction.pays for transaction in block.transactions)]
        answers: list[Any] = [[] for _ in paid]
        if self._by_block and len(paid) > 1:
            hashes = [block.header.hash for block in paid]
            answers = await self._calls.each([("eth_getBlockReceipts", (each,)) for each in hashes])
        found: dict[str, Receipts] = {block.header.hash: {} for block in blocks}
        for block, answer in zip(paid, answers, strict=True):
            known = _by_hash(answer, block) if isinstance(answer, list) else {}
            payers = [transaction.hash for transaction in block.transactions if transaction.pays]
            found[block.header.hash] = await self.of(block, payers, known=known)
        return found

    async def of(self, block: FullBlock, wanted: Sequence[str], *, known: Mapping[str, Receipt]) -> Receipts:
        """Receipts of at least the transactions `wanted`, by hash, and never fewer. Asks nothing when all are known."""
        found = dict(known)
        if self._by_block and not found.keys() >= set(wanted):
            found |= _by_hash(await self._of_block(block.header.hash), block)
        # Some nodes leave a chain's own system transactions out of the block's receipts.
        missing = [tx_hash for tx_hash in wanted if tx_hash not in found]
        answers = await self._calls.many("eth_getTransactionReceipt", [(tx_hash,) for tx_hash in missing])
        if None in answers:
            raise BlockNotFound(f"the node has no receipt of a transaction of its block {block.header.height}")
        found |= _by_hash(answers, block)
        if not found.keys() >= set(wanted):
            raise NodeUnavailable("the node sent the receipt of another transaction than asked for")
        return found

    async def _of_block(self, block_hash: str) -> list[Any]:
        """Every receipt of the block in one call; none when this node cannot, and they have to be asked for singly."""
        try:
            answer = await self._calls.ask("eth_getBlockReceipts", block_hash)
        except Unanswered:
            return []
        except RpcError as error:
            refusal = classify(error.code, error.message)
            if refusal in {Refusal.BUSY, Refusal.UNKNOWN_BLOCK}:
                raise refused("eth_getBlockReceipts", error) from error
            self._by_block = refusal is not Refusal.UNSUPPORTED
            return []
        if answer is None:  # unknown, or known by number only: the single receipts will tell
            return []
        if not isinstance(answer, list):
            raise NodeUnavailable("the node sent no list of receipts")
        return answer


def _by_hash(answers: Iterable[Any], block: FullBlock) -> Receipts:
    receipts = [read_receipt(answer, block_hash=block.header.hash) for answer in answers]
    return {receipt.tx_hash: receipt for receipt in receipts}
