"""Reading blocks of bitcoind: singly, in runs while catching up, and from nodes too old to give them whole."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from keyserver.kit.jsonrpc import RpcError
from keyserver.watching.bitcoind_rpc import (
    INVALID_ADDRESS_OR_KEY,
    INVALID_PARAMETER,
    MISC_ERROR,
    AnswerTooLong,
    NodeRpc,
    Refused,
)
from keyserver.watching.bitcoind_transactions import read_transactions
from keyserver.watching.bitcoind_wire import read_block, read_time, understanding
from keyserver.watching.ports import Block, BlockNotFound, NodeUnavailable, SourceError

WHOLE = 2
#: What nodes before Bitcoin Core 0.15 say to a verbosity: "JSON value is not a boolean as expected" and the like.
_WANTS_BOOLEAN = "bool"
_PRUNED = "pruned data"


@dataclass(frozen=True, slots=True)
class _Run:
    """Blocks from height `first` on, on their way."""

    first: int
    task: asyncio.Task[list[Block]]

    def drop(self) -> None:
        self.task.cancel()
        self.task.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody will ask for it


class BlockReader:
    """Blocks by height. While a run of blocks is applied, the next run is on its way: at most two are in memory."""

    def __init__(self, rpc: NodeRpc, *, coinbase_maturity: int) -> None:
        self._rpc = rpc
        self._coinbase_maturity = coinbase_maturity
        self._ahead: _Run | None = None
        self.forget_abilities()

    def forget_abilities(self) -> None:
        """Tries everything again: another node, or another version, may answer from now on."""
        self._gives_whole_blocks = self._finds_by_block = True

    async def hash_at(self, height: int) -> str:
        found: str = await self._rpc.call("getblockhash", height, missing={INVALID_PARAMETER: _no_block(height)})
        return found

    async def mined_at(self, height: int) -> datetime:
        block_hash = await self.hash_at(height)
        header = await self._rpc.call("getblockheader", block_hash, missing=_gone(height, block_hash))
        with understanding("getblockheader"):
            return read_time(header)

    async def block(self, height: int) -> Block:
        block_hash = await self.hash_at(height)
        try:
            answer = await self._answer(height, block_hash)
        except BlockNotFound:
            raise
        except Refused as error:
            raise NodeUnavailable(await self._explained(height, error)) from error
        except NodeUnavailable as error:
            raise NodeUnavailable(f"block {height}: {error}", retry_after=error.retry_after) from error
        return self._checked(height, block_hash, answer)

    # --- runs -------------------------------------------------------------------------------------------------------

    async def run(self, first: int, count: int, *, tip_height: int) -> list[Block]:
        """As the port's `blocks`, and begins to read the run after it as far as `tip_height`."""
        blocks = await self._read_ahead(first, count) or await self._read(first, count)
        after = first + len(blocks)
        following = min(count, tip_height - after + 1)
        if following > 0:
            self._ahead = _Run(after, asyncio.create_task(self._read(after, following)))
        return blocks

    async def close(self) -> None:
        """Nothing is on its way any more."""
        if self._ahead is not None:
            self._ahead.drop()
            await asyncio.wait([self._ahead.task])
            self._ahead = None

    async def _read_ahead(self, first: int, count: int) -> list[Block]:
        """What was read ahead, when it is what is asked for and still on the best branch; else nothing."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return []
        if ahead.first != first:
            ahead.drop()
            return []
        try:
            blocks = (await ahead.task)[:count]
            still = await self.hash_at(blocks[-1].height)
        except SourceError:  # if it is still so, it is said when these blocks are read again
            return []
        return blocks if still == blocks[-1].hash else []

    async def _read(self, first: int, count: int) -> list[Block]:
        """Hashes in one request, blocks in another. What is wrong with the first block, reading it singly tells."""
        hashes = await self._hashes(first, count) if count > 1 and self._gives_whole_blocks else []
        answers = await self._whole_blocks(hashes)
        blocks: list[Block] = []
        for height, (block_hash, answer) in enumerate(zip(hashes, answers, strict=True), start=first):
            if isinstance(answer, RpcError) or _lists_ids(answer):
                break
            try:
                block = self._checked(height, block_hash, answer)
            except SourceError:
                break
            if blocks and block.parent_hash != blocks[-1].hash:
                break
            blocks.append(block)
        return blocks or [await self.block(first)]

    async def _hashes(self, first: int, count: int) -> list[str]:
        answers = await self._rpc.batch("getblockhash", [(height,) for height in range(first, first + count)])
        refused = [number for number, answer in enumerate(answers) if isinstance(answer, RpcError)]
        return answers[: refused[0]] if refused else answers

    async def _whole_blocks(self, hashes: Sequence[str]) -> list[Any]:
        """The nodes' answers; an RpcError in place of a block it refuses, or of one too large to be read."""
        if not hashes:
            return []
        try:
            return await self._rpc.batch("getblock", [(block_hash, WHOLE) for block_hash in hashes])
        except AnswerTooLong as error:
            if len(hashes) == 1:
                return [RpcError(MISC_ERROR, str(error))]
            half = len(hashes) // 2
            return await self._whole_blocks(hashes[:half]) + await self._whole_blocks(hashes[half:])

    # --- one block --------------------------------------------------------------------------------------------------

    def _checked(self, height: int, block_hash: str, answer: Mapping[str, Any]) -> Block:
        with understanding(f"getblock of {height}"):
            block = read_block(answer, coinbase_maturity=self._coinbase_maturity)
        if (block.height, block.hash) != (height, block_hash):
            raise NodeUnavailable(f"asked for block {height} {block_hash}, got {block.height} {block.hash}")
        if answer.get("confirmations", 0) < 0:
            raise BlockNotFound(f"block {height} {block_hash} has left the best branch")
        return block

    async def _answer(self, height: int, block_hash: str) -> Any:
        """getblock with its transactions, whichever way this node gives them."""
        answer = None
        if self._gives_whole_blocks:
            try:
                answer = await self._rpc.call("getblock", block_hash, WHOLE, missing=_gone(height, block_hash))
            except Refused as error:
                if _WANTS_BOOLEAN not in error.words.lower():
                    raise
                self._gives_whole_blocks = False
            else:
                self._gives_whole_blocks = not _lists_ids(answer)  # some take any number for true
        if self._gives_whole_blocks:
            return answer
        if answer is None:
            answer = await self._rpc.call("getblock", block_hash, True, missing=_gone(height, block_hash))
        with understanding(f"getblock of {height}"):
            tx_hashes = list(answer["tx"])
            found = await self._transactions_in(block_hash, tx_hashes)
            if found.keys() >= set(tx_hashes):
                return {**answer, "tx": [found[tx_hash] for tx_hash in tx_hashes]}
        raise NodeUnavailable(
            "the node lists the block's transactions, but does not give them (getblock without verbosity 2) and does "
            "not find them: start it once with -txindex=1 -reindex, or run a newer version"
        )

    async def _transactions_in(self, block_hash: str, tx_hashes: Sequence[str]) -> dict[str, Any]:
        """By the block that holds them, which needs no index; without it where the node takes no such parameter."""
        if self._finds_by_block:
            try:
                return await read_transactions(self._rpc, tx_hashes, block_hash)
            except Refused as error:
                if error.code != MISC_ERROR:
                    raise
                self._finds_by_block = False
        return await read_transactions(self._rpc, tx_hashes)

    async def _explained(self, height: int, error: Refused) -> str:
        """The node's refusal to give a block; of a block it has pruned, what it still has."""
        if _PRUNED not in error.words.lower():
            return f"block {height}: {error}"
        info = await self._rpc.call("getblockchaininfo")
        with understanding("getblockchaininfo"):
            kept = f"keeps blocks from {info['pruneheight']} on" if "pruneheight" in info else "has dropped old blocks"
        return (
            f"block {height} is missing, and is not stepped over: the node is pruned and {kept}. Use a node that has "
            "it, or let this one prune less and download the chain again (-reindex)"
        )


def _lists_ids(answer: Any) -> bool:
    """Whether a block names its transactions only."""
    transactions = answer.get("tx") if isinstance(answer, dict) else None
    return isinstance(transactions, list) and bool(transactions) and all(isinstance(tx, str) for tx in transactions)


def _no_block(height: int) -> str:
    return f"the node has no block at height {height}"


def _gone(height: int, block_hash: str) -> dict[int, str]:
    return {INVALID_ADDRESS_OR_KEY: f"the node no longer knows block {height} {block_hash}"}
