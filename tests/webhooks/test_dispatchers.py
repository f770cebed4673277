"""Many deliveries, several dispatchers, receivers that hang; waking and stopping."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
from tests.webhooks.webhook_world import (
    HandClock,
    a_dispatcher,
    a_receiver,
    all_delivered,
    an_event,
    count_of,
    eventually,
    many_events,
    never,
    once_set,
    running,
    the_attempts,
    the_delivery,
)

from keyserver.kit.db import Database
from keyserver.webhooks import claims
from keyserver.webhooks.dispatcher import CLAIM_MARGIN
from keyserver.webhooks.models import DeliveryStatus

A_MINUTE = timedelta(minutes=1)
#: A poll that no test waits for.
NEVER_POLL = 3600.0


# --- several at once --------------------------------------------------------------------------------------------


async def test_two_dispatchers_that_race_send_everything_exactly_once(database: Database) -> None:
    clock = HandClock()
    async with (
        a_receiver() as one,
        a_receiver() as two,
        a_dispatcher(database, clock=clock) as first,
        a_dispatcher(database, clock=clock) as second,
    ):
        await many_events(database, 60, url=one.url, now=clock(), prefix="one")
        await many_events(database, 60, url=two.url, now=clock(), prefix="two")
        async with running(first), running(second):
            await eventually(lambda: all_delivered(database), within=20)
    assert sorted(one.ids) == sorted(f"one{number}" for number in range(1, 61))
    assert sorted(two.ids) == sorted(f"two{number}" for number in range(1, 61))


async def test_a_receiver_that_hangs_with_ten_thousand_events_delays_nobody_else(database: Database) -> None:
    clock = HandClock()
    async with a_receiver(never) as hanging, a_receiver() as healthy, a_dispatcher(database, clock=clock) as dispatcher:
        await many_events(database, 10_000, url=hanging.url, now=clock() - A_MINUTE, prefix="hang")
        await many_events(database, 20, url=healthy.url, now=clock(), prefix="fine")
        async with running(dispatcher):
            await eventually(lambda: len(healthy.received) == 20)
            assert len(hanging.received) == 4
            await dispatcher._abandon()
    assert hanging.most_at_once == 4


async def test_many_receivers_that_hang_leave_slots_for_those_that_answer(database: Database) -> None:
    clock = HandClock()
    async with AsyncExitStack() as stack:
        healthy = await stack.enter_async_context(a_receiver())
        silent = [await stack.enter_async_context(a_receiver(never)) for _ in range(12)]
        small = a_dispatcher(database, clock=clock, patience=1.5, max_in_flight=8, max_per_receiver=2)
        dispatcher = await stack.enter_async_context(small)
        for number, receiver in enumerate(silent):
            await many_events(database, 20, url=receiver.url, now=clock(), prefix=f"silent{number}-")
        async with running(dispatcher) as wake:
            await eventually(lambda: all(receiver.received for receiver in silent), within=20.0)
            await eventually(lambda: sum(receiver.under_way for receiver in silent) == 4, within=20.0)
            await many_events(database, 5, url=healthy.url, now=clock(), prefix="fine")
            wake.set()
            # Less than a silent one may take: they wait for none of them.
            await eventually(lambda: len(healthy.received) == 5, within=1.4)


async def test_a_claim_gives_every_receiver_its_first_slot_before_any_its_second(database: Database) -> None:
    clock = HandClock()
    for number, name in enumerate(("a", "b", "c")):
        due = clock() - A_MINUTE * (3 - number)
        await many_events(database, 10, url=f"http://{name}.example.com/", now=due, prefix=name)

    async def claim(free: int, taken: dict[str, int]) -> list[str]:
        async with database.connection() as connection:
            claimed = await claims.claim_due(
                connection, now=clock(), until=clock() + A_MINUTE, free=free, per_receiver=4, taken=taken
            )
        return sorted(found.id[0] for found in claimed.claims)

    assert await claim(5, {}) == ["a", "a", "b", "b", "c"]
    full = {"http://a.example.com:80": 4, "http://b.example.com:80": 3}
    assert await claim(64, full) == ["b", "c", "c", "c", "c"]
    assert await claim(2, {"http://a.example.com:80": 2}) == ["b", "c"]


async def test_a_claim_looks_behind_the_rows_of_a_receiver_that_has_no_slot_left(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "LOOKAHEAD", 10)
    clock = HandClock()
    async with a_receiver(never) as hanging, a_receiver() as healthy, a_dispatcher(database, clock=clock) as dispatcher:
        await many_events(database, 50, url=hanging.url, now=clock() - A_MINUTE, prefix="hang")
        await many_events(database, 1, url=healthy.url, now=clock(), prefix="fine")
        async with running(dispatcher):
            await eventually(lambda: len(healthy.received) == 1)
            await dispatcher._abandon()


async def test_what_is_under_way_is_bounded(database: Database) -> None:
    clock = HandClock()
    release = asyncio.Event()
    async with (
        a_receiver(once_set(release)) as one,
        a_receiver(once_set(release)) as two,
        a_dispatcher(database, clock=clock, max_in_flight=6, poll=NEVER_POLL) as dispatcher,
    ):
        for receiver, prefix in ((one, "one"), (two, "two")):
            await many_events(database, 20, url=receiver.url, now=clock(), prefix=prefix)
        async with running(dispatcher):
            await eventually(lambda: one.under_way + two.under_way == 6)
            release.set()
            await eventually(lambda: all_delivered(database))
    assert one.most_at_once <= 4
    assert two.most_at_once <= 4


# --- waking and stopping ----------------------------------------------------------------------------------------


async def test_an_event_goes_out_at_once_when_the_dispatcher_is_woken(database: Database) -> None:
    clock = HandClock()
    async with (
        a_receiver() as receiver,
        a_dispatcher(database, clock=clock, poll=NEVER_POLL) as dispatcher,
        running(dispatcher) as wake,
    ):
        await asyncio.sleep(0.1)  # it has looked, and found nothing
        await an_event(database, url=receiver.url, now=clock())
        wake.set()
        await eventually(lambda: len(receiver.received) == 1)


async def test_an_event_of_another_process_is_found_by_the_poll(database: Database) -> None:
    clock = HandClock()
    async with (
        a_receiver() as receiver,
        a_dispatcher(database, clock=clock, poll=0.05) as dispatcher,
        running(dispatcher),
    ):
        await asyncio.sleep(0.1)
        await an_event(database, url=receiver.url, now=clock())
        await eventually(lambda: len(receiver.received) == 1)


async def test_stopping_lets_calls_in_flight_end_and_starts_no_more(database: Database) -> None:
    clock = HandClock()
    release = asyncio.Event()
    async with (
        a_receiver(once_set(release)) as receiver,
        a_dispatcher(database, clock=clock, max_per_receiver=1) as dispatcher,
    ):
        await many_events(database, 2, url=receiver.url, now=clock(), prefix="event")
        async with running(dispatcher):
            await receiver.arrived.wait()
            asyncio.get_running_loop().call_later(0.1, release.set)
        assert len(receiver.received) == 1
    assert await count_of(database, DeliveryStatus.DELIVERED) == 1


async def test_a_call_that_outlasts_the_grace_is_left_to_be_due_again(database: Database) -> None:
    clock = HandClock()
    async with a_receiver(never) as receiver, a_dispatcher(database, clock=clock, grace=0.05) as dispatcher:
        delivery_id = await an_event(database, url=receiver.url, now=clock())
        async with running(dispatcher):
            await receiver.arrived.wait()
    assert await the_attempts(database, delivery_id) == []
    delivery = await the_delivery(database, delivery_id)
    assert (delivery.status, delivery.attempts) == (DeliveryStatus.PENDING, 0)
    assert delivery.next_attempt_at == clock() + timedelta(seconds=5) + CLAIM_MARGIN
