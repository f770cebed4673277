"""Whatever a chain, its node, the market and our own processes do: every confirmed payment is credited exactly once.

Hypothesis plays forks, mempools, replacements, restarts, races and late prices on a chain in memory; at the end of
each history the books, the charges and the webhooks must tell the same story as the chain.
"""

import asyncio
import contextlib
import os
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from sqlalchemy import make_url, select
from tests.builders import ManualClock
from tests.watching.chain_in_memory import transfer
from tests.watching.world import World, make_world

from keyserver.charges.expiry import expire_due
from keyserver.charges.models import Charge, Payment
from keyserver.charges.states import PaymentStatus
from keyserver.charges.waiting import credit_waiting
from keyserver.kit.db import Database
from keyserver.ledger.models import JournalEntry
from keyserver.watching.cursor import LostRace
from keyserver.watching.ports import NodeUnavailable, Transfer
from keyserver.watching.scanner import BranchUnsettled, Follower
from keyserver.webhooks.models import WebhookDelivery

CONFIRMATIONS = 2
COIN_PRICES = {"COIN": Decimal(50), "TOK": Decimal(10)}


class History(RuleBasedStateMachine):
    """`followers` are two processes over one database; what a step raises when it loses a race is tried again."""

    server_url: str
    template: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.name = f"history_{uuid.uuid4().hex}"
        self.run(self._open())
        self.followers = [self.world.follower(), self.world.follower()]
        self.charges: list[Charge] = [self.run(self.world.charge(units)) for units in (10, 100)]
        self.keys: list[str] = [*(each.address for each in self.charges), self.run(self.world.address())]

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    async def _open(self) -> None:
        await self._administer(f'CREATE DATABASE "{self.name}" TEMPLATE "{self.template}"')
        url = make_url(self.server_url).set(database=self.name).render_as_string(hide_password=False)
        self.world: World = await make_world(Database(url, pool_size=8), ManualClock())
        self.chain, self.clock, self.market = self.world.chain, self.world.clock, self.world.market

    async def _administer(self, statement: str) -> None:
        connection = await asyncpg.connect(self.server_url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    # --- what people do ---------------------------------------------------------------------------------------

    @rule(
        data=st.data(),
        units=st.sampled_from([5, 10, 100]),
        outputs=st.sampled_from([1, 1, 2]),
        token=st.sampled_from([False, False, True]),
        mined=st.booleans(),
    )
    def pay(self, data: st.DataObject, units: int, outputs: int, token: bool, mined: bool) -> None:
        key = data.draw(st.sampled_from(self.keys))
        asset = "0xtok" if token else "native"
        first = transfer(key, units, asset=asset)
        others = [transfer(key, units, tx_hash=first.tx_hash, index=n, asset=asset) for n in range(1, outputs)]
        if mined:
            self.chain.mine(first, *others, at=self.clock(), blocks=2)
            self.run(self._step(self.followers[0], 100))
        else:
            self.chain.wait(first, *others)

    @precondition(lambda self: self.chain.waiting)
    @rule(data=st.data(), again=st.booleans())
    def replace(self, data: st.DataObject, again: bool) -> None:
        gone = data.draw(st.sampled_from(self.chain.waiting))
        self.chain.drop(gone.tx_hash)
        if again:
            self.chain.wait(transfer(gone.address, gone.amount_units, asset=gone.asset))

    # --- what the chain and its node do -----------------------------------------------------------------------

    @rule(blocks=st.integers(1, 3))
    def mine(self, blocks: int) -> None:
        self.chain.mine(*self.chain.waiting, at=self.clock(), blocks=blocks)

    @precondition(lambda self: self.chain.height > 0)
    @rule(depth=st.integers(1, 4), more=st.integers(0, 2), data=st.data())
    def fork(self, depth: int, more: int, data: st.DataObject) -> None:
        """What the old branch held waits again, is in the new one at once, as it was or moved, or is double-spent."""
        depth = min(depth, self.chain.height)
        by_tx: dict[str, list[Transfer]] = {}
        for each in self.chain.fork(depth):
            by_tx.setdefault(each.tx_hash, []).append(each)
        fates = {tx_hash: data.draw(st.sampled_from(["waits", "mined", "moved", "gone"])) for tx_hash in by_tx}
        mined = [each for tx_hash, held in by_tx.items() if fates[tx_hash] == "mined" for each in held]
        moved = [_moved(each) for tx_hash, held in by_tx.items() if fates[tx_hash] == "moved" for each in held]
        self.chain.mine(*mined, *moved, at=self.clock(), blocks=depth + more)
        self.chain.wait(*(each for tx, held in by_tx.items() if fates[tx] == "waits" for each in held))

    @rule(down=st.booleans(), lag=st.integers(0, 2))
    def trouble(self, down: bool, lag: int) -> None:
        if down:
            self.chain.failures.append(NodeUnavailable("down"))
        self.chain.lag = min(lag, self.chain.height)

    # --- what we do -------------------------------------------------------------------------------------------

    @rule(which=st.integers(0, 1), most=st.sampled_from([1, 100]), restarted=st.booleans())
    def follow(self, which: int, most: int, restarted: bool) -> None:
        if restarted:
            self.followers[which] = self.world.follower()
        self.run(self._step(self.followers[which], most))

    @rule()
    def race(self) -> None:
        self.run(self._together(*(lambda each=each: self._step(each, 100) for each in self.followers), self._credit))

    @rule(minutes=st.sampled_from([1, 31, 1500]))
    def advance(self, minutes: int) -> None:
        self.clock.advance(minutes=minutes)
        self.run(self._together(self._expire, lambda: self._step(self.followers[0], 100)))

    @rule(known=st.booleans())
    def price(self, known: bool) -> None:
        self.market.prices = dict(COIN_PRICES) if known else {}
        self.run(self._credit())

    async def _step(self, follower: Follower, most: int) -> None:
        with contextlib.suppress(LostRace, NodeUnavailable, BranchUnsettled):
            await follower.step(most=most)

    async def _credit(self) -> None:
        await credit_waiting(self.world.database, market=self.market, now=self.clock)

    async def _expire(self) -> None:
        await expire_due(self.world.database, clock=self.clock)

    async def _together(self, *works: Callable[[], Awaitable[None]]) -> None:
        async with asyncio.timeout(20):
            await asyncio.gather(*(work() for work in works))

    # --- how it must end --------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            self.run(self._end())
        finally:
            self.run(self.world.database.dispose())
            self.run(self._administer(f'DROP DATABASE "{self.name}" WITH (FORCE)'))
            self.runner.close()

    async def _end(self) -> None:
        self.chain.failures.clear()
        self.chain.lag = 0
        self.market.prices = dict(COIN_PRICES)
        await self.world.step()
        await self._credit()
        await self._expire()
        await self._credited_once()
        for charge in self.charges:
            await self._told_and_assessed(charge)

    async def _credited_once(self) -> None:
        """Credited is what the chain holds deep enough, each once; the tenant's balance is their sum."""
        deep = Counter(
            (each.tx_hash, each.output_index, each.asset, each.address, each.amount_units)
            for block in self.chain.branch
            if self.chain.height - block.height + 1 >= CONFIRMATIONS
            for each in block.transfers
        )
        payments = await self.world.payments()
        credited = [each for each in payments if each.credited_nanos is not None]
        held = [
            (each.tx_hash, each.output_index, each.asset, each.address.lower(), each.amount_units) for each in credited
        ]
        assert Counter(held) == deep
        assert {each.status for each in credited} <= {PaymentStatus.CONFIRMED}
        assert await self.world.balance() == sum(each.credited_nanos or 0 for each in credited)
        async with self.world.database.transaction() as session:
            references = list(await session.scalars(select(JournalEntry.reference_id)))
        standing = Counter[str]()
        for reference in references:
            payment_id, what, _ = reference.split(":")
            standing[payment_id] += 1 if what == "credit" else -1
        assert {payment_id for payment_id, times in standing.items() if times} == {each.id for each in credited}
        assert set(standing.values()) <= {0, 1}

    async def _told_and_assessed(self, charge: Charge) -> None:
        """The charge is what its payments make of it, and its last webhook says so."""
        now = await self.world.now_of(charge)
        async with self.world.database.transaction() as session:
            ours = await session.scalars(select(Payment).where(Payment.charge_id == charge.id))
            counted = [each for each in ours if each.status in {"seen", "confirming", "confirmed"}]
            query = select(WebhookDelivery).where(WebhookDelivery.subject_id == charge.id)
            last = (await session.scalars(query.order_by(WebhookDelivery.sequence.desc()).limit(1))).first()
        assert now.received_units == sum(each.amount_units for each in counted)
        confirmed = sum(each.amount_units for each in counted if each.status is PaymentStatus.CONFIRMED)
        assert (now.status == "Settled") == (confirmed >= now.expected_units)
        assert (now.credited_at is not None) == (now.status == "Settled")
        told = await self.world.webhooks(charge)
        assert len(told) == now.sequence
        if last is None:
            assert (now.status, now.received_units) == ("New", 0)
            return
        payload = last.payload
        assert (payload["status"], payload["additionalStatus"]) == (now.status, now.additional_status)
        assert (payload["receivedAmount"], payload["confirmations"]) == (str(now.received_units), now.confirmations)


def _moved(transfer_: Transfer) -> Transfer:
    """As in a block that holds another log before it, and where its contract pays more."""
    return replace(transfer_, output_index=transfer_.output_index + 1, amount_units=transfer_.amount_units + 1)


@pytest.mark.timeout(300)
def test_every_history_ends_with_right_books(server_url: str) -> None:
    History.server_url = server_url
    History.template = os.environ["KEYSERVER_TEST_TEMPLATE"]
    bounds = settings(max_examples=30, stateful_step_count=25, deadline=None, database=None)
    run_state_machine_as_test(History, settings=bounds)
