"""What the scanner needs of a chain, whichever family it is of.

Adapters: `watching/bitcoind.py`, `watching/evm.py`, and the simulated chain of demo mode, `demo/chain.py`.
An adapter keeps no state that correctness rests on, knows nothing of our addresses, and never answers "nothing" when
it means "I don't know": what it cannot say for certain, it raises.

SourceError
├── NodeUnavailable   cannot be reached, is starting, is syncing, refuses us: try again later
├── WrongNode         answers, but is another chain or network than was registered: an operator must mend it
└── BlockNotFound     does not (or no longer) know the block asked for: look at the tip again
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class SourceError(Exception):
    """One sentence for an operator; never holds a URL's credentials."""


class NodeUnavailable(SourceError):
    """`retry_after` is the node's own wish in seconds, when it said one."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class WrongNode(SourceError):
    pass


class BlockNotFound(SourceError):
    pass


@dataclass(frozen=True, slots=True)
class BlockRef:
    height: int
    hash: str


@dataclass(frozen=True, slots=True)
class Transfer:
    """One output or token transfer. `asset` is `native` or the token contract's match key; `amount_units` base units.

    `address` is the receiver's match key (`chains.catalog.match_key`): lower case on EVM chains, as written elsewhere.
    `output_index`: position among the outputs of a UTXO transaction, a token transfer's log index in the block; of an
    EVM coin 0 for the transaction itself and 1 upwards for the internal calls that moved coin, depth first.
    `least_confirmations`: how deep it must be whatever was asked for, as new coins of a block reward must mature.
    """

    tx_hash: str
    output_index: int
    asset: str
    address: str
    amount_units: int
    least_confirmations: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    """`shows_internal_calls` is False when coin that contracts passed on may be missing from `transfers`: the node does
    not show it, and balances have to be compared to find it."""

    height: int
    hash: str
    parent_hash: str
    mined_at: datetime
    transfers: Sequence[Transfer]
    shows_internal_calls: bool = True

    @property
    def ref(self) -> BlockRef:
        return BlockRef(self.height, self.hash)


@dataclass(frozen=True, slots=True)
class Mempool:
    """What waits for a block while `tip_hash` is the tip: every transaction's id, the transfers of those asked for."""

    tip_hash: str
    tx_hashes: frozenset[str]
    transfers: Sequence[Transfer]


@dataclass(frozen=True, slots=True)
class Node:
    """Who answered. `identity` (genesis hash, chain id) is pinned at first contact; `capabilities` is for people."""

    identity: str
    capabilities: dict[str, str]


class FinalityTag(StrEnum):
    """Block tags of Ethereum's consensus layer (execution-apis)."""

    SAFE = "safe"
    FINALIZED = "finalized"


@dataclass(frozen=True, slots=True)
class Holding:
    """What an account of an EVM chain holds after a block, and how many transactions it had sent by then."""

    balance_units: int
    nonce: int


class ChainSource(Protocol):
    """Methods with a body are what an adapter of a chain without the matter in question inherits."""

    async def identify(self) -> Node:
        """Raises WrongNode when the node cannot be the registered chain and network, NodeUnavailable while it syncs."""

    async def tip(self) -> BlockRef:
        """The best block now."""

    async def block_hash(self, height: int) -> str:
        """Hash of the block at `height` on the node's best branch; BlockNotFound above its tip."""

    async def mined_at(self, height: int) -> datetime:
        """Time of the block at `height`, without its transactions."""

    async def block(self, height: int, *, contracts: frozenset[str]) -> Block:
        """The block at `height` with every transfer of the coin and of these token contracts that took effect.

        All parts are of one block (asked for by its hash). BlockNotFound when the branch moved away meanwhile.
        """

    async def blocks(self, first: int, count: int, *, contracts: frozenset[str]) -> list[Block]:
        """Up to `count` consecutive blocks from height `first`, each as `block` gives it and on top of the one before.

        Fewer when the branch is changing or a later one fails; at least one, or what `block` raises for the first.
        """
        asked = (self.block(height, contracts=contracts) for height in range(first, first + count))
        found: list[Block] = []
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(answer, BaseException):
                if not found:
                    raise answer
                break
            if found and answer.parent_hash != found[-1].hash:
                break
            found.append(answer)
        return found

    async def news(self, tip: BlockRef, *, within: float) -> None:  # noqa: ARG002 - for those who are told
        """Returns once the node says that its tip is no longer this one, and after `within` seconds at the latest.

        Never raises SourceError: whatever goes wrong, the rest of the time is waited.
        """
        await asyncio.sleep(within)

    async def final_height(self, tag: FinalityTag) -> int | None:  # noqa: ARG002 - for chains that have it
        """Height of the newest block the chain itself calls final; None when this chain or node knows no such thing."""
        return None

    async def holdings(self, addresses: Sequence[str], *, block_hash: str) -> list[Holding] | None:  # noqa: ARG002
        """What each account holds after this block, in order; None when the node no longer has that block's state."""
        return None

    async def spending(self, address: str, *, block_hash: str) -> int:  # noqa: ARG002 - for chains with accounts
        """Base units that left the account by its own transactions in this block, fees included."""
        return 0

    async def mempool(self, *, known: frozenset[str]) -> Mempool | None:
        """What waits, with the transfers of transactions not in `known`; None when this chain has nothing to show."""

    async def close(self) -> None: ...
