"""Money at addresses of a ring that nobody was given: found, kept for an operator, and the index never handed out."""

import asyncio
from decimal import Decimal

import httpx
import pytest
from sqlalchemy import text
from tests.builders import AS_PLATFORM, litecoin, register
from tests.charges.strays import AHEAD, OpenRing, open_ring
from tests.watching.chain_in_memory import transfer
from tests.watching.world import UNIT_NANOS, FakeMarket, World

from keyserver.addresses import lookahead
from keyserver.addresses.derive import RingKey
from keyserver.addresses.indexes import Indexes
from keyserver.addresses.lookahead import CHUNK, STRIDE, fill_all
from keyserver.chains.models import Blockchain
from keyserver.charges import settlement
from keyserver.charges.recording import Arrival, Inclusion
from keyserver.charges.waiting import credit_waiting
from keyserver.kit.db import Connect, Database
from keyserver.kit.migrations import migrate


@pytest.fixture
async def ring(world: World) -> OpenRing:
    return await open_ring(world)


async def pay(ring: OpenRing, index: int, *, blocks: int = 2) -> None:
    ring.world.chain.mine(transfer((await ring.ahead())[index], 10), blocks=blocks)
    await ring.world.step()


# --- the payment --------------------------------------------------------------------------------------------------


async def test_it_is_recorded_without_a_tenant_and_credited_to_nobody(world: World, ring: OpenRing) -> None:
    await pay(ring, 3)
    (payment,) = await world.payments()
    assert (payment.status, payment.reason, payment.never_issued) == ("confirmed", "never_issued", True)
    assert (payment.tenant_id, payment.credited_nanos, payment.address_index) == (None, None, 3)
    assert await credit_waiting(world.database, market=world.market, now=world.clock) == 0
    assert await world.entries() == []


async def test_its_address_is_kept_in_the_chain_s_own_spelling(world: World, ring: OpenRing) -> None:
    await pay(ring, 0)
    (payment,) = await world.payments()
    assert payment.address == "0x9858EfFD232B4033E47d90003D41EC34EcaEda94"  # the published vector


async def test_a_second_payment_to_it_has_no_tenant_either(world: World, ring: OpenRing) -> None:
    await pay(ring, 3)
    await pay(ring, 3)
    assert [each.reason for each in await world.payments()] == ["never_issued"] * 2
    assert await ring.spent() == {3: None}


async def test_orphaned_and_mined_again_it_is_listed_again(world: World, ring: OpenRing) -> None:
    await world.step()
    await pay(ring, 3)
    held = world.chain.fork(2)
    world.chain.mine(*held, blocks=3)
    await world.step()
    (payment,) = await world.payments()
    assert (payment.status, payment.reason, payment.tenant_id) == ("confirmed", "never_issued", None)


# --- the index ----------------------------------------------------------------------------------------------------


async def test_its_index_is_never_handed_out_and_issuing_goes_on_beyond_it(ring: OpenRing) -> None:
    """As after a restore, when the chain shows more than the database remembers."""
    assert (await ring.issue()).index == 0
    await pay(ring, 7)
    assert [(await ring.issue()).index for _ in range(2)] == [8, 9]
    assert await ring.spent() == {0: "acme", 7: None, 8: "acme", 9: "acme"}


async def test_a_payment_below_the_next_index_moves_nothing(world: World, ring: OpenRing) -> None:
    await ring.indexes.take("index_of_ring", connect=world.database.connection)  # dealt, and lost in a crash
    assert (await ring.issue()).index == 1
    await pay(ring, 0)
    assert (await ring.issue()).index == 2


class Dealt(Indexes):
    """Indexes that a process took from the sequence before, and has not handed out yet."""

    def __init__(self, database: Database, dealt: list[int]) -> None:
        super().__init__(database)
        self._dealt = dealt

    async def take(self, sequence: str, *, connect: Connect) -> int:
        return self._dealt.pop(0) if self._dealt else await super().take(sequence, connect=connect)


async def test_an_index_that_was_dealt_but_not_stored_is_stepped_over(world: World, ring: OpenRing) -> None:
    dealt = [await ring.indexes.take("index_of_ring", connect=world.database.connection) for _ in range(4)]
    await pay(ring, 2)
    other_process = Dealt(world.database, dealt)
    issued = [await ring.issue(indexes=other_process) for _ in range(4)]
    assert [each.index for each in issued] == [0, 1, 3, 4]


async def test_seen_and_replaced_it_stays_spent(world: World, ring: OpenRing) -> None:
    follower = world.follower()
    payment = transfer((await ring.ahead())[0], 10)
    world.chain.wait(payment)
    await world.step(follower)
    world.chain.drop(payment.tx_hash)
    await world.step(follower)
    assert [each.status for each in await world.payments()] == ["replaced"]
    assert (await ring.issue()).index == 1


@pytest.mark.parametrize("tries", range(4))
async def test_paid_at_the_moment_it_is_handed_out_it_is_the_tenants_or_spent_never_both(
    world: World, ring: OpenRing, tries: int
) -> None:
    keys = await ring.ahead()
    world.chain.mine(*(transfer(keys[index], 10) for index in range(10)), blocks=2)
    handing_out = asyncio.gather(*(ring.issue(tenant_id=f"t{n}") for n in range(10)))
    _, issued = await asyncio.gather(world.step(), handing_out)
    tenants = {each.index: f"t{n}" for n, each in enumerate(issued)}
    assert len(tenants) == 10
    for payment in await world.payments():
        assert payment.tenant_id == tenants.get(payment.address_index)
        assert (payment.credited_nanos is None) == (payment.tenant_id is None)
    spent = await ring.spent()
    assert spent == {index: tenants.get(index) for index in spent}


async def test_a_thousand_at_once_get_a_thousand_indexes_and_none_is_missing(ring: OpenRing) -> None:
    issued = await asyncio.gather(*(ring.issue() for _ in range(1000)))
    assert sorted(each.index for each in issued) == list(range(1000))


async def test_an_older_schema_keeps_the_money_and_the_index_and_gives_them_to_the_platform(
    world: World, ring: OpenRing
) -> None:
    await pay(ring, 3)
    await migrate(world.database, "0001", down=True)
    async with world.database.transaction() as session:
        query = "SELECT p.tenant_id, a.tenant_id, a.address_index, credited_nanos FROM payments p JOIN addresses a"
        rows = [tuple(row) for row in await session.execute(text(f"{query} USING (key_ring_id, address_index)"))]
    assert rows == [("platform", "platform", 3, None)]
    await migrate(world.database)
    assert (await ring.issue()).index == 4


# --- the window ---------------------------------------------------------------------------------------------------


async def test_the_window_goes_with_the_next_index_and_keeps_nothing_that_was_handed_out(ring: OpenRing) -> None:
    assert sorted(await ring.ahead()) == list(range(AHEAD))
    for _ in range(5):
        await ring.issue()
    await ring.fill()
    await ring.fill()
    assert sorted(await ring.ahead()) == list(range(5, 5 + AHEAD))


async def test_an_index_lost_between_taking_and_storing_stays_watched(world: World, ring: OpenRing) -> None:
    await ring.indexes.take("index_of_ring", connect=world.database.connection)
    for _ in range(AHEAD + 5):
        await ring.issue()
    await ring.fill()
    assert sorted(await ring.ahead())[:2] == [0, AHEAD + 6]


async def test_what_is_stepped_over_after_a_restore_is_watched(world: World, ring: OpenRing) -> None:
    beyond = STRIDE + CHUNK
    async with world.database.transaction() as session:
        query = "SELECT setval(index_sequence::regclass, nextval(index_sequence::regclass) + :n) FROM key_rings"
        await session.execute(text(query), {"n": beyond})
    await ring.fill()
    assert sorted(await ring.ahead()) == list(range(beyond + 1 + AHEAD))
    await pay(ring, 3000)
    assert [(each.reason, each.address_index) for each in await world.payments()] == [("never_issued", 3000)]
    assert (await ring.issue()).index == beyond + 1


async def test_addresses_handed_out_before_there_was_a_window_are_not_derived_again(
    world: World, ring: OpenRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(30):
        await ring.issue()
    async with world.database.transaction() as session:
        for table in ("lookahead_addresses", "lookahead_windows"):
            await session.execute(text(f"DELETE FROM {table}"))
    derived: list[int] = []
    derive = RingKey.address

    def noted(self: RingKey, index: int, **form: object) -> str:
        derived.append(index)
        return derive(self, index, **form)  # type: ignore[arg-type]

    monkeypatch.setattr(RingKey, "address", noted)
    await ring.fill()
    assert sorted(await ring.ahead()) == list(range(30, 30 + AHEAD))
    assert {index for index in derived if index < 30} == {0}  # which names the spelling


async def test_a_window_with_a_long_way_to_go_lets_the_others_have_their_turn(
    world: World, ring: OpenRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookahead, "MOST_STEPS", 2)
    assert not await fill_all(world.database, ahead=3 * CHUNK)
    assert len(await ring.ahead()) == AHEAD + 2 * CHUNK
    assert await fill_all(world.database, ahead=3 * CHUNK)
    assert len(await ring.ahead()) == 3 * CHUNK


async def test_two_workers_that_fill_together_leave_one_window(world: World, ring: OpenRing) -> None:
    await asyncio.gather(*(ring.fill(300) for _ in range(4)))
    assert sorted(await ring.ahead()) == list(range(300))


async def test_the_window_ends_with_the_last_index_there_is(world: World, ring: OpenRing) -> None:
    last = 2**31 - 1
    async with world.database.transaction() as session:
        await session.execute(text("SELECT setval('index_of_ring', :last)"), {"last": last - 2})
        await session.execute(text("UPDATE lookahead_windows SET filled_index = :last"), {"last": last - 1})
    await ring.fill()
    assert max(await ring.ahead()) == last


# --- spellings ----------------------------------------------------------------------------------------------------


async def test_another_spelling_of_an_address_that_was_handed_out_is_the_same_tenants(
    api: httpx.AsyncClient, database: Database
) -> None:
    """The same key, written for another script type: nobody else can have been meant."""
    await register(api, litecoin())
    await register(api, litecoin(id="LEGACY", address_type="p2pkh"))
    async with database.transaction() as session:
        spellings = list(await session.execute(text("SELECT spelling, count(*) FROM lookahead_addresses GROUP BY 1")))
    assert [count for _, count in spellings] == [100, 100]

    given = await api.post("/address", json={"chain": "LTC"}, headers=AS_PLATFORM)
    assert given.json()["index"] == 0
    await fill_all(database, ahead=100)
    async with database.transaction() as session:
        legacy = "SELECT address FROM lookahead_addresses WHERE address_index = 0"
        other = (await session.execute(text(legacy))).scalar_one()
        early = "SELECT address FROM lookahead_addresses WHERE address_index = 9 ORDER BY address"
        both = [row[0] for row in await session.execute(text(early))]
    assert other != given.json()["address"] and len(both) == 2
    arrivals = [Arrival("tx", n, "native", key, 10**8) for n, key in enumerate([other, *both])]
    async with database.transaction() as session:
        chain = await session.get_one(Blockchain, "litecoin:regtest")
        for height in (1, 2):
            block = Inclusion(height, f"b{height}", chain.created_at)
            market = FakeMarket({"LTC": Decimal(100)})
            here = arrivals if height == 1 else []
            await settlement.include(session, chain, here, block, market=market, now=chain.created_at)
    async with database.transaction() as session:
        query = "SELECT tenant_id, reason, credited_nanos, charge_id FROM payments ORDER BY output_index"
        rows = [tuple(row) for row in await session.execute(text(query))]
    assert rows == [("platform", None, 100 * UNIT_NANOS, None), *[(None, "never_issued", None, None)] * 2]
