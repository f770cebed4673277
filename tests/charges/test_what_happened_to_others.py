"""Entries of docs/lessons.md that no other test shows."""

from sqlalchemy import func, select
from tests.watching.chain_in_memory import transfer
from tests.watching.world import UNIT_NANOS, World

from keyserver.charges.expiry import expire_due
from keyserver.charges.models import Charge
from keyserver.webhooks.models import WebhookDelivery


async def test_of_many_charges_that_are_due_at_once_none_stays_new(world: World) -> None:
    """More than are expired in one go, and nobody had a timer for any of them."""
    charges = [await world.charge(10) for _ in range(250)]
    world.clock.advance(minutes=31)
    while await expire_due(world.database, clock=world.clock):
        pass
    async with world.database.transaction() as session:
        states = await session.execute(select(Charge.status, func.count()).group_by(Charge.status))
        assert [tuple(each) for each in states] == [("Expired", len(charges))]
        assert await session.scalar(select(func.count()).select_from(WebhookDelivery)) == len(charges)


async def test_an_address_far_beyond_any_gap_is_seen(world: World) -> None:
    """No wallet looks ahead to index 470,000; the last address paid before it was the first."""
    first = await world.address()
    world.handed_out = 469_999
    far = await world.address()
    world.market.prices["COIN"] *= 2  # a base unit is a dollar
    world.chain.mine(transfer(first, 1), transfer(far, 100), blocks=2)
    await world.step()
    assert sorted((each.address_index, each.amount_units) for each in await world.payments()) == [
        (1, 1),
        (470_000, 100),
    ]
    assert await world.balance() == 101 * UNIT_NANOS
