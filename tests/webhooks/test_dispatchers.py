"""Many deliveries, several dispatchers, processes that die, a database that goes away."""

import asyncio
import contextlib
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Self

import asyncpg
import pytest
from sqlalchemy import make_url
from tests.webhooks.webhook_world import (
    HandClock,
    a_dispatcher,
    a_receiver,
    a_tenant,
    an_event,
    count_of,
    eventually,
    never,
    once_set,
    running,
    status,
    the_attempts,
    the_delivery,
)

from keyserver.kit.db import Database
from keyserver.kit.egress import origin
from keyserver.webhooks import claims
from keyserver.webhooks.claims import Attempt
from keyserver.webhooks.dispatcher import CLAIM_MARGIN
from keyserver.webhooks.models import DeliveryStatus

A_MINUTE = timedelta(minutes=1)
#: A poll that no test waits for.
NEVER_POLL = 3600.0


async def many_events(database: Database, count: int, *, url: str, now: datetime, prefix: str) -> None:
    """Many committed events in one statement, all due at `now`."""
    await a_tenant(database)
    async with database.connection() as connection:
        await connection.execute(
            """
            INSERT INTO webhook_deliveries (id, tenant_id, signing_tenant_id, subject_id, sequence, type, url, receiver,
                                            payload, next_attempt_at, created_at)
            SELECT $1 || number, 'acme', 'acme', $1 || number, 1, 'charge.settled', $2, $3, '{}'::jsonb, $4, $4
            FROM generate_series(1, $5::integer) AS number
            """,
            prefix,
            url,
            origin(url),
            now,
            count,
        )


async def all_delivered(database: Database) -> bool:
    return await count_of(database, DeliveryStatus.PENDING) == 0


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
        small = a_dispatcher(database, clock=clock, patience=0.2, max_in_flight=8, max_per_receiver=2)
        dispatcher = await stack.enter_async_context(small)
        for number, receiver in enumerate(silent):
            await many_events(database, 20, url=receiver.url, now=clock(), prefix=f"silent{number}-")
        async with running(dispatcher) as wake:
            await eventually(lambda: all(receiver.received for receiver in silent))
            await eventually(lambda: sum(receiver.under_way for receiver in silent) == 4)
            await many_events(database, 5, url=healthy.url, now=clock(), prefix="fine")
            wake.set()
            await eventually(lambda: len(healthy.received) == 5, within=0.2)


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


# --- crashes ----------------------------------------------------------------------------------------------------


async def test_a_dispatcher_killed_between_sending_and_recording_leaves_the_event_due_again_with_its_id(
    database: Database,
) -> None:
    clock = HandClock()
    async with a_receiver() as receiver:
        delivery_id = await an_event(database, url=receiver.url, now=clock())
        async with a_dispatcher(database, clock=clock) as doomed:

            async def die(*_: object, **__: object) -> None:
                raise asyncio.CancelledError

            doomed._record = die  # type: ignore[method-assign]
            await doomed.run_once()
        assert receiver.ids == [delivery_id]
        async with a_dispatcher(database, clock=clock) as heir:
            assert await heir.run_once() == 0
            clock.now += timedelta(seconds=5) + CLAIM_MARGIN
            assert await heir.run_once() == 1
        assert receiver.ids == [delivery_id] * 2
    delivery = await the_delivery(database, delivery_id)
    assert (delivery.status, delivery.attempts) == (DeliveryStatus.DELIVERED, 1)


async def test_of_two_that_held_the_same_event_only_one_writes_it_down(database: Database) -> None:
    clock = HandClock()
    delivery_id = await an_event(database, url="http://example.com/", now=clock())
    held = []
    for _ in range(2):  # the first claim runs out while its holder is still busy
        async with database.connection() as connection:
            claimed = await claims.claim_due(
                connection, now=clock(), until=clock() + A_MINUTE, free=1, per_receiver=1, taken={}
            )
        held += claimed.claims
        clock.now += A_MINUTE
    assert [claim.id for claim in held] == [delivery_id] * 2

    async def record(claim: claims.Claim, code: int) -> bool:
        attempt = Attempt(
            attempted_at=clock(),
            duration_ms=1,
            status_code=code,
            error=None,
            status=DeliveryStatus.PENDING,
            next_attempt_at=clock() + A_MINUTE,
            finished_at=None,
        )
        async with database.connection() as connection:
            return await claims.record_attempt(connection, claim, attempt)

    recorded = await asyncio.gather(record(held[0], 501), record(held[1], 502))
    assert sorted(recorded) == [False, True]
    assert (await the_delivery(database, delivery_id)).attempts == 1
    assert len(await the_attempts(database, delivery_id)) == 1


# --- a database that goes away ----------------------------------------------------------------------------------


class Gate:
    """A way to the database that can be shut: connections break off and no new one is accepted."""

    def __init__(self, database_url: str) -> None:
        url = make_url(database_url)
        self._host = str(url.host or url.query["host"])
        self._port = url.port or 5432
        self._open: set[asyncio.StreamWriter] = set()
        self._shut = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.shut()
        self._server.close()

    def through(self, database_url: str) -> str:
        port = self._server.sockets[0].getsockname()[1]
        return make_url(database_url).set(host="127.0.0.1", port=port, query={}).render_as_string(hide_password=False)

    def shut(self) -> None:
        self._shut = True
        for writer in self._open:
            writer.transport.abort()

    def open(self) -> None:
        self._shut = False

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._shut:
            writer.transport.abort()
            return
        if self._host.startswith("/"):
            there, onward = await asyncio.open_unix_connection(f"{self._host}/.s.PGSQL.{self._port}")
        else:
            there, onward = await asyncio.open_connection(self._host, self._port)
        self._open |= {writer, onward}
        await asyncio.gather(_pour(reader, onward), _pour(there, writer))


async def _pour(source: asyncio.StreamReader, into: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await source.read(65536):
            into.write(data)
            await into.drain()
    into.close()


async def test_a_database_that_is_away_for_a_moment_costs_no_event_and_no_second_call(
    database: Database, database_url: str
) -> None:
    clock = HandClock()
    release = asyncio.Event()
    async with Gate(database_url) as gate, a_receiver(once_set(release)) as receiver:
        behind = Database(gate.through(database_url), pool_size=5)
        during = await an_event(database, url=receiver.url, now=clock())
        async with a_dispatcher(behind, clock=clock, poll=0.05) as dispatcher, running(dispatcher):
            await receiver.arrived.wait()
            gate.shut()
            release.set()  # answered while nothing can be written down
            afterwards = await an_event(database, url=receiver.url, now=clock())
            await asyncio.sleep(0.2)
            assert await count_of(database, DeliveryStatus.PENDING) == 2
            gate.open()
            await eventually(lambda: all_delivered(database))
        await behind.dispose()
    assert receiver.ids == [during, afterwards]
    assert len(await the_attempts(database, during)) == 1


async def test_a_failure_that_is_no_outage_ends_the_loop_loudly(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "_CLAIM", "SELECT nothing_like_it")
    async with a_dispatcher(database, clock=HandClock()) as dispatcher:
        with pytest.raises(asyncpg.UndefinedColumnError):
            await dispatcher.run(asyncio.Event(), asyncio.Event())


async def test_an_attempt_that_cannot_be_written_down_is_logged_and_due_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HandClock()
    monkeypatch.setattr(claims, "_RECORD", "SELECT nothing_like_it")
    async with a_receiver(status(200)) as receiver, a_dispatcher(database, clock=clock) as dispatcher:
        delivery_id = await an_event(database, url=receiver.url, now=clock())
        assert await dispatcher.run_once() == 1
    assert (await the_delivery(database, delivery_id)).next_attempt_at > clock()
