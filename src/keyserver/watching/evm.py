"""Follows an EVM chain through a node's JSON-RPC, or a provider's: blocks by number, the rest by the block's hash.

The cost of a block is two or three calls, however many addresses we hold. Providers put several nodes behind one URL,
so that the next call may be answered by one that is behind: every part is asked for by the block's hash and compared
with it, and an empty list of logs is believed only when the block's own bloom filter or its receipts agree.

Seen are ether sent by a transaction and tokens' Transfer events. Ether that a contract sends on inside of a
transaction is in neither; only traces show it, which few nodes offer.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from keyserver.kit.jsonrpc import AnswerTooLarge, JsonRpc, RpcError, RpcUnavailable
from keyserver.watching.evm_refusals import Refusal, classify
from keyserver.watching.evm_wire import (
    TRANSFER_TOPIC,
    FullBlock,
    Receipt,
    may_hold_transfers,
    native_transfers,
    quantity,
    read_block,
    read_header,
    read_receipt,
    token_transfers,
    transfer_logs,
)
from keyserver.watching.ports import (
    Block,
    BlockNotFound,
    BlockRef,
    ChainSource,
    FinalityTag,
    Mempool,
    Node,
    NodeUnavailable,
    SourceError,
    WrongNode,
)

_BATCH = 100
_OVERLOADED = frozenset({429, 502, 503, 504})
_UNANSWERED = object()


class _AnswerTooLong(NodeUnavailable):
    """More than we read at once: the same may be had in smaller parts."""


class EvmSource(ChainSource):
    """`chain_id` (EIP-155) is the one registered; None takes any, and the caller pins what `identify` says."""

    def __init__(
        self, url: str, *, chain_id: int | None, headers: Mapping[str, str] | None = None, timeout: float = 30.0
    ) -> None:
        self._rpc = JsonRpc(url, headers=headers, timeout=timeout)
        self._chain_id = chain_id
        # What this node can do, as far as tried; nothing but speed depends on them.
        self._has_block_receipts = True
        self._takes_batches = True

    async def identify(self) -> Node:
        """`identity` is the chain id in decimal. Raises WrongNode, and NodeUnavailable while the node syncs."""
        chain_id = quantity(await self._call("eth_chainId"), "chain id")
        if self._chain_id not in {None, chain_id}:
            raise WrongNode(f"the node is on the chain with id {chain_id}; registered is {self._chain_id}")
        await self._require_synced()
        self._has_block_receipts = self._takes_batches = True
        return Node(identity=str(chain_id), capabilities=await self._client_version())

    async def tip(self) -> BlockRef:
        answer = await self._call("eth_getBlockByNumber", "latest", False)
        if answer is None:
            raise NodeUnavailable("the node has no blocks yet")
        header = read_header(answer)
        return BlockRef(header.height, header.hash)

    async def block_hash(self, height: int) -> str:
        return read_header(await self._block_answer(height, whole=False), height=height).hash

    async def mined_at(self, height: int) -> datetime:
        return read_header(await self._block_answer(height, whole=False), height=height).mined_at

    async def block(self, height: int, *, contracts: frozenset[str]) -> Block:
        """The block with ether sent by successful transactions, and ERC-20 transfers of `contracts` (lower case).

        Nothing that moved nothing: failed transactions, zero amounts, transfers from an address to itself.
        """
        block = read_block(await self._block_answer(height, whole=True), height=height)
        payers = [transaction.hash for transaction in block.transactions if transaction.pays]
        receipts = await self._receipts(block, payers, known={})
        transfers = native_transfers(block.transactions, receipts)
        if contracts:
            transfers += token_transfers(await self._transfer_logs(block, contracts, known=receipts))
        header = block.header
        return Block(header.height, header.hash, header.parent_hash, header.mined_at, transfers)

    async def final_height(self, tag: FinalityTag) -> int | None:
        """By the block tags `safe` and `finalized`; None where the node knows none, or has no such block yet."""
        try:
            answer = await self._ask("eth_getBlockByNumber", str(tag), False)
        except RpcError as error:
            if classify(error.code, error.message) is Refusal.BUSY:
                raise _refused("eth_getBlockByNumber", error) from error
            return None
        return None if answer is None else read_header(answer).height

    async def mempool(self, *, known: frozenset[str]) -> Mempool | None:  # noqa: ARG002 - the port's signature
        """None: providers don't show theirs, and blocks are seconds apart."""
        return None

    async def close(self) -> None:
        await self._rpc.close()

    # --- identity -----------------------------------------------------------------------------------------------

    async def _require_synced(self) -> None:
        try:
            syncing = await self._ask("eth_syncing")
        except RpcError as error:
            if classify(error.code, error.message) is Refusal.UNSUPPORTED:
                return
            raise _refused("eth_syncing", error) from error
        if syncing is False:
            return
        progress = ""
        if isinstance(syncing, dict) and "currentBlock" in syncing and "highestBlock" in syncing:
            current = quantity(syncing["currentBlock"], "current block")
            progress = f": block {current} of {quantity(syncing['highestBlock'], 'highest block')}"
        raise NodeUnavailable(f"the node is syncing{progress}")

    async def _client_version(self) -> dict[str, str]:
        try:
            version = await self._ask("web3_clientVersion")
        except RpcError:  # some providers don't tell
            return {}
        return {"client": version[:200]} if isinstance(version, str) else {}

    # --- receipts -----------------------------------------------------------------------------------------------

    async def _receipts(
        self, block: FullBlock, wanted: Sequence[str], *, known: Mapping[str, Receipt]
    ) -> dict[str, Receipt]:
        """Receipts of at least the transactions `wanted`, by hash, and never fewer. Asks nothing when all are known."""
        found = dict(known)
        if self._has_block_receipts and not found.keys() >= set(wanted):
            found |= _by_hash(await self._block_receipts(block.header.hash), block)
        # Some nodes leave a chain's own system transactions out of the block's receipts.
        missing = [tx_hash for tx_hash in wanted if tx_hash not in found]
        for start in range(0, len(missing), _BATCH):
            chunk = missing[start : start + _BATCH]
            answers = await self._many("eth_getTransactionReceipt", [(tx_hash,) for tx_hash in chunk])
            if None in answers:
                raise BlockNotFound(f"the node has no receipt of a transaction of its block {block.header.height}")
            found |= _by_hash(answers, block)
        if not found.keys() >= set(wanted):
            raise NodeUnavailable("the node sent the receipt of another transaction than asked for")
        return found

    async def _block_receipts(self, block_hash: str) -> list[Any]:
        """Every receipt of the block in one call; none when this node cannot, and they have to be asked for singly."""
        try:
            answer = await self._ask("eth_getBlockReceipts", block_hash)
        except _AnswerTooLong:
            return []
        except RpcError as error:
            refusal = classify(error.code, error.message)
            if refusal in {Refusal.BUSY, Refusal.UNKNOWN_BLOCK}:
                raise _refused("eth_getBlockReceipts", error) from error
            self._has_block_receipts = refusal is not Refusal.UNSUPPORTED
            return []
        if answer is None:  # unknown, or known by number only: the single receipts will tell
            return []
        if not isinstance(answer, list):
            raise NodeUnavailable("the node sent no list of receipts")
        return answer

    # --- logs ---------------------------------------------------------------------------------------------------

    async def _transfer_logs(
        self, block: FullBlock, contracts: frozenset[str], *, known: Mapping[str, Receipt]
    ) -> list[Mapping[str, Any]]:
        """Transfer events of `contracts` in this block. An empty answer is asked again, then the receipts decide."""
        block_hash = block.header.hash
        for _ in range(2):
            answer = await self._logs(block_hash, contracts)
            if answer is None:
                break
            logs = transfer_logs(answer, block_hash=block_hash, contracts=contracts)
            # A filter that says no is not asked before the node: some chains leave it empty.
            if logs or not may_hold_transfers(block.bloom, contracts):
                return logs
        everything = [transaction.hash for transaction in block.transactions]
        receipts = await self._receipts(block, everything, known=known)
        in_receipts = [log for receipt in receipts.values() for log in receipt.logs]
        return transfer_logs(in_receipts, block_hash=block_hash, contracts=contracts)

    async def _logs(self, block_hash: str, contracts: frozenset[str]) -> list[Any] | None:
        """eth_getLogs of one block (EIP-234); None when the node won't, for instance because they are too many."""
        wanted = {"blockHash": block_hash, "address": sorted(contracts), "topics": [TRANSFER_TOPIC]}
        try:
            answer = await self._ask("eth_getLogs", wanted)
        except _AnswerTooLong:
            return None
        except RpcError as error:
            if classify(error.code, error.message) in {Refusal.BUSY, Refusal.UNKNOWN_BLOCK}:
                raise _refused("eth_getLogs", error) from error
            return None
        if not isinstance(answer, list):
            raise NodeUnavailable("the node sent no list of logs")
        return answer

    # --- calls --------------------------------------------------------------------------------------------------

    async def _block_answer(self, height: int, *, whole: bool) -> Any:
        answer = await self._call("eth_getBlockByNumber", hex(height), whole)
        if answer is None:
            raise BlockNotFound(f"the node has no block {height}")
        return answer

    async def _call(self, method: str, *params: Any) -> Any:
        """An answer that has no substitute: an error is a SourceError."""
        try:
            return await self._ask(method, *params)
        except RpcError as error:
            raise _refused(method, error) from error

    async def _ask(self, method: str, *params: Any) -> Any:
        """An answer, or the node's RpcError, which the caller understands. Anything else is NodeUnavailable."""
        try:
            return await self._rpc.call(method, *params)
        except RpcUnavailable as error:
            raise _unavailable(error) from error

    async def _many(self, method: str, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The answers in order, by one request if the node takes it; what a batch left open is asked singly."""
        batched = self._takes_batches and len(calls) > 1
        answers = await self._batch(method, calls) if batched else [_UNANSWERED] * len(calls)
        refused = all(answer is _UNANSWERED for answer in answers)
        for number, params in enumerate(calls):
            if answers[number] is _UNANSWERED:
                answers[number] = await self._call(method, *params)
        if batched and refused:  # and single calls went well: it was the batch
            self._takes_batches = False
        return answers

    async def _batch(self, method: str, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Answers with _UNANSWERED where the node answered an error, everywhere when it refused the batch."""
        try:
            answers = await self._rpc.batch([(method, params) for params in calls], return_errors=True)
        except RpcUnavailable as error:
            if error.status in _OVERLOADED:
                raise _unavailable(error) from error
            return [_UNANSWERED] * len(calls)
        except RpcError as error:
            answers = [error] * len(calls)
        for answer in answers:
            if isinstance(answer, RpcError) and classify(answer.code, answer.message) is Refusal.BUSY:
                raise _refused(method, answer) from answer
        return [_UNANSWERED if isinstance(answer, RpcError) else answer for answer in answers]


def _by_hash(answers: Iterable[Any], block: FullBlock) -> dict[str, Receipt]:
    receipts = [read_receipt(answer, block_hash=block.header.hash) for answer in answers]
    return {receipt.tx_hash: receipt for receipt in receipts}


def _refused(method: str, error: RpcError) -> SourceError:
    if classify(error.code, error.message) is Refusal.UNKNOWN_BLOCK:
        return BlockNotFound(f"the node does not know the block: {error}")
    return NodeUnavailable(f"the node refused {method}: {error}")


def _unavailable(error: RpcUnavailable) -> NodeUnavailable:
    kind = _AnswerTooLong if isinstance(error, AnswerTooLarge) else NodeUnavailable
    return kind(str(error), retry_after=error.retry_after)
