"""A blockchain in memory whose accounts hold something: coin that contracts pass on, and what owners send away."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.watching.chain_in_memory import ChainInMemory

from keyserver.watching.ports import Block, BlockNotFound, Holding, Transfer


@dataclass
class AccountsInMemory(ChainInMemory):
    """A chain that knows what its accounts hold, and shows internal calls or does not.

    `hidden` are transfers by internal calls, `spent` base units, both by block hash. `idle` blocks hold no transaction:
    there is nothing in them that could be hidden.
    """

    traces: bool = False
    has_mempool: bool = False
    hidden: dict[str, list[Transfer]] = field(default_factory=dict)
    spent: dict[str, Counter[str]] = field(default_factory=dict)
    idle: set[str] = field(default_factory=set)
    pruned: int = -1
    asked: int = 0

    def happen(
        self, *seen: Transfer, hidden: Sequence[Transfer] = (), spent: dict[str, int] | None = None, blocks: int = 1
    ) -> None:
        for number in range(blocks):
            block = self.mine(*(seen if number == 0 else ()))
            self.hidden[block.hash] = list(hidden) if number == 0 else []
            self.spent[block.hash] = Counter((spent or {}) if number == 0 else {})

    def idle_block(self) -> None:
        self.idle.add(self.mine().hash)

    async def block(self, height: int, *, contracts: frozenset[str]) -> Block:
        found = await super().block(height, contracts=contracts)
        hidden = self.hidden.get(found.hash, [])
        transfers = [*found.transfers, *(hidden if self.traces else [])]
        shows_all = self.traces or found.hash in self.idle
        return Block(found.height, found.hash, found.parent_hash, found.mined_at, transfers, shows_all)

    async def holdings(self, addresses: Sequence[str], *, block_hash: str) -> list[Holding] | None:
        self.asked += len(addresses)
        hashes = [block.hash for block in self.branch]
        if block_hash not in hashes:
            raise BlockNotFound(block_hash)
        height = hashes.index(block_hash)
        return None if height <= self.pruned else [self.holding(address, height) for address in addresses]

    async def spending(self, address: str, *, block_hash: str) -> int:
        return self.spent.get(block_hash, Counter())[address]

    def holding(self, address: str, height: int) -> Holding:
        balance = nonce = 0
        for block in self.branch[: height + 1]:
            arrived = [*block.transfers, *self.hidden.get(block.hash, [])]
            balance += sum(each.amount_units for each in arrived if (each.address, each.asset) == (address, "native"))
            left = self.spent.get(block.hash, Counter())[address]
            balance, nonce = balance - left, nonce + (left > 0)
        return Holding(balance, nonce)
