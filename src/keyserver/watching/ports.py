"""What the scanner needs of a chain, whichever family it is of.

Adapters: `watching/bitcoind.py`, `watching/evm.py`, and the simulated chain of demo mode, `demo/chain.py`.
An adapter keeps no state that correctness rests on, knows nothing of our addresses, and never answers "nothing" when
it means "I don't know": what it cannot say for certain, it raises.

SourceError
├── NodeUnavailable   cannot be reached, is starting, is syncing, refuses us: try again later
├── WrongNode         answers, but is another chain or network than was registered: an operator must mend it
└── BlockNotFound     does not (or no longer) know the block asked for: look at the tip again
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
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
    """

    tx_hash: str
    output_index: int
    asset: str
    address: str
    amount_units: int


@dataclass(frozen=True, slots=True)
class Block:
    height: int
    hash: str
    parent_hash: str
    mined_at: datetime
    transfers: Sequence[Transfer]

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


class ChainSource(Protocol):
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

    async def mempool(self, *, known: frozenset[str]) -> Mempool | None:
        """What waits, with the transfers of transactions not in `known`; None when this chain has nothing to show."""

    async def close(self) -> None: ...
