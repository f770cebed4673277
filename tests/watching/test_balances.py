"""Coin that no transfer shows is found by balances and credited once: accounts in memory, a database that is real."""

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import make_url
from tests.builders import ManualClock
from tests.watching.accounts_in_memory import AccountsInMemory
from tests.watching.again import audit, by_hand, everything, kinds, rescan
from tests.watching.chain_in_memory import transfer
from tests.watching.world import UNIT_NANOS, World, make_world

from keyserver.chains.models import Blockchain
from keyserver.charges import settlement
from keyserver.charges.recording import Arrival, Inclusion
from keyserver.charges.states import PaymentStatus
from keyserver.kit.db import Database
from keyserver.watching import accounts


@pytest.fixture
async def world(database: Database, clock: ManualClock) -> World:
    return await a_world(database, clock)


async def a_world(database: Database, clock: ManualClock) -> World:
    world = await make_world(database, clock)
    world.chain = AccountsInMemory(started_at=clock())
    world.market.prices["COIN"] = Decimal(100)  # as the charges': a base unit is a dollar
    return world


def ledger(world: World) -> AccountsInMemory:
    assert isinstance(world.chain, AccountsInMemory)
    return world.chain


async def amounts(world: World) -> list[tuple[int, str]]:
    return [(payment.amount_units, str(payment.status)) for payment in await world.payments()]


async def test_a_payment_from_a_contract_wallet_settles_its_charge_at_the_confirming_block(world: World) -> None:
    charge = await world.charge(100)
    ledger(world).happen(blocks=2)
    await world.step()
    ledger(world).happen(hidden=[transfer(charge.address, 100, index=1)])
    follower = world.follower()
    await world.step(follower)
    assert await world.state(charge) == ("New", "None", 0, 0)

    ledger(world).happen()
    await world.step(follower)

    assert await world.state(charge) == ("Settled", "None", 100, 100)
    assert await world.balance() == 100 * UNIT_NANOS
    (payment,) = await world.payments()
    block = ledger(world).branch[3]
    assert (payment.tx_hash, payment.block_hash, payment.block_height) == (block.hash, block.hash, 3)
    assert payment.output_index < 0 and payment.found_above == 2


async def test_a_payment_from_a_contract_wallet_is_found_under_blocks_without_any_transaction(world: World) -> None:
    charge = await world.charge(100)
    follower = world.follower()
    ledger(world).happen()
    await world.step(follower)
    ledger(world).happen(hidden=[transfer(charge.address, 100, index=1)])
    await world.step(follower)

    ledger(world).idle_block()
    await world.step(follower)

    assert await world.state(charge) == ("Settled", "None", 100, 100)


async def test_a_block_whose_trace_was_refused_once_is_compared_when_it_is_deep_enough(world: World) -> None:
    charge = await world.charge(100)
    follower = world.follower()
    ledger(world).traces = True
    ledger(world).happen(blocks=2)
    await world.step(follower)
    ledger(world).traces = False
    ledger(world).happen(hidden=[transfer(charge.address, 100, index=1)])
    await world.step(follower)

    ledger(world).traces = True
    ledger(world).happen()
    await world.step(follower)

    assert await world.state(charge) == ("Settled", "None", 100, 100)


async def test_a_restart_does_not_forget_that_a_block_hides_coin(world: World) -> None:
    charge = await world.charge(100)
    ledger(world).happen(hidden=[transfer(charge.address, 100, index=1)])
    await world.step(world.follower())
    ledger(world).idle_block()

    await world.step(world.follower())

    assert await world.state(charge) == ("Settled", "None", 100, 100)


async def test_balances_are_compared_until_nothing_can_be_hidden_and_no_longer(world: World) -> None:
    await world.address()
    follower = world.follower()
    ledger(world).happen(blocks=3)
    await world.step(follower)
    for _ in range(2):
        ledger(world).idle_block()
        await world.step(follower)
    asked = ledger(world).asked

    ledger(world).idle_block()
    await world.step(follower)

    assert ledger(world).asked == asked


async def test_two_addresses_paid_in_one_block_are_two_payments(world: World) -> None:
    first, second = await world.charge(10), await world.charge(20)
    ledger(world).happen(hidden=[transfer(first.address, 10, index=1), transfer(second.address, 20, index=2)])
    ledger(world).happen()

    await world.step()

    assert [await world.state(each) for each in (first, second)] == [
        ("Settled", "None", 10, 10),
        ("Settled", "None", 20, 20),
    ]
    assert len({(payment.tx_hash, payment.output_index) for payment in await world.payments()}) == 2


async def test_a_plain_payment_is_not_found_again_by_its_balance(world: World) -> None:
    charge = await world.charge(100)
    for _ in range(3):
        ledger(world).happen(transfer(charge.address, 30))
        await world.step()
    ledger(world).happen(blocks=3)
    await world.step()

    assert await amounts(world) == [(30, "confirmed")] * 3


async def test_coin_that_was_there_before_the_address_was_handed_out_is_nobody_s_payment(
    world: World, clock: ManualClock
) -> None:
    ledger(world).happen(hidden=[transfer("old", 70, index=1)], blocks=3)
    clock.advance(minutes=5)
    await world.address(match_key="old")
    await world.step()
    ledger(world).happen(hidden=[transfer("old", 5, index=1)], blocks=3)

    await world.step()

    assert await amounts(world) == [(5, "confirmed")]


async def test_what_its_owner_swept_away_hides_no_arrival(world: World) -> None:
    key = await world.address()
    ledger(world).happen(transfer(key, 50), hidden=[transfer(key, 7, index=1)])
    ledger(world).happen(spent={key: 57})
    ledger(world).happen(hidden=[transfer(key, 9, index=1)], spent={key: 4}, blocks=3)

    await world.step()

    assert sorted(await amounts(world)) == [(7, "confirmed"), (9, "confirmed"), (50, "confirmed")]
    assert await world.balance() == 66 * UNIT_NANOS


async def test_what_balances_found_is_not_credited_again_when_a_trace_shows_it(world: World) -> None:
    """As a rescan with a better node does: the blocks are told again, with what they hide."""
    key = await world.address()
    ledger(world).happen(transfer(key, 50), hidden=[transfer(key, 7, index=1)], blocks=3)
    await world.step()
    before = await amounts(world)

    ledger(world).traces = True
    block = await ledger(world).block(1, contracts=frozenset())
    async with world.database.transaction() as session:
        blockchain = await session.get_one(Blockchain, "coin:regtest")
        arrivals = [
            Arrival(each.tx_hash, each.output_index, each.asset, each.address, each.amount_units)
            for each in block.transfers
        ]
        told = Inclusion(block.height, block.hash, block.mined_at)
        await settlement.include(session, blockchain, arrivals, told, market=world.market, now=world.clock())

    assert await amounts(world) == before and len(block.transfers) == 2
    assert await world.balance() == 57 * UNIT_NANOS


async def test_a_better_node_misses_nothing_of_what_balances_found(world: World) -> None:
    """Neither a rescan nor an audit, which read the blocks with what they hid before."""
    key = await world.address()
    ledger(world).happen(transfer(key, 50), hidden=[transfer(key, 7, index=1)], spent={key: 30}, blocks=3)
    await world.step()
    before = await everything(world)

    ledger(world).traces = True

    assert (await rescan(world)).found == 0
    assert kinds(await audit(world)) == []
    assert await everything(world) == before


async def test_what_a_trace_showed_is_not_found_again_by_its_balance(world: World) -> None:
    key = await world.address()
    ledger(world).traces = True
    ledger(world).happen(hidden=[transfer(key, 7, index=1)])
    await world.step()
    ledger(world).traces = False
    ledger(world).happen(blocks=3)
    await world.step()

    assert await amounts(world) == [(7, "confirmed")]


async def test_a_found_payment_whose_block_is_orphaned_is_taken_back_and_found_in_its_new_block(world: World) -> None:
    charge = await world.charge(100)
    hidden = [transfer(charge.address, 100, index=1)]
    ledger(world).happen(blocks=2)
    ledger(world).happen(hidden=hidden, blocks=2)
    await world.step()
    assert (await world.state(charge))[0] == "Settled"

    ledger(world).fork(2)
    ledger(world).happen(blocks=3)
    await world.step()
    assert await world.balance() == 0
    ledger(world).happen(hidden=hidden, blocks=2)
    await world.step()

    assert await world.state(charge) == ("Settled", "None", 100, 100)
    assert await world.balance() == 100 * UNIT_NANOS
    assert sorted(await amounts(world)) == [(100, "confirmed"), (100, "replaced")]


async def test_without_the_state_of_the_block_nothing_is_guessed_and_a_later_block_tells(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    charge = await world.charge(100)
    ledger(world).happen(blocks=2)
    await world.step()
    ledger(world).happen(hidden=[transfer(charge.address, 100, index=1)], blocks=2)
    ledger(world).pruned = 4
    await world.step()
    assert await amounts(world) == []

    ledger(world).happen(blocks=3)
    await world.step()

    assert await world.state(charge) == ("Settled", "None", 100, 100)
    (payment,) = await world.payments()
    assert (payment.found_above, payment.block_height) == (1, 5)


async def test_two_followers_find_a_payment_once(world: World) -> None:
    charge = await world.charge(100)
    ledger(world).happen(hidden=[transfer(charge.address, 100, index=1)], blocks=2)
    first, second = world.follower(), world.follower()
    await world.step(first)
    await by_hand(world, "UPDATE scanners SET hidden_up_to = height")  # as if the second had not heard of the first
    await world.step(second)

    assert await amounts(world) == [(100, "confirmed")]


async def test_all_addresses_have_their_turn_and_a_block_s_cost_is_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "MOST_IN_ROUND", 3)
    keys = [await world.address() for _ in range(10)]
    ledger(world).happen(hidden=[transfer(key, 1, index=number) for number, key in enumerate(keys)])
    follower = world.follower()
    costs = []
    for _ in range(6):
        before = ledger(world).asked
        ledger(world).happen()
        await world.step(follower)
        costs.append(ledger(world).asked - before)

    assert len(await world.payments()) == 10
    assert max(costs) <= 3 * 5  # now, at its hand-out, and the halves of the few blocks in between
    assert costs[-1] == 3


async def test_addresses_of_waiting_charges_are_looked_at_with_every_block(
    world: World, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "MOST_IN_ROUND", 1)
    for _ in range(20):
        await world.address()
    charge = await world.charge(100)
    follower = world.follower()
    ledger(world).happen(blocks=3)
    await world.step(follower)
    clock.advance(hours=2)  # expired, and watched for a day all the same
    ledger(world).happen(hidden=[transfer(charge.address, 100, index=1)], blocks=2)
    await world.step(follower)

    assert (await world.state(charge))[0] == "Settled"


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, int, int, int, bool]]:
    """Blocks: (which account, seen, hidden, spent, whether the node traces this one)."""
    amount = st.just(0) | st.integers(1, 50)
    balances = [0, 0]
    blocks = []
    for _ in range(draw(st.integers(1, 12))):
        who, seen, hidden = draw(st.integers(0, 1)), draw(amount), draw(amount)
        balances[who] += seen + hidden
        spent = draw(st.just(0) | st.integers(0, balances[who]))
        balances[who] -= spent
        blocks.append((who, seen, hidden, spent, draw(st.booleans())))
    return blocks


@asynccontextmanager
async def fresh_database(server_url: str) -> AsyncIterator[Database]:
    """One for each example: a fixture's is shared by all of them."""
    name = f"balances_{uuid.uuid4().hex}"
    administrator = await asyncpg.connect(server_url)
    await administrator.execute(f'CREATE DATABASE "{name}" TEMPLATE "{os.environ["KEYSERVER_TEST_TEMPLATE"]}"')
    database = Database(make_url(server_url).set(database=name).render_as_string(hide_password=False), pool_size=5)
    try:
        yield database
    finally:
        await database.dispose()
        await administrator.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        await administrator.close()


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories(), data=st.data())
async def test_any_mix_of_payments_and_of_ways_to_look_credits_exactly_what_arrived(
    server_url: str, clock: ManualClock, history: list[tuple[int, int, int, int, bool]], data: st.DataObject
) -> None:
    async with fresh_database(server_url) as database:
        world = await a_world(database, ManualClock(clock()))
        keys = [await world.address(tenant_id="acme"), await world.address(tenant_id="acme")]
        follower = world.follower()
        for who, seen, hidden, spent, traces in history:
            shown = [transfer(keys[who], seen)] if seen else []
            passed_on = [transfer(keys[who], hidden, index=1)] if hidden else []
            ledger(world).happen(*shown, hidden=passed_on, spent={keys[who]: spent})
            ledger(world).traces = traces
            if traces or data.draw(st.booleans()):  # a block that was traced was traced when it was read
                await world.step(follower)
        ledger(world).traces = False
        ledger(world).happen(blocks=3)
        await world.step(follower)

        assert await world.balance() == sum(seen + hidden for _, seen, hidden, _, _ in history) * UNIT_NANOS
        assert all(payment.status is PaymentStatus.CONFIRMED for payment in await world.payments())
