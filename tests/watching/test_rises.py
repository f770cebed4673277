"""Narrowing an unexplained rise of a balance down to its blocks, on accounts in memory."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from tests.watching.chain_in_memory import ChainInMemory

from keyserver.watching.ports import BlockRef, Holding
from keyserver.watching.rises import Budget, Reading, Search, last_block_before

ENOUGH = 10_000


@dataclass(frozen=True)
class Happened:
    """To one account in one block: base units that were seen arriving, that were not, and that it spent itself."""

    seen: int = 0
    hidden: int = 0
    spent: int = 0


@dataclass
class OneAccount(ChainInMemory):
    """What happened to an account in the blocks from 1 on; nothing of blocks up to `pruned` is left but their hash."""

    story: Sequence[Happened] = ()
    pruned: int = -1
    read: list[int] = field(default_factory=list)

    def holding(self, height: int) -> Holding:
        told = self.story[:height]
        return Holding(sum(each.seen + each.hidden - each.spent for each in told), sum(each.spent > 0 for each in told))

    async def block_hash(self, height: int) -> str:
        return f"block{height}"

    async def holdings(self, addresses: Sequence[str], *, block_hash: str) -> list[Holding] | None:  # noqa: ARG002 - one
        height = int(block_hash.removeprefix("block"))
        self.read.append(height)
        return None if height <= self.pruned else [self.holding(height)]

    async def spending(self, address: str, *, block_hash: str) -> int:  # noqa: ARG002 - there is one only
        return self.story[int(block_hash.removeprefix("block")) - 1].spent

    def reading(self, height: int) -> Reading:
        return Reading(BlockRef(height, f"block{height}"), self.holding(height))

    def search(self) -> Search:
        recorded = {height: each.seen for height, each in enumerate(self.story, start=1) if each.seen}
        return Search(self, "account", recorded, self.reading(0))


units = st.just(0) | st.integers(1, 10**24)


@st.composite
def stories(draw: st.DrawFn) -> list[Happened]:
    """Nobody spends what he does not have."""
    happened, balance = [], 0
    for _ in range(draw(st.integers(1, 40))):
        quiet = draw(st.booleans())
        each = Happened() if quiet else Happened(draw(units), draw(units))
        balance += each.seen + each.hidden
        spent = 0 if quiet else draw(st.just(0) | st.integers(0, balance))
        balance -= spent
        happened.append(Happened(each.seen, each.hidden, spent))
    return happened


@given(stories())
async def test_whatever_else_came_and_went_every_hidden_arrival_is_found_in_its_block(story: list[Happened]) -> None:
    account = OneAccount(story=story)
    search = account.search()

    await search.up_to(account.reading(len(story)), budget=Budget(ENOUGH))

    hidden = {height: each.hidden for height, each in enumerate(story, start=1) if each.hidden}
    assert {rise.block.height: rise.units for rise in search.rises} == hidden
    assert all(rise.above == rise.block.height - 1 for rise in search.rises)
    assert search.reached.block.height == len(story)


@given(stories(), st.integers(0, 3))
async def test_what_the_budget_does_not_allow_goes_on_where_it_ended(story: list[Happened], allowed: int) -> None:
    account = OneAccount(story=story)
    found: Counter[int] = Counter()
    search = account.search()
    for _ in range(40 * len(story)):
        await search.up_to(account.reading(len(story)), budget=Budget(max(1, allowed)))
        found.update({rise.block.height: rise.units for rise in search.rises})
        if search.reached.block.height == len(story):
            break
        search = Search(account, "account", search.recorded, search.reached)
        allowed += 1

    assert found == Counter({height: each.hidden for height, each in enumerate(story, start=1) if each.hidden})


@given(stories(), st.data())
async def test_states_that_are_gone_never_lead_to_more_than_arrived(story: list[Happened], data: st.DataObject) -> None:
    """Of a stretch without states the sum is what is certain: less where the account spent in it, and never more."""
    account = OneAccount(story=story, pruned=data.draw(st.integers(0, len(story) - 1)))
    search = account.search()

    await search.up_to(account.reading(len(story)), budget=Budget(ENOUGH))

    for rise in search.rises:
        stretch = story[rise.above : rise.block.height]
        arrived = sum(each.hidden for each in stretch)
        exact = len(stretch) == 1 or not any(each.spent for each in stretch)
        assert rise.units == arrived if exact else rise.units <= arrived
    covered = [range(rise.above + 1, rise.block.height + 1) for rise in search.rises]
    assert all(before.stop <= after.start for before, after in pairwise(covered))


async def test_an_account_that_is_explained_is_read_no_further() -> None:
    account = OneAccount(story=[Happened(seen=5)] * 1000)
    search = account.search()

    await search.up_to(account.reading(1000), budget=Budget(0))

    assert (search.rises, search.reached.block.height, account.read) == ([], 1000, [])


async def test_one_hidden_arrival_in_a_thousand_blocks_takes_ten_readings() -> None:
    account = OneAccount(story=[*[Happened()] * 700, Happened(hidden=3), *[Happened()] * 299])
    search = account.search()

    await search.up_to(account.reading(1000), budget=Budget(ENOUGH))

    assert [(rise.block.height, rise.units) for rise in search.rises] == [(701, 3)]
    assert len(account.read) <= 10


@given(st.lists(st.booleans(), min_size=1, max_size=200).map(lambda each: sorted(each, reverse=True)))
async def test_the_last_block_before_an_instant_is_found_from_the_end(before: list[bool]) -> None:
    async def is_before(height: int) -> bool:
        return before[height]

    found = await last_block_before(is_before, first=0, last=len(before) - 1)

    assert found == max(0, sum(before) - 1)
