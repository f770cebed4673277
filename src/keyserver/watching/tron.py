"""Follows Tron through the JSON-RPC that its nodes offer in Ethereum's terms, java-tron's own or a provider's.

Seen are TRC-20 tokens' Transfer events, and TRX sent by a transaction of its own. Addresses leave here as Tron writes
them (`T…`), transaction ids with `0x` as the JSON-RPC does. What differs from EVM nodes:

- Blocks carry no bloom filter, so that an empty list of logs proves nothing (java-tron #4987): receipts decide, and
  they say as well whether the transaction took effect, which being on the chain does not (java-tron #3037).
- A transfer of a TRC-10 token, which anybody can issue, looks the same as one of TRX: the node's own HTTP API tells
  them apart. Without it no TRX is seen, and following is refused where TRX is offered.
- Balances are told as of now only, so that there are none to compare: TRX that a contract passes on is not seen.
- A node never says that it is synced; there are no subscriptions.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from keyserver.addresses.spelling import tron_from_hex, tron_to_hex
from keyserver.chains.models import NATIVE
from keyserver.kit.jsonrpc import RpcError
from keyserver.watching.evm import EvmSource
from keyserver.watching.evm_calls import refused
from keyserver.watching.evm_logs import Logs
from keyserver.watching.evm_receipts import Receipts
from keyserver.watching.evm_refusals import Refusal, classify
from keyserver.watching.evm_wire import (
    HASH_BYTES,
    FullBlock,
    hex_data,
    native_transfers,
    token_transfers,
    transfer_logs,
)
from keyserver.watching.ports import Block, BlockRef, Holding, Node, NodeUnavailable, Transfer, WrongNode
from keyserver.watching.tron_native import NativeBlocks
from keyserver.watching.tron_wire import blocks_behind, plain_topics, read_chain_id, read_tron_block

#: Five minutes of blocks: a node that lags more is syncing.
_MOST_BEHIND = 100
#: The filter that excludes nothing, in the place of the one that is not kept.
_ANYTHING = 2**2048 - 1
_TOLD_APART = "told from TRC-10 tokens by /wallet/getblockbyid"
_NOT_SEEN = "not seen: the node does not offer /wallet/getblockbyid, which tells it from TRC-10 tokens"

_from_hex = lru_cache(maxsize=4096)(tron_from_hex)


class TronSource(EvmSource):
    """`chain_id` is the network's; `offers_coin` says that TRX is to be paid with, and has to be seen."""

    def __init__(
        self,
        url: str,
        *,
        chain_id: int,
        offers_coin: bool,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> None:
        super().__init__(url, chain_id=chain_id, headers=headers, timeout=timeout)
        self._offers_coin = offers_coin
        self._native = NativeBlocks(url, headers=headers or {}, timeout=timeout)

    async def identify(self) -> Node:
        """As an EVM node, by the last four bytes of the chain id; NodeUnavailable also when TRX would not be seen."""
        chain_id = read_chain_id(await self._calls.call("eth_chainId"))
        if chain_id != self._chain_id:
            raise WrongNode(f"the node is on the Tron network with chain id {chain_id}; registered is {self._chain_id}")
        await self._require_synced()
        for reader in (self._calls, self._receipts):
            reader.reset()
        capabilities = await self._client_version()
        await self._native.probe((await self._tip()).hash)
        if self._offers_coin and not self._native.offered:
            raise NodeUnavailable(f"TRX is offered as a payment method, but {_NOT_SEEN}")
        return Node(str(chain_id), {**capabilities, "TRX": _TOLD_APART if self._native.offered else _NOT_SEEN})

    async def holdings(self, addresses: Sequence[str], *, block_hash: str) -> list[Holding] | None:  # noqa: ARG002
        return None

    async def spending(self, address: str, *, block_hash: str) -> int:  # noqa: ARG002 - nothing is compared
        return 0

    async def news(self, tip: BlockRef, *, within: float) -> None:  # noqa: ARG002 - nobody tells
        await asyncio.sleep(within)

    async def close(self) -> None:
        await self._native.close()
        await super().close()

    # --- blocks -------------------------------------------------------------------------------------------------

    def _read_block(self, answer: object, *, height: int) -> FullBlock:
        return read_tron_block(answer, height=height)

    async def _with_transfers(self, run: Sequence[FullBlock], contracts: frozenset[str]) -> list[Block]:
        tokens = frozenset(map(tron_to_hex, contracts))
        receipts = await self._receipts.of_blocks(run)
        blocks = []
        for block in run:  # one after the other: providers count calls by the second
            header = block.header
            known = receipts[header.hash]
            coin = await self._native.coin_transfers(block)
            transfers = native_transfers((each for each in block.transactions if each.hash in coin), known)
            if tokens:
                transfers += token_transfers(map(plain_topics, await self._events(block, tokens, known)))
            blocks.append(
                Block(header.height, header.hash, header.parent_hash, header.mined_at, [*map(_spelled, transfers)])
            )
        return blocks

    async def _events(self, block: FullBlock, tokens: frozenset[str], known: Receipts) -> Logs:
        """Transfer events of transactions that took effect, out of their receipts.

        A node that does not give all receipts of a block at once is asked for those of the transactions in its logs.
        """
        block_hash = block.header.hash
        if not known.keys() >= {transaction.hash for transaction in block.transactions}:
            unfiltered = replace(block, bloom=_ANYTHING)
            logs = await self._logs.of_blocks([unfiltered], tokens, receipts={block_hash: known})
            named = [
                hex_data(log.get("transactionHash"), "transaction hash", size=HASH_BYTES) for log in logs[block_hash]
            ]
            known = await self._receipts.of(block, list(dict.fromkeys(named)), known=known)
        in_receipts = [log for receipt in known.values() if receipt.succeeded for log in receipt.logs]
        return transfer_logs(in_receipts, block_hash=block_hash, contracts=tokens)

    # --- identity -----------------------------------------------------------------------------------------------

    async def _require_synced(self) -> None:
        try:
            behind = blocks_behind(await self._calls.ask("eth_syncing"))
        except RpcError as error:
            if classify(error.code, error.message) is Refusal.UNSUPPORTED:
                return
            raise refused("eth_syncing", error) from error
        if behind > _MOST_BEHIND:
            raise NodeUnavailable(f"the node is syncing: it is about {behind} blocks behind")


def _spelled(transfer: Transfer) -> Transfer:
    """With addresses as Tron writes them."""
    asset = transfer.asset if transfer.asset == NATIVE else _from_hex(transfer.asset)
    return replace(transfer, asset=asset, address=_from_hex(transfer.address))
