"""Any history of a chain, its nodes, the market, operators and our own processes, played by Hypothesis.

The chain is in memory, the database real. What is drawn depends on the chain alone, never on what the database holds,
so that a history can be played again.
"""

import asyncio
import contextlib
import itertools
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import asyncpg
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from sqlalchemy import make_url
from tests.builders import ManualClock
from tests.charges import history_end
from tests.charges import history_work as work
from tests.watching import again
from tests.watching.accounts_in_memory import AccountsInMemory
from tests.watching.chain_in_memory import transfer
from tests.watching.views import DOWN, Views
from tests.watching.world import BLOCKCHAIN, World, make_world

from keyserver.chains.models import Finality
from keyserver.charges.expiry import expire_due
from keyserver.charges.models import Charge
from keyserver.charges.waiting import credit_waiting
from keyserver.kit.db import Database
from keyserver.watching.cursor import LostRace
from keyserver.watching.failover import Failover
from keyserver.watching.models import JobKind, JobStatus
from keyserver.watching.ports import FinalityTag, SourceError, Transfer
from keyserver.watching.scanner import Follower

PRICES = {"COIN": Decimal(50), "TOK": Decimal(10), "NEW": Decimal(20)}
#: Blocks until a block reward is mature: a hundred on a real chain.
MATURE = 5
STRAYS = ["stray0", "stray1"]
ASSETS = {"coin": "native", "token": "0xtok", "unknown token": "0xnew"}
FATES = st.lists(st.sampled_from(["waits", "mined", "moved", "gone"]), min_size=1, max_size=4)


class History(RuleBasedStateMachine):
    """`followers` are two processes over one database; what a step raises when it loses a race is tried again."""

    server_url: str
    template: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.name = f"history_{uuid.uuid4().hex}"
        self.sources: list[Failover] = []
        self.calls: list[Transfer] = []
        self.token_registered = False
        self.run(self._open())
        self.followers = [self._follower(), self._follower()]
        self.charges: list[Charge] = [self.run(self.world.charge(units)) for units in (10, 100)]
        self.keys: list[str] = [*(each.address for each in self.charges), self.run(self.world.address()), *STRAYS]
        self.views.pay_elsewhere(self.keys)

    def run(self, doing: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(doing)

    async def _open(self) -> None:
        await self._administer(f'CREATE DATABASE "{self.name}" TEMPLATE "{self.template}"')
        url = make_url(self.server_url).set(database=self.name).render_as_string(hide_password=False)
        self.world: World = await make_world(Database(url, pool_size=8), ManualClock())
        self.chain = AccountsInMemory(started_at=self.world.clock())
        self.world.chain, self.clock, self.market = self.chain, self.world.clock, self.world.market
        self.views = Views(self.chain, BLOCKCHAIN)
        await work.watch_ahead(self.world, STRAYS)
        await self.world.step()

    async def _administer(self, statement: str) -> None:
        connection = await asyncpg.connect(self.server_url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def _follower(self) -> Follower:
        source = self.views.source(self.world.database, self.clock)
        self.sources.append(source)
        return self.world.follower(chain=source)

    @initialize(first=st.booleans(), second=st.booleans(), finality=st.sampled_from([Finality.DEPTH, *Finality]))
    def begin(self, first: bool, second: bool, finality: Finality) -> None:
        """Which nodes show internal calls, and what makes payments final."""
        self.views.trace(first, second)
        self.finality = finality
        self.run(work.decide_by(self.world, finality))
        self.finalize(behind=0)

    # --- what people do ---------------------------------------------------------------------------------------

    @rule(
        to=st.integers(0, 4),
        units=st.sampled_from([5, 10, 100]),
        outputs=st.sampled_from([1, 1, 2]),
        what=st.sampled_from(["coin", "coin", "token", "unknown token"]),
        mined=st.booleans(),
    )
    def pay(self, to: int, units: int, outputs: int = 1, what: str = "coin", mined: bool = True) -> None:
        first = transfer(self.keys[to], units, asset=ASSETS[what])
        others = [transfer(first.address, units, tx_hash=first.tx_hash, index=n, asset=first.asset) for n in (1, 2)]
        if mined:
            self._mine(first, *others[: outputs - 1], blocks=2)
            self.run(self._step(self.followers[0], 100))
        else:
            self.chain.wait(first, *others[: outputs - 1])
            self.views.spread()

    @rule(to=st.integers(0, 2), units=st.sampled_from([5, 10, 100]), blocks=st.integers(1, 2))
    def pay_by_contract(self, to: int, units: int, blocks: int = 2) -> None:
        """An internal call: no node shows it that does not trace.

        To an address that was handed out: balances of others are not compared (docs/decisions/0018).
        """
        self.calls.append(transfer(self.keys[to], units, index=1))
        self._mine(blocks=blocks)

    @rule(to=st.integers(0, 4), units=st.sampled_from([5, 10, 100]))
    def reward(self, to: int, units: int) -> None:
        """A miner's new coins, which cannot be spent before they mature."""
        self._mine(transfer(self.keys[to], units, least=MATURE), blocks=2)

    @precondition(lambda self: self.chain.waiting)
    @rule(which=st.integers(0, 20), again=st.booleans())
    def replace(self, which: int, again: bool) -> None:
        gone = self.chain.waiting[which % len(self.chain.waiting)]
        self.chain.drop(gone.tx_hash)
        if again:
            self.chain.wait(transfer(gone.address, gone.amount_units, asset=gone.asset))
        self.views.spread()

    @rule(which=st.integers(0, 4), share=st.sampled_from([0.5, 1.0]))
    def sweep(self, which: int, share: float) -> None:
        """The owner of the keys takes coin away."""
        spent = int(self.chain.holding(self.keys[which], self.chain.height).balance_units * share)
        if spent:
            self.chain.spent[self._mine().hash] = Counter({self.keys[which]: spent})

    # --- what the chain and its nodes do ----------------------------------------------------------------------

    @rule(blocks=st.integers(1, 3))
    def mine(self, blocks: int) -> None:
        self._mine(*self.chain.waiting, blocks=blocks)

    @precondition(lambda self: self.chain.height > 0)
    @rule(depth=st.integers(1, 4), more=st.integers(0, 2), fates=FATES)
    def fork(self, depth: int, more: int, fates: Sequence[str]) -> None:
        """What the old branch held waits again, is in the new one at once, as it was or moved, or is double-spent."""
        depth = min(depth, self.chain.height)
        called = [each for block in self.chain.branch[-depth:] for each in self.chain.hidden.get(block.hash, [])]
        held = [each for each in self.chain.fork(depth) if not each.least_confirmations]
        fate = dict(zip(dict.fromkeys(each.tx_hash for each in [*held, *called]), itertools.cycle(fates), strict=False))
        self.chain.final = {tag: min(final, self.chain.height) for tag, final in self.chain.final.items()}
        self.calls += [each for each in called if fate[each.tx_hash] in {"mined", "moved"}]
        mined = [each for each in held if fate[each.tx_hash] == "mined"]
        moved = [_moved(each) for each in held if fate[each.tx_hash] == "moved"]
        self._mine(*mined, *moved, blocks=depth + more)
        self.chain.wait(*(each for each in held if fate[each.tx_hash] == "waits"))
        self.calls += [each for each in called if fate[each.tx_hash] == "waits"]
        self.views.spread()

    def _mine(self, *transfers: Transfer, blocks: int = 1) -> Any:
        """The first block holds these transfers and the calls that wait, and is returned."""
        below = self.chain.height
        self.chain.mine(*transfers, at=self.clock(), blocks=blocks)
        block = self.chain.branch[below + 1]
        self.chain.hidden[block.hash], self.calls = self.calls, []
        self.views.spread()
        return block

    @rule(behind=st.integers(0, 3))
    def finalize(self, behind: int) -> None:
        """More of the chain is final: what is stays so, but for a fork that no chain should allow."""
        final = max(0, self.chain.height - behind)
        self.chain.final = {tag: max(final, self.chain.final.get(tag, 0)) for tag in FinalityTag}
        self.views.spread()

    @rule(
        which=st.integers(0, 1),
        failures=st.integers(0, 2),
        lag=st.integers(0, 2),
        stuck=st.booleans(),
        seconds=st.sampled_from([1, 20, 400]),
    )
    def trouble(self, which: int, failures: int, lag: int, stuck: bool, seconds: int) -> None:
        """A node fails, lags, stays on its branch for as long as this says, or is well again."""
        node = self.views.nodes[which]
        node.failures[:] = [DOWN] * failures
        node.lag = min(lag, len(node.branch) - 1)
        (self.views.stuck.add if stuck else self.views.stuck.discard)(which)
        self.views.spread()
        self.views.seconds += seconds

    # --- what we do -------------------------------------------------------------------------------------------

    @rule(which=st.integers(0, 1), most=st.sampled_from([1, 100]), restarted=st.booleans())
    def follow(self, which: int, most: int = 100, restarted: bool = False) -> None:
        if restarted:
            self.followers[which] = self._follower()
        self.run(self._step(self.followers[which], most))

    @rule(pick=st.integers(0, 20), dismissed=st.booleans())
    def race(self, pick: int, dismissed: bool) -> None:
        steps = [lambda each=each: self._step(each, 100) for each in self.followers]
        self.run(self._together(*steps, self._credit, lambda: work.operate(self.world, pick, None if dismissed else 7)))

    @rule(minutes=st.sampled_from([1, 31, 1500]))
    def advance(self, minutes: int) -> None:
        self.clock.advance(minutes=minutes)
        self.views.seconds += 60 * minutes
        self.run(self._together(self._expire, lambda: self._step(self.followers[0], 100)))

    @rule(known=st.booleans())
    def price(self, known: bool) -> None:
        self.market.prices = dict(PRICES) if known else {}
        self.run(self._credit())

    @rule(pick=st.integers(0, 20), dollars=st.sampled_from([None, 0, 7]))
    def operate(self, pick: int, dollars: int | None) -> None:
        """An operator credits one of the payments by hand, at the market's price (0) or with so much, or dismisses."""
        self.run(work.operate(self.world, pick, dollars))

    @rule(share=st.floats(0, 1), concurrently=st.booleans())
    def rescan(self, share: float, concurrently: bool) -> None:
        self.run(self._rescan(share, concurrently=concurrently))

    @precondition(lambda self: not self.token_registered)
    @rule()
    def register_token(self) -> None:
        """From here on it is credited, and what came before is found by a rescan."""
        self.token_registered = True
        self.run(work.register_token(self.world, ASSETS["unknown token"]))

    async def _step(self, follower: Follower, most: int) -> None:
        with contextlib.suppress(LostRace, SourceError):
            await follower.step(most=most)

    async def _credit(self) -> None:
        await credit_waiting(self.world.database, market=self.market, now=self.clock)

    async def _expire(self) -> None:
        await expire_due(self.world.database, clock=self.clock)

    async def _rescan(self, share: float, *, concurrently: bool) -> None:
        """From some height up to the cursor; where no node is on our branch, it is given up after a while."""
        job = await again.ask(self.world, JobKind.RESCAN, int(share * (await self.world.cursor())[0]))
        others = [lambda: self._step(self.followers[1], 100), self._credit] if concurrently else []

        async def reread() -> None:
            done = await again.work_off(self.world, job, give_up_after=3)
            assert done.status in {JobStatus.DONE, JobStatus.FAILED}

        await self._together(reread, *others)

    async def _together(self, *works: Callable[[], Awaitable[None]]) -> None:
        async with asyncio.timeout(20):
            await asyncio.gather(*(each() for each in works))

    # --- how it must end --------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            self.run(self._end())
        finally:
            self.run(self._close())
            self.runner.close()

    async def _close(self) -> None:
        for source in self.sources:
            await source.close()
        await self.world.database.dispose()
        await self._administer(f'DROP DATABASE "{self.name}" WITH (FORCE)')

    async def _end(self) -> None:
        """As it is, and again once everything is deep enough and final."""
        self.market.prices = dict(PRICES)
        for blocks in (1, MATURE):
            self._mine(blocks=blocks)
            self.views.heal()
            await self._settle()
            await history_end.check(self.world, self.charges, self._final_height())
            await history_end.nothing_of(self.world, self.views.stranger)
            self.finalize(behind=0)
        await history_end.audited(self.world)

    async def _settle(self) -> None:
        """Everything is followed, priced and expired; what came before its token was registered is found."""
        await self.world.step()
        if self.token_registered:
            await self._rescan(0.0, concurrently=False)
        await self._credit()
        await self._expire()

    def _final_height(self) -> int | None:
        return None if self.finality is Finality.DEPTH else self.chain.final[FinalityTag(self.finality)]


def _moved(transfer_: Transfer) -> Transfer:
    """As in a block that holds another log before it, and where its contract pays more."""
    return replace(transfer_, output_index=transfer_.output_index + 1, amount_units=transfer_.amount_units + 1)
