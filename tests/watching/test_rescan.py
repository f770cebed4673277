"""Blocks read again: what was missed is recorded by the usual rules, and nothing that was right changes."""

import asyncio
from decimal import Decimal

import pytest
from sqlalchemy import func, select
from tests.watching.again import ask, by_hand, claim, everything, look_at, rescan, runner, work_off
from tests.watching.chain_in_memory import ChainInMemory, transfer
from tests.watching.world import UNIT_NANOS, World, method

from keyserver.charges.models import Payment
from keyserver.charges.states import PaymentStatus
from keyserver.kit.problems import BadRequest
from keyserver.watching import cursor as cursors
from keyserver.watching import jobs
from keyserver.watching.errors import NotFollowedYet
from keyserver.watching.jobs import LEASE
from keyserver.watching.models import JobStatus, ScannedBlock
from keyserver.watching.ports import BlockNotFound, NodeUnavailable

#: A base unit at the market's price of fifty dollars, in nanodollars.
HALF = UNIT_NANOS // 2


async def miss(world: World, key: str, units: int = 10, *, blocks: int = 1) -> str:
    """A payment in a block that was applied without it; returns the transaction's hash."""
    missed = transfer(key, units)
    world.chain.concealed.add(missed.tx_hash)
    world.chain.mine(missed, at=world.clock(), blocks=blocks)
    await world.step()
    world.chain.concealed.clear()
    return missed.tx_hash


async def test_a_payment_that_was_missed_is_recorded_and_credited(world: World) -> None:
    tx_hash = await miss(world, await world.address(), blocks=3)
    assert await world.payments() == []
    job = await rescan(world)
    (payment,) = await world.payments()
    assert (payment.tx_hash, payment.status, payment.block_height) == (tx_hash, PaymentStatus.CONFIRMED, 1)
    assert (job.status, job.found, job.next_height) == (JobStatus.DONE, 1, 4)
    assert await world.balance() == 10 * HALF


async def test_a_rescan_of_what_is_right_changes_nothing_however_often(world: World) -> None:
    charge = await world.charge(10)
    world.chain.mine(transfer(charge.address, 10), at=world.clock(), blocks=3)
    world.chain.wait(transfer(await world.address(), 5))
    await world.step()
    before = await everything(world)
    for first, last in ((0, None), (1, 1), (2, 99)):
        assert (await rescan(world, first, last)).found == 0
    assert await everything(world) == before


async def test_a_token_registered_later_is_found_where_it_was_paid(world: World) -> None:
    key = await world.address()
    world.chain.mine(transfer(key, 10, asset="0xlate"), at=world.clock(), blocks=3)
    await world.step()
    world.market.prices["LATE"] = Decimal(7)
    async with world.database.transaction() as session:
        session.add(method("LATE", "LATE", "0xlate"))
    await world.step()
    assert await world.payments() == []
    assert (await rescan(world)).found == 1
    assert await world.balance() == 10 * 7 * UNIT_NANOS // 100


async def test_a_missed_payment_that_was_in_time_is_credited_at_the_locked_rate_weeks_later(world: World) -> None:
    charge = await world.charge(10)
    await miss(world, charge.address, blocks=3)
    world.clock.advance(days=30)
    world.chain.mine(at=world.clock(), blocks=2)
    await world.step()
    await rescan(world)
    assert await world.balance() == 10 * UNIT_NANOS
    assert await world.state(charge) == ("Settled", "None", 10, 10)
    assert [kind for kind, _, _ in await world.webhooks(charge)] == ["charge.settled"]


async def test_one_whose_confirmations_came_too_late_is_credited_at_the_market(world: World) -> None:
    charge = await world.charge(10)
    await miss(world, charge.address)
    world.clock.advance(hours=25)  # the block that makes it final comes after the monitoring has ended
    world.chain.mine(at=world.clock())
    await world.step()
    await rescan(world)
    assert await world.balance() == 10 * HALF
    assert (await world.state(charge))[:2] == ("Settled", "PaidLate")


async def test_one_that_is_not_deep_enough_waits_for_the_follower(world: World) -> None:
    await miss(world, await world.address())
    assert (await rescan(world)).found == 1
    (payment,) = await world.payments()
    assert (payment.status, payment.confirmations, payment.credited_nanos) == (PaymentStatus.CONFIRMING, 1, None)
    world.chain.mine()
    await world.step()
    assert await world.balance() == 10 * HALF


async def test_a_lost_row_comes_back_under_its_id_and_is_not_credited_again(world: World) -> None:
    charge = await world.charge(10)
    world.chain.mine(transfer(charge.address, 10), at=world.clock(), blocks=3)
    await world.step()
    before = {each.id: each for each in await world.payments()}
    entries = await world.entries()
    await by_hand(world, "DELETE FROM payments")
    world.market.prices.clear()
    assert (await rescan(world)).found == 1
    (payment,) = await world.payments()
    lost = before[payment.id]
    told = ("status", "credits", "credited_nanos", "price_usd", "price_source", "charge_id", "confirmed_at", "seen_at")
    assert [getattr(payment, name) for name in told] == [getattr(lost, name) for name in told]
    assert await world.entries() == entries
    assert await world.state(charge) == ("Settled", "None", 10, 10)


async def test_the_credit_of_a_row_that_came_back_can_be_taken_back(world: World) -> None:
    world.chain.mine(transfer(await world.address(), 10), at=world.clock(), blocks=3)
    await world.step()
    await by_hand(world, "DELETE FROM payments")
    await rescan(world)
    world.chain.fork(3)
    world.chain.mine(blocks=4)
    await world.step()
    assert await world.balance() == 0
    assert await world.entries() == [("purchase", "credit:1"), ("correction", "reversal:1")]


async def test_a_row_lost_after_its_credit_was_taken_back_is_credited_anew_once(world: World) -> None:
    paid = transfer(await world.address(), 10)
    world.chain.mine(paid, at=world.clock(), blocks=3)
    await world.step()
    world.chain.fork(3)
    world.chain.mine(blocks=4)
    await world.step()
    world.chain.concealed.add(paid.tx_hash)
    world.chain.mine(paid, blocks=3)
    await world.step()
    world.chain.concealed.clear()
    await by_hand(world, "DELETE FROM payments")
    assert (await rescan(world)).found == 1
    assert await world.balance() == 10 * HALF
    assert [what for _, what in await world.entries()] == ["credit:1", "reversal:1", "credit:2"]


async def test_blocks_of_a_branch_we_are_not_on_are_waited_out(world: World) -> None:
    key = await world.address()
    world.chain.mine(blocks=3)
    await world.step()
    world.chain.fork(3)
    world.chain.mine(transfer(key, 10), at=world.clock(), blocks=2)  # shorter: our follower stays where it is
    job = await work_off(world, await ask(world), give_up_after=2)
    assert (job.status, job.found, await world.payments()) == (JobStatus.FAILED, 0, [])
    assert "branch" in (job.error or "")


async def test_old_blocks_of_which_nothing_is_remembered_are_proved_by_those_above(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cursors, "REMEMBERED", 3)
    key = await world.address()
    await miss(world, key, blocks=2)
    impostor = ChainInMemory(started_at=world.clock())
    impostor.mine(transfer(key, 77), at=world.clock(), blocks=12)
    world.chain.mine(blocks=10)
    await world.step()
    async with world.database.transaction() as session:
        assert await session.scalar(select(func.count()).select_from(ScannedBlock)) == 4
    refused = await work_off(world, await ask(world, first=1, last=2), chain=impostor, give_up_after=2)
    assert (refused.status, await world.payments()) == (JobStatus.FAILED, [])
    assert (await rescan(world, 1, 2)).found == 1
    assert [each.amount_units for each in await world.payments()] == [10]


async def test_another_chain_s_node_is_not_read(world: World) -> None:
    world.chain.mine()
    await world.step()
    other = ChainInMemory(identity="another", started_at=world.clock(), branch=list(world.chain.branch))
    job = await work_off(world, await ask(world), chain=other, give_up_after=2)
    assert job.status == JobStatus.FAILED
    assert "another" in (job.error or "")
    assert other.fetched == []


async def test_the_follower_goes_on_while_blocks_are_read_again_and_nothing_is_doubled(world: World) -> None:
    keys = [await world.address() for _ in range(4)]
    for key in keys[:3]:
        await miss(world, key, blocks=5)
    job = await ask(world)
    claimed = await claim(world)
    assert claimed is not None
    world.chain.mine(transfer(keys[3], 10), at=world.clock(), blocks=40)
    followers = [world.follower(), world.follower()]

    async def follow(number: int) -> None:
        while True:
            try:
                if not (await followers[number].step(most=1)).behind:
                    return
            except cursors.LostRace:
                continue

    async with asyncio.timeout(30):
        await asyncio.gather(
            follow(0),
            follow(1),
            runner(world).work(claimed, asyncio.Event()),
            runner(world).work(claimed, asyncio.Event()),  # as a worker does that thinks the first one is gone
        )
    assert (await look_at(world, job)).found == 3
    assert await world.balance() == 40 * HALF


async def test_a_worker_goes_on_where_another_one_stopped(world: World) -> None:
    await miss(world, await world.address(), blocks=40)
    job = await ask(world)
    claimed = await claim(world)
    assert claimed is not None
    stop = asyncio.Event()
    world.chain.broken[20] = NodeUnavailable("down for a moment")
    working = asyncio.create_task(runner(world, give_up_after=10**9).work(claimed, stop))
    async with asyncio.timeout(20):
        while (await look_at(world, job)).error is None:  # noqa: ASYNC110 - it is in the database
            await asyncio.sleep(0.01)
    stop.set()
    await working
    left = await look_at(world, job)
    assert (left.status, left.next_height, left.error) == (JobStatus.RUNNING, 20, "down for a moment")
    world.chain.broken.clear()
    world.chain.fetched.clear()
    done = await work_off(world, job)
    assert (done.status, done.found, done.error) == (JobStatus.DONE, 1, None)
    assert min(world.chain.fetched) == 20


async def test_jobs_of_one_blockchain_are_done_one_at_a_time_in_order(world: World) -> None:
    world.chain.mine()
    await world.step()
    first, second = await ask(world), await ask(world)
    claimed = await claim(world)
    assert claimed is not None and claimed.id == first.id
    assert await claim(world) is None
    async with world.database.transaction() as session:
        await jobs.finish(session, first.id, now=world.clock())
    after = await claim(world)
    assert after is not None and after.id == second.id


async def test_a_worker_that_went_silent_loses_its_job_to_another(world: World) -> None:
    world.chain.mine()
    await world.step()
    job = await ask(world)
    assert await claim(world) is not None
    assert await claim(world) is None
    world.clock.advance(seconds=LEASE.total_seconds() + 1)
    assert (await work_off(world, job)).status is JobStatus.DONE


async def test_a_cancelled_job_stops_and_stays_cancelled(world: World) -> None:
    await miss(world, await world.address(), blocks=3)
    job = await ask(world)
    claimed = await claim(world)
    assert claimed is not None
    async with world.database.transaction() as session:
        await jobs.cancel(session, job.id, now=world.clock())
    await runner(world).work(claimed, asyncio.Event())
    assert (await look_at(world, job)).status is JobStatus.CANCELLED
    assert await world.payments() == []


async def test_a_node_that_cannot_give_a_block_is_said_and_given_up_in_the_end(world: World) -> None:
    world.chain.mine(blocks=3)
    await world.step()
    world.chain.broken[2] = BlockNotFound("block 2 was pruned")
    job = await work_off(world, await ask(world), give_up_after=3)
    assert (job.status, job.next_height) == (JobStatus.FAILED, 2)
    assert "block 2 was pruned" in (job.error or "")


async def test_only_blocks_that_were_followed_can_be_read_again(world: World) -> None:
    with pytest.raises(NotFollowedYet):
        await ask(world)
    world.chain.mine(blocks=3)
    await world.step()
    with pytest.raises(BadRequest, match="up to 3"):
        await ask(world, first=4)
    with pytest.raises(BadRequest, match="below from_height"):
        await ask(world, first=2, last=1)
    assert (await ask(world, first=2, last=99)).to_height == 3


async def test_a_payment_that_waits_where_its_block_was_applied_without_it_is_confirmed(world: World) -> None:
    paid = transfer(await world.address(), 10)
    world.chain.wait(paid)
    await world.step()
    world.chain.concealed.add(paid.tx_hash)
    world.chain.mine(paid, at=world.clock(), blocks=3)
    await world.step()
    world.chain.concealed.clear()
    async with world.database.transaction() as session:
        assert await session.scalar(select(Payment.status)) is PaymentStatus.REPLACED
    assert (await rescan(world)).found == 1
    assert await world.balance() == 10 * HALF
