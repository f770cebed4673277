"""Following a chain over the port: where to start, forks, races, failures, and catching up."""

import asyncio
import time
import tracemalloc
from datetime import timedelta

import pytest
from sqlalchemy import func, select
from tests.builders import ManualClock
from tests.watching.chain_in_memory import ChainInMemory, transfer
from tests.watching.world import BLOCKCHAIN, UNIT_NANOS, World, make_world, method

from keyserver.chains.models import Blockchain
from keyserver.kit.db import Database
from keyserver.watching.cursor import REMEMBERED, LostRace
from keyserver.watching.models import NodeReport, ScannedBlock, Scanner
from keyserver.watching.ports import Block, BlockNotFound, Mempool, Node, NodeUnavailable, WrongNode
from keyserver.watching.scanner import BranchUnsettled, ForkTooDeep


async def cursor(world: World) -> tuple[int, str]:
    async with world.database.transaction() as session:
        scanner = await session.get_one(Scanner, BLOCKCHAIN)
        return scanner.height, scanner.block_hash


async def is_at_tip(world: World) -> bool:
    tip = world.chain.branch[-1]
    async with world.database.transaction() as session:
        query = select(ScannedBlock.height, ScannedBlock.block_hash).where(ScannedBlock.blockchain_id == BLOCKCHAIN)
        remembered = {row.height: row.block_hash for row in await session.execute(query)}
    ours = {block.height: block.hash for block in world.chain.branch if block.height in remembered}
    return await cursor(world) == (tip.height, tip.hash) and remembered == ours


# --- where to start ---------------------------------------------------------------------------------------------


async def test_a_chain_is_followed_from_its_registration_on(database: Database, clock: ManualClock) -> None:
    world = await make_world(database, clock, start_height=None, created_at=clock() + timedelta(hours=1))
    world.chain.mine(blocks=10, at=clock() + timedelta(minutes=58))
    world.chain.mine(at=clock() + timedelta(minutes=61))
    await world.step()
    assert world.chain.fetched == [11]


async def test_a_utxo_chains_blocks_may_be_two_hours_off(database: Database, clock: ManualClock) -> None:
    world = await make_world(database, clock, start_height=None, family="utxo", created_at=clock() + timedelta(hours=5))
    for hour in (1, 2, 4):
        world.chain.mine(at=clock() + timedelta(hours=hour))
    await world.step()
    assert world.chain.fetched == [3]


async def test_a_chain_younger_than_its_registration_is_followed_from_the_first_block(
    database: Database, clock: ManualClock
) -> None:
    world = await make_world(database, clock, start_height=None)
    world.chain.mine(blocks=3)
    await world.step()
    assert world.chain.fetched == [1, 2, 3]


async def test_a_start_height_is_the_first_block_looked_at(database: Database, clock: ManualClock) -> None:
    world = await make_world(database, clock, start_height=4)
    world.chain.mine(blocks=6)
    await world.step()
    assert world.chain.fetched == [4, 5, 6]


async def test_a_start_height_to_come_is_waited_for(database: Database, clock: ManualClock) -> None:
    world = await make_world(database, clock, start_height=4)
    follower = world.follower()
    with pytest.raises(BlockNotFound):
        await world.step(follower)
    world.chain.mine(blocks=4)
    await world.step(follower)
    assert world.chain.fetched == [4]


# --- forks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("depth", "rival"), [(1, 1), (1, 2), (3, 4), (3, 3), (4, 2), (5, 6)])
async def test_a_fork_is_followed_to_the_rival_branch(world: World, depth: int, rival: int) -> None:
    """A rival may be as long or shorter: what a node calls its best branch is not always the longer one."""
    world.chain.mine(blocks=5)
    follower = world.follower()
    await world.step(follower)
    world.chain.fork(depth)
    world.chain.mine(blocks=rival)
    await world.step(follower)
    assert await is_at_tip(world)


async def test_a_fork_while_catching_up_is_followed(world: World) -> None:
    key = await world.address()
    world.chain.mine(transfer(key, 1), blocks=30)
    follower = world.follower()
    await follower.step(most=20)
    world.chain.fork(15)
    world.chain.mine(transfer(key, 2), blocks=20)
    await world.step(follower)
    assert await is_at_tip(world)
    assert await world.balance() == UNIT_NANOS * 3 // 2


async def test_a_branch_that_changes_between_two_fetches_is_noticed(world: World) -> None:
    world.chain.mine(blocks=6)
    follower = world.follower()
    await follower.step(most=1)
    original = world.chain.block

    async def change_then_answer(height: int, *, contracts: frozenset[str]) -> Block:
        world.chain.block = original  # type: ignore[method-assign]
        world.chain.fork(6)
        world.chain.mine(blocks=7)
        return await original(height, contracts=contracts)

    world.chain.block = change_then_answer  # type: ignore[method-assign]
    with pytest.raises(BranchUnsettled):
        await follower.step()
    await world.step(follower)
    assert await is_at_tip(world)


async def test_a_fork_of_the_very_block_following_started_at(database: Database, clock: ManualClock) -> None:
    world = await make_world(database, clock, start_height=3)
    key = await world.address()
    world.chain.mine(blocks=2)
    follower = world.follower()
    await world.step(follower)
    world.chain.mine(transfer(key, 10), blocks=3)
    await world.step(follower)
    world.chain.fork(4)
    assert world.chain.height == 1
    world.chain.mine()
    world.chain.mine(transfer(key, 20), blocks=3)
    await world.step(follower)
    assert await is_at_tip(world)
    assert await world.balance() == 10 * UNIT_NANOS


async def test_a_node_that_lags_behind_us_is_no_fork(world: World) -> None:
    world.chain.mine(blocks=5)
    follower = world.follower()
    await world.step(follower)
    before = await cursor(world)
    world.chain.lag = 2
    assert (await follower.step()).behind == 0
    assert await cursor(world) == before
    world.chain.lag = 0
    world.chain.mine()
    await world.step(follower)
    assert await is_at_tip(world)


async def test_a_mempool_of_a_lagging_node_is_not_looked_at(world: World) -> None:
    charge = await world.charge()
    payment = transfer(charge.address, 100)
    world.chain.mine(payment)
    follower = world.follower()
    await world.step(follower)
    world.chain.lag = 1
    await world.step(follower)
    assert (await world.state(charge))[0] == "Processing"


async def test_a_fork_below_all_we_remember_stops_for_an_operator(world: World) -> None:
    world.chain.mine(blocks=REMEMBERED + 20)
    follower = world.follower()
    await world.step(follower)
    async with world.database.transaction() as session:
        kept = await session.scalar(select(func.count()).select_from(ScannedBlock))
        assert kept is not None and kept <= REMEMBERED + 1
    before = await cursor(world)
    world.chain.fork(REMEMBERED + 10)
    world.chain.mine(blocks=REMEMBERED + 12)
    with pytest.raises(ForkTooDeep):
        await world.step(follower)
    assert await cursor(world) == before


# --- races and deaths -------------------------------------------------------------------------------------------


async def follow_patiently(world: World) -> None:
    follower = world.follower()
    while True:
        try:
            if not (await follower.step(most=3)).behind:
                return
        except LostRace:
            await asyncio.sleep(0)


async def test_followers_that_race_apply_every_block_once(world: World) -> None:
    charge = await world.charge(300)
    for _ in range(30):
        world.chain.mine(transfer(charge.address, 10))
    world.chain.mine()
    await asyncio.gather(*(follow_patiently(world) for _ in range(4)))
    assert await is_at_tip(world)
    assert await world.balance() == 300 * UNIT_NANOS
    assert len(await world.entries()) == 30
    assert (await world.webhooks(charge))[-1][:2] == ("charge.settled", "Settled")


async def test_followers_that_race_over_a_fork_take_back_once(world: World) -> None:
    charge = await world.charge(100)
    await world.step()
    payment = transfer(charge.address, 100)
    world.chain.mine(payment, blocks=3)
    await world.step()
    world.chain.fork(3)
    world.chain.mine(blocks=2)
    world.chain.mine(payment, blocks=3)
    await asyncio.gather(*(follow_patiently(world) for _ in range(4)))
    assert await world.entries() == [("purchase", "credit:1"), ("correction", "reversal:1"), ("purchase", "credit:2")]
    assert await world.balance() == 100 * UNIT_NANOS


async def test_a_fork_that_another_follower_is_just_taking_back_is_not_taken_for_a_deep_one(world: World) -> None:
    world.chain.mine(blocks=5)
    follower = world.follower()
    await world.step(follower)
    world.chain.fork(3)
    world.chain.mine(blocks=4)
    original = world.chain.identify

    async def other_takes_it_back_first() -> Node:
        world.chain.identify = original  # type: ignore[method-assign]
        await world.follower().step(most=0)
        return await original()

    world.chain.identify = other_takes_it_back_first  # type: ignore[method-assign]
    with pytest.raises(LostRace):
        await follower.step()
    await world.step(follower)
    assert await is_at_tip(world)


async def test_killed_between_fetching_and_applying_nothing_is_lost(world: World) -> None:
    charge = await world.charge(100)
    world.chain.mine(transfer(charge.address, 100), blocks=2)
    fetched = asyncio.Event()
    original = world.chain.block

    async def fetch_and_die(height: int, *, contracts: frozenset[str]) -> Block:
        fetched.set()
        await asyncio.Event().wait()
        return await original(height, contracts=contracts)

    world.chain.block = fetch_and_die  # type: ignore[method-assign]
    task = asyncio.create_task(world.step())
    await fetched.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    world.chain.block = original  # type: ignore[method-assign]
    await world.step()
    assert (await world.state(charge))[0] == "Settled"
    assert await world.balance() == 100 * UNIT_NANOS


async def test_a_token_registered_while_a_block_is_fetched_is_not_missed(world: World) -> None:
    world.chain.mine()
    follower = world.follower()
    await world.step(follower)
    key = await world.address()
    world.chain.mine(transfer(key, 7, asset="0xnew"), blocks=2)
    original = world.chain.block

    async def register_meanwhile(height: int, *, contracts: frozenset[str]) -> Block:
        block = await original(height, contracts=contracts)
        async with world.database.transaction() as session:
            session.add(method("NEW", "COIN", "0xnew"))
        world.chain.block = original  # type: ignore[method-assign]
        return block

    world.chain.block = register_meanwhile  # type: ignore[method-assign]
    with pytest.raises(LostRace):
        await follower.step()
    await world.step(follower)
    assert [each.asset for each in await world.payments()] == ["0xnew"]


# --- failures ---------------------------------------------------------------------------------------------------


async def test_a_failing_block_is_never_stepped_over_and_holds_up_none_before_it(world: World) -> None:
    world.chain.mine(blocks=10)
    world.chain.broken[7] = RuntimeError("a block nobody can read")
    follower = world.follower()
    for _ in range(3):
        with pytest.raises(RuntimeError):
            await follower.step()
    assert (await cursor(world))[0] == 6
    del world.chain.broken[7]
    await world.step(follower)
    assert await is_at_tip(world)


async def test_a_block_that_cannot_be_applied_is_never_stepped_over(world: World) -> None:
    key = await world.address()
    world.chain.mine(blocks=6)
    world.chain.mine(transfer(key, 0), blocks=4)  # refused by the database: a payment is of something
    follower = world.follower()
    for _ in range(3):
        with pytest.raises(Exception, match="amount_positive"):
            await follower.step()
    assert (await cursor(world))[0] == 6


async def test_a_node_that_names_a_tip_but_gives_no_block_is_a_failure(world: World) -> None:
    world.chain.mine(blocks=3)
    follower = world.follower()
    await follower.step(most=1)
    world.chain.broken[2] = BlockNotFound("not here")
    with pytest.raises(BranchUnsettled, match="after 1"):
        await follower.step()


async def test_another_chain_after_a_failover_is_refused_before_anything_is_taken_back(world: World) -> None:
    charge = await world.charge(100)
    world.chain.mine(transfer(charge.address, 100), blocks=2)
    follower = world.follower()
    await world.step(follower)
    world.chain.fork(2)
    world.chain.mine(blocks=5)
    world.chain.identity = "a test network"
    with pytest.raises(WrongNode, match="a test network"):
        await world.step(follower)
    assert (await world.state(charge))[0] == "Settled"
    assert await world.balance() == 100 * UNIT_NANOS


async def test_a_node_is_asked_who_it_is_again_after_a_failure(world: World) -> None:
    follower = world.follower()
    await world.step(follower)
    await world.step(follower)
    assert world.chain.identified == 1
    world.chain.failures.append(NodeUnavailable("down"))
    with pytest.raises(NodeUnavailable):
        await world.step(follower)
    world.chain.identity = "another"
    with pytest.raises(WrongNode):
        await world.step(follower)


async def test_the_first_contact_pins_who_the_node_is(world: World) -> None:
    await world.step()
    async with world.database.transaction() as session:
        assert (await session.get_one(Blockchain, BLOCKCHAIN)).node_identity == "in memory"
        assert (await session.get_one(NodeReport, BLOCKCHAIN)).capabilities == {"node": "in memory"}
    with pytest.raises(WrongNode):
        await world.step(world.follower(chain=ChainInMemory(identity="another")))


async def test_two_nodes_at_first_contact_cannot_both_be_pinned(world: World) -> None:
    other = world.follower(chain=ChainInMemory(identity="another"))
    outcomes = await asyncio.gather(world.step(), world.step(other), return_exceptions=True)
    assert any(isinstance(each, WrongNode) for each in outcomes)


# --- a mempool in parts -----------------------------------------------------------------------------------------


async def test_a_great_mempool_is_looked_at_part_by_part_and_every_payment_in_it_is_seen(world: World) -> None:
    charge = await world.charge(70)
    world.chain.shown_at_once = 3
    world.chain.wait(*(transfer(charge.address, 10) for _ in range(7)))
    follower = world.follower()
    await world.step(follower)
    assert await world.state(charge) == ("Processing", "None", 70, 0)
    told = world.told
    await world.step(follower)
    assert world.told == told, "what was looked at was looked at again"


async def test_a_payment_whose_part_was_not_read_yet_is_not_taken_for_replaced(world: World) -> None:
    charge = await world.charge(10)
    payment = transfer(charge.address, 10)
    world.chain.wait(payment)
    await world.step()
    world.chain.drop(payment.tx_hash)
    world.chain.shown_at_once = 1
    world.chain.wait(*(transfer("a stranger", 1) for _ in range(5)), payment)
    follower = world.follower()
    original = world.chain.mempool
    states: list[str] = []

    async def look(*, known: frozenset[str]) -> Mempool | None:
        states.append((await world.state(charge))[0])
        return await original(known=known)

    world.chain.mempool = look  # type: ignore[method-assign]
    await world.step(follower)
    assert states == ["Processing"] * 6


async def test_a_block_ends_the_look_at_a_great_mempool_and_what_was_read_of_it_is_kept(world: World) -> None:
    world.chain.shown_at_once = 2
    waiting = [transfer("a stranger", 1) for _ in range(8)]
    world.chain.wait(*waiting)
    follower = world.follower()
    original = world.chain.mempool
    known_to_us: list[int] = []

    async def look(*, known: frozenset[str]) -> Mempool | None:
        known_to_us.append(len(known))
        if len(known_to_us) == 3:
            world.chain.mine()
        return await original(known=known)

    world.chain.mempool = look  # type: ignore[method-assign]
    await follower.step()
    assert known_to_us == [0, 2, 4]
    await follower.step()
    assert known_to_us == [0, 2, 4, 4, 6]


# --- catching up ------------------------------------------------------------------------------------------------


async def test_catching_up_with_many_empty_blocks_is_fast_and_takes_little_memory(world: World) -> None:
    world.chain.mine(blocks=4_000)
    follower = world.follower()
    began = time.perf_counter()
    await world.step(follower)
    rate = 4_000 / (time.perf_counter() - began)
    world.chain.mine(blocks=1_000)
    tracemalloc.start()
    await world.step(follower)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"{rate:.0f} empty blocks a second, {peak / 1e6:.1f} MB at most")
    assert await is_at_tip(world)
    assert peak < 20_000_000
    assert rate > 20


async def test_full_blocks_are_fetched_one_by_one(world: World) -> None:
    for _ in range(6):
        world.chain.mine(*(transfer("a stranger", 1) for _ in range(9_000)))
    follower = world.follower()
    together: list[int] = []
    under_way = 0
    original = world.chain.block

    async def count(height: int, *, contracts: frozenset[str]) -> Block:
        nonlocal under_way
        under_way += 1
        together.append(under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return await original(height, contracts=contracts)

    world.chain.block = count  # type: ignore[method-assign]
    await world.step(follower)
    assert await is_at_tip(world)
    assert max(together) == 1
