"""Transfer events of EVM blocks, believed only when they are of the very block and its bloom filter agrees.

Of a run of blocks they are asked for in one call. Providers limit its range or its answer, in all kinds of words, and
the ranges they suggest are not to be relied on: it is halved until it is taken, and grows back.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from keyserver.kit.jsonrpc import RpcError
from keyserver.watching.evm_calls import EvmCalls, Unanswered, refused
from keyserver.watching.evm_receipts import ReceiptReader, Receipts
from keyserver.watching.evm_refusals import Refusal, classify
from keyserver.watching.evm_wire import (
    TRANSFER_TOPIC,
    FullBlock,
    json_object,
    may_hold_transfers,
    quantity,
    transfer_logs,
)
from keyserver.watching.ports import BlockNotFound, NodeUnavailable

MOST_BLOCKS = 64
#: Ranges in a row that must have been taken before a longer one is tried again.
_PATIENCE = 20

Logs = list[Mapping[str, Any]]


class LogReader:
    def __init__(self, calls: EvmCalls, receipts: ReceiptReader) -> None:
        self._calls = calls
        self._receipts = receipts
        self._span = MOST_BLOCKS
        self._taken = 0

    async def of_blocks(
        self, blocks: Sequence[FullBlock], contracts: frozenset[str], *, receipts: Mapping[str, Receipts]
    ) -> dict[str, Logs]:
        """By block hash: the Transfer events of `contracts` in these consecutive blocks."""
        found: dict[str, Logs] = {}
        while len(found) < len(blocks):
            run = blocks[len(found) : len(found) + self._span]
            answer = await self._range(run, contracts) if len(run) > 1 else {}
            if answer is None:
                self._span, self._taken = max(1, len(run) // 2), 0
                continue
            for block in run:
                block_hash = block.header.hash
                logs = answer.get(block_hash, [])
                if not logs and (len(run) == 1 or may_hold_transfers(block.bloom, contracts)):
                    logs = await self._of_block(block, contracts, known=receipts.get(block_hash, {}))
                found[block_hash] = logs
            self._grow(len(run))
        return found

    def _grow(self, taken: int) -> None:
        self._taken += taken == self._span
        if self._taken >= _PATIENCE:
            self._span, self._taken = min(MOST_BLOCKS, 2 * self._span), 0

    async def _range(self, run: Sequence[FullBlock], contracts: frozenset[str]) -> dict[str, Logs] | None:
        """None when the node won't, for instance because they are too many blocks or too many logs."""
        wanted = {"fromBlock": hex(run[0].header.height), "toBlock": hex(run[-1].header.height)}
        try:
            answer = await self._logs(wanted, contracts)
        except BlockNotFound:  # asked for one by one, the blocks it knows can be told from the others
            answer = None
        if answer is None:
            return None
        hashes = {block.header.height: block.header.hash for block in run}
        by_block: dict[str, list[Any]] = {}
        for log in answer:
            height = quantity(json_object(log, "log").get("blockNumber"), "log's block number", bits=63)
            if height not in hashes:
                raise NodeUnavailable(f"the node sent a log of block {height}, which was not asked for")
            by_block.setdefault(hashes[height], []).append(log)
        return {
            block_hash: transfer_logs(logs, block_hash=block_hash, contracts=contracts)
            for block_hash, logs in by_block.items()
        }

    async def _of_block(self, block: FullBlock, contracts: frozenset[str], *, known: Receipts) -> Logs:
        """By the block's hash. An empty answer is asked again, then the receipts decide."""
        block_hash = block.header.hash
        for _ in range(2):
            answer = await self._logs({"blockHash": block_hash}, contracts)
            if answer is None:
                break
            logs = transfer_logs(answer, block_hash=block_hash, contracts=contracts)
            # A filter that says no is not asked before the node: some chains leave it empty.
            if logs or not may_hold_transfers(block.bloom, contracts):
                return logs
        everything = [transaction.hash for transaction in block.transactions]
        receipts = await self._receipts.of(block, everything, known=known)
        in_receipts = [log for receipt in receipts.values() for log in receipt.logs]
        return transfer_logs(in_receipts, block_hash=block_hash, contracts=contracts)

    async def _logs(self, where: Mapping[str, str], contracts: frozenset[str]) -> list[Any] | None:
        """eth_getLogs of a range, or of one block (EIP-234); None when the node won't."""
        wanted = {**where, "address": sorted(contracts), "topics": [TRANSFER_TOPIC]}
        try:
            answer = await self._calls.ask("eth_getLogs", wanted)
        except Unanswered:
            return None
        except RpcError as error:
            if classify(error.code, error.message) in {Refusal.BUSY, Refusal.UNKNOWN_BLOCK}:
                raise refused("eth_getLogs", error) from error
            return None
        if not isinstance(answer, list):
            raise NodeUnavailable("the node sent no list of logs")
        return answer
