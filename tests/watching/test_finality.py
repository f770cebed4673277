"""Payments on a chain whose own `safe` or `finalized` blocks make them final, confirmations being the least."""

import pytest
from tests.watching.chain_in_memory import transfer
from tests.watching.world import BLOCKCHAIN, UNIT_NANOS, World

from keyserver.chains.models import Blockchain, Finality
from keyserver.charges.models import Charge
from keyserver.watching.cursor import LostRace
from keyserver.watching.finality import FinalityUnknown
from keyserver.watching.models import NodeReport
from keyserver.watching.ports import FinalityTag


async def decide_by(world: World, finality: Finality) -> None:
    async with world.database.transaction() as session:
        (await session.get_one(Blockchain, BLOCKCHAIN)).finality = finality


async def shown(world: World, charge: Charge) -> tuple[str, int]:
    now = await world.now_of(charge)
    return str(now.status), now.confirmations


async def paid(world: World, finality: Finality, *, blocks: int) -> Charge:
    """A charge paid in block 1, with so many blocks mined."""
    await decide_by(world, finality)
    charge = await world.charge(100)
    world.chain.mine(transfer(charge.address, 100), blocks=blocks)
    return charge


@pytest.mark.parametrize("finality", [Finality.SAFE, Finality.FINALIZED])
async def test_a_payment_deep_enough_waits_until_its_block_is_final(world: World, finality: Finality) -> None:
    charge = await paid(world, finality, blocks=5)
    tag = FinalityTag(finality)
    follower = world.follower()
    world.chain.final = {tag: 0}
    await world.step(follower)
    assert await shown(world, charge) == ("Processing", 1)
    world.chain.final = {tag: 1}
    world.chain.mine()
    await world.step(follower)
    assert await shown(world, charge) == ("Settled", 2)
    assert await world.balance() == 100 * UNIT_NANOS


async def test_what_becomes_final_without_a_new_block_is_credited_at_once_and_once(world: World) -> None:
    charge = await paid(world, Finality.FINALIZED, blocks=3)
    follower = world.follower()
    world.chain.final = {FinalityTag.FINALIZED: 0}
    await world.step(follower)
    told = world.told
    await world.step(follower)
    assert (await shown(world, charge), world.told) == (("Processing", 1), told)
    world.chain.final = {FinalityTag.FINALIZED: 2}
    for _ in range(2):
        await world.step(follower)
    assert (await shown(world, charge), world.told) == (("Settled", 2), told + 1)
    assert await world.entries() == [("purchase", "credit:1")]


async def test_a_final_block_does_not_replace_the_confirmations_that_were_asked_for(world: World) -> None:
    charge = await paid(world, Finality.FINALIZED, blocks=1)
    world.chain.final = {FinalityTag.FINALIZED: 1}
    await world.step()
    assert await shown(world, charge) == ("Processing", 1)
    world.chain.mine()
    await world.step()
    assert await shown(world, charge) == ("Settled", 2)


async def test_another_tag_than_the_one_asked_for_makes_nothing_final(world: World) -> None:
    charge = await paid(world, Finality.FINALIZED, blocks=5)
    world.chain.final = {FinalityTag.SAFE: 5, FinalityTag.FINALIZED: 0}
    await world.step()
    assert await shown(world, charge) == ("Processing", 1)


async def test_a_node_that_does_not_know_the_tag_makes_nothing_final_and_says_so(world: World) -> None:
    charge = await paid(world, Finality.FINALIZED, blocks=200)
    follower = world.follower()
    assert (await follower.step(most=100)).behind == 100, "following goes on"
    for _ in range(2):
        with pytest.raises(FinalityUnknown, match="does not say which block is finalized"):
            await follower.step()
    assert await shown(world, charge) == ("Processing", 1)
    async with world.database.transaction() as session:
        assert (await session.get_one(NodeReport, BLOCKCHAIN)).final_height is None
    world.chain.final = {FinalityTag.FINALIZED: 1}
    await world.step(follower)
    assert await shown(world, charge) == ("Settled", 2)


async def test_going_back_to_depth_credits_what_is_deep_enough(world: World) -> None:
    charge = await paid(world, Finality.FINALIZED, blocks=3)
    follower = world.follower()
    world.chain.final = {FinalityTag.FINALIZED: 0}
    await world.step(follower)
    await decide_by(world, Finality.DEPTH)
    await world.step(follower)
    assert await shown(world, charge) == ("Settled", 2)


async def test_a_payment_in_an_orphaned_block_is_not_final_because_its_height_is(world: World) -> None:
    charge = await paid(world, Finality.FINALIZED, blocks=3)
    follower = world.follower()
    world.chain.final = {FinalityTag.FINALIZED: 0}
    await world.step(follower)
    world.chain.fork(3)
    world.chain.mine(blocks=4)
    world.chain.final = {FinalityTag.FINALIZED: 4}
    await world.step(follower)
    assert await shown(world, charge) == ("New", 0)
    assert await world.balance() == 0


async def test_a_final_height_that_falls_takes_nothing_back(world: World) -> None:
    charge = await paid(world, Finality.SAFE, blocks=3)
    follower = world.follower()
    for final in (3, 0):
        world.chain.final = {FinalityTag.SAFE: final}
        await world.step(follower)
    assert await shown(world, charge) == ("Settled", 2)
    assert await world.balance() == 100 * UNIT_NANOS


async def test_a_setting_changed_while_blocks_are_fetched_holds_for_them(world: World) -> None:
    charge = await paid(world, Finality.DEPTH, blocks=3)
    world.chain.final = {FinalityTag.FINALIZED: 0}
    follower, fetch = world.follower(), world.chain.blocks

    async def changed_meanwhile(*args: object, **options: object) -> object:
        await decide_by(world, Finality.FINALIZED)
        return await fetch(*args, **options)  # type: ignore[arg-type]

    world.chain.blocks = changed_meanwhile  # type: ignore[method-assign, assignment]
    with pytest.raises(LostRace):
        await follower.step()
    await world.step(follower)
    assert await shown(world, charge) == ("Processing", 1)
