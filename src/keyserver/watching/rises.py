"""In which blocks an account came to hold more than its recorded payments explain, over the port alone.

Nothing but the change between two readings is known at first. Where payments and the account's own transactions do not
explain it, the stretch is halved, until it is one block: there, what is left over arrived by an internal call.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from keyserver.watching.ports import BlockRef, ChainSource, Holding

#: Base units by block height: the payments to one account that are recorded.
Recorded = Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Reading:
    """What the account held after this block."""

    block: BlockRef
    holding: Holding


@dataclass(frozen=True, slots=True)
class Rise:
    """Base units that nothing explains, in the account after `block`, and not there at height `above` or before."""

    block: BlockRef
    above: int
    units: int


@dataclass(slots=True)
class Budget:
    """How many readings may still be asked for."""

    readings: int


@dataclass(slots=True)
class Search:
    """One account's search. `reached`: everything up to there is explained, or in `rises`."""

    source: ChainSource
    address: str
    recorded: Recorded
    reached: Reading
    rises: list[Rise] = field(default_factory=list)
    #: No block up to this height, and above `reached`, has its state left on the node.
    _blind: int = 0

    async def up_to(self, last: Reading, *, budget: Budget) -> None:
        """Explains the stretch from `reached` to `last`, or as much of it as the budget allows."""
        pending = [last]
        while pending:
            following = pending[-1]
            low = max(self.reached.block.height, self._blind)
            if not self._is_explained(following) and following.block.height - low > 1:
                if budget.readings <= 0:
                    return
                budget.readings -= 1
                middle = await self._read((low + following.block.height) // 2)
                if middle is not None:
                    pending.append(middle)
                continue
            if not self._is_explained(following):
                await self._add_rise(following)
            self.reached = pending.pop()

    def _is_explained(self, following: Reading) -> bool:
        """An account that sent nothing itself loses nothing: less than recorded hides no arrival that we could see."""
        same_nonce = following.holding.nonce == self.reached.holding.nonce
        return same_nonce and self._gain(following) <= self._recorded_until(following)

    def _gain(self, following: Reading) -> int:
        return following.holding.balance_units - self.reached.holding.balance_units

    def _recorded_until(self, following: Reading) -> int:
        stretch = range(self.reached.block.height + 1, following.block.height + 1)
        return sum(units for height, units in self.recorded.items() if height in stretch)

    async def _add_rise(self, following: Reading) -> None:
        """What left is only known of a single block; of a stretch without states, what is certain counts."""
        spent = 0
        is_one_block = following.block.height == self.reached.block.height + 1
        if is_one_block and following.holding.nonce != self.reached.holding.nonce:
            spent = await self.source.spending(self.address, block_hash=following.block.hash)
        units = self._gain(following) - self._recorded_until(following) + spent
        if units > 0:
            self.rises.append(Rise(following.block, self.reached.block.height, units))

    async def _read(self, height: int) -> Reading | None:
        block = BlockRef(height, await self.source.block_hash(height))
        holdings = await self.source.holdings([self.address], block_hash=block.hash)
        if holdings is None:
            self._blind = height
            return None
        return Reading(block, holdings[0])


async def last_block_before(is_before: Callable[[int], Awaitable[bool]], *, first: int, last: int) -> int:
    """The highest of these heights that `is_before` holds for, `first` if for none; near `last` it is found fastest."""
    step = 1
    low, high = last, last + 1  # high: known not to be before, or beyond the end
    while low > first and not await is_before(low):
        low, high = max(first, low - step), low
        step *= 2
    while high - low > 1:
        middle = (low + high) // 2
        if await is_before(middle):
            low = middle
        else:
            high = middle
    return low
