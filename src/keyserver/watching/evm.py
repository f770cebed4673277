"""Follows an EVM chain through a node's JSON-RPC, or a provider's: blocks by number, the rest by the block's hash.

The cost of a block is a handful of calls, however many addresses we hold. Providers put several nodes behind one URL,
so that the next call may be answered by one that is behind: every part is asked for by the block's hash or compared
with it, and an empty list of logs is believed only when the block's own bloom filter or its receipts agree.

Seen are coin sent by a transaction, tokens' Transfer events (EIP-20) and, on a node that traces, coin that a contract
passed on inside of a transaction. Where it does not, a block says so, and balances are compared (balances.py).
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from keyserver.kit.jsonrpc import JsonRpc, RpcError
from keyserver.watching.evm_accounts import AccountReader
from keyserver.watching.evm_calls import EvmCalls, Overloaded, refused
from keyserver.watching.evm_internal_calls import InternalCallReader
from keyserver.watching.evm_logs import LogReader
from keyserver.watching.evm_news import NewHeads
from keyserver.watching.evm_receipts import ReceiptReader
from keyserver.watching.evm_refusals import Refusal, classify
from keyserver.watching.evm_wire import (
    FullBlock,
    Header,
    native_transfers,
    quantity,
    read_block,
    read_header,
    token_transfers,
)
from keyserver.watching.ports import (
    Block,
    BlockNotFound,
    BlockRef,
    ChainSource,
    FinalityTag,
    Holding,
    Mempool,
    Node,
    NodeUnavailable,
    SourceError,
    WrongNode,
)


class EvmSource(ChainSource):
    """`chain_id` (EIP-155) is the one registered; None takes any, and the caller pins what `identify` says."""

    def __init__(
        self, url: str, *, chain_id: int | None, headers: Mapping[str, str] | None = None, timeout: float = 30.0
    ) -> None:
        self._rpc = JsonRpc(url, headers=headers, timeout=timeout)
        self._chain_id = chain_id
        self._calls = EvmCalls(self._rpc)
        # They remember what this node can do, as far as tried; nothing but speed depends on it.
        self._receipts = ReceiptReader(self._calls)
        self._logs = LogReader(self._calls, self._receipts)
        self._internal_calls = InternalCallReader(self._calls)
        self._accounts = AccountReader(self._calls)
        self._heads = NewHeads(url, headers=headers or {})

    async def identify(self) -> Node:
        """`identity` is the chain id in decimal. Raises WrongNode, and NodeUnavailable while the node syncs."""
        chain_id = quantity(await self._calls.call("eth_chainId"), "chain id")
        if self._chain_id not in {None, chain_id}:
            raise WrongNode(f"the node is on the chain with id {chain_id}; registered is {self._chain_id}")
        await self._require_synced()
        for reader in (self._calls, self._receipts, self._accounts):
            reader.reset()
        capabilities = await self._client_version()
        await self._internal_calls.probe(await self._tip())
        return Node(str(chain_id), {**capabilities, "internal calls": self._internal_calls.capability})

    async def tip(self) -> BlockRef:
        header = await self._tip()
        return BlockRef(header.height, header.hash)

    async def block_hash(self, height: int) -> str:
        return (await self._header(height)).hash

    async def mined_at(self, height: int) -> datetime:
        return (await self._header(height)).mined_at

    async def final_height(self, tag: FinalityTag) -> int | None:
        """By the block tags `safe` and `finalized`; None where the node knows none, or has no such block yet."""
        try:
            answer = await self._calls.ask("eth_getBlockByNumber", str(tag), False)
        except RpcError as error:
            if classify(error.code, error.message) is Refusal.BUSY:
                raise refused("eth_getBlockByNumber", error) from error
            return None
        return None if answer is None else read_header(answer).height

    async def holdings(self, addresses: Sequence[str], *, block_hash: str) -> list[Holding] | None:
        return await self._accounts.holdings(addresses, block_hash=block_hash)

    async def spending(self, address: str, *, block_hash: str) -> int:
        return await self._accounts.spending(address, block_hash=block_hash)

    async def mempool(self, *, known: frozenset[str]) -> Mempool | None:  # noqa: ARG002 - the port's signature
        """None: providers don't show theirs, and blocks are seconds apart."""
        return None

    async def news(self, tip: BlockRef, *, within: float) -> None:
        try:
            async with asyncio.timeout(within):
                while True:
                    subscribed = await self._heads.subscribed()
                    if subscribed is None and await self._has_moved_on(tip):
                        return
                    if subscribed is not False and await self._heads.after(tip):
                        return
                    await asyncio.sleep(self._heads.pause)
        except TimeoutError:
            return

    async def close(self) -> None:
        await self._heads.close()
        await self._rpc.close()

    # --- blocks -------------------------------------------------------------------------------------------------

    async def block(self, height: int, *, contracts: frozenset[str]) -> Block:
        """The block with coin sent by successful transactions, and ERC-20 transfers of `contracts` (lower case).

        Nothing that moved nothing: failed transactions, zero amounts, transfers from an address to itself.
        """
        answer = await self._block_answer(height, whole=True)
        (block,) = await self._with_transfers([self._read_block(answer, height=height)], contracts)
        return block

    async def blocks(self, first: int, count: int, *, contracts: frozenset[str]) -> list[Block]:
        """As the port has it, with one request for each kind of part, where the node takes it.

        When anything is wrong with any of them, the first block alone, which says what.
        """
        if count > 1:
            try:
                if len(run := await self._run(first, count)) > 1:
                    return await self._with_transfers(run, contracts)
            except Overloaded:
                raise
            except SourceError:  # the branch may be changing, or one node of several may not know the newest block yet
                pass
        return [await self.block(first, contracts=contracts)]

    async def _run(self, first: int, count: int) -> list[FullBlock]:
        """Blocks from height `first` on, each on top of the one before, as far as the node gives them."""
        heights = range(first, first + count)
        answers = await self._calls.each([("eth_getBlockByNumber", (hex(height), True)) for height in heights])
        run: list[FullBlock] = []
        for height, answer in zip(heights, answers, strict=True):
            if answer is None or isinstance(answer, RpcError):
                break
            block = self._read_block(answer, height=height)
            if run and block.header.parent_hash != run[-1].header.hash:
                break
            run.append(block)
        return run

    async def _with_transfers(self, run: Sequence[FullBlock], contracts: frozenset[str]) -> list[Block]:
        receipts = await self._receipts.of_blocks(run)
        logs = await self._logs.of_blocks(run, contracts, receipts=receipts) if contracts else {}
        internal = await self._internal_calls.of_blocks(run)
        blocks = []
        for block in run:
            header = block.header
            passed_on = internal[header.hash]
            transfers = native_transfers(block.transactions, receipts[header.hash])
            transfers += passed_on or []
            transfers += token_transfers(logs.get(header.hash, []))
            shown = passed_on is not None
            blocks.append(Block(header.height, header.hash, header.parent_hash, header.mined_at, transfers, shown))
        return blocks

    def _read_block(self, answer: object, *, height: int) -> FullBlock:
        return read_block(answer, height=height)

    async def _tip(self) -> Header:
        answer = await self._calls.call("eth_getBlockByNumber", "latest", False)
        if answer is None:
            raise NodeUnavailable("the node has no blocks yet")
        return read_header(answer)

    async def _has_moved_on(self, tip: BlockRef) -> bool:
        try:
            return await self.tip() != tip
        except SourceError:
            return False

    async def _header(self, height: int) -> Header:
        return read_header(await self._block_answer(height, whole=False), height=height)

    async def _block_answer(self, height: int, *, whole: bool) -> Any:
        answer = await self._calls.call("eth_getBlockByNumber", hex(height), whole)
        if answer is None:
            raise BlockNotFound(f"the node has no block {height}")
        return answer

    # --- identity -----------------------------------------------------------------------------------------------

    async def _require_synced(self) -> None:
        try:
            syncing = await self._calls.ask("eth_syncing")
        except RpcError as error:
            if classify(error.code, error.message) is Refusal.UNSUPPORTED:
                return
            raise refused("eth_syncing", error) from error
        if syncing is False:
            return
        progress = ""
        if isinstance(syncing, dict) and "currentBlock" in syncing and "highestBlock" in syncing:
            current = quantity(syncing["currentBlock"], "current block")
            progress = f": block {current} of {quantity(syncing['highestBlock'], 'highest block')}"
        raise NodeUnavailable(f"the node is syncing{progress}")

    async def _client_version(self) -> dict[str, str]:
        try:
            version = await self._calls.ask("web3_clientVersion")
        except RpcError:  # some providers don't tell
            return {}
        return {"client": version[:200]} if isinstance(version, str) else {}
