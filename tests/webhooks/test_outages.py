"""Processes that die in the middle, and a database that goes away."""

import asyncio
import contextlib
from datetime import timedelta
from typing import Self

import asyncpg
import pytest
from sqlalchemy import make_url
from tests.webhooks.webhook_world import (
    HandClock,
    a_dispatcher,
    a_receiver,
    all_delivered,
    an_event,
    count_of,
    eventually,
    once_set,
    running,
    status,
    the_attempts,
    the_delivery,
)

from keyserver.kit.db import Database
from keyserver.webhooks import claims
from keyserver.webhooks.claims import Attempt
from keyserver.webhooks.dispatcher import CLAIM_MARGIN
from keyserver.webhooks.models import DeliveryStatus

A_MINUTE = timedelta(minutes=1)


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


async def test_a_failure_that_is_no_outage_does_not_end_the_loop(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HandClock()
    async with a_receiver() as receiver, a_dispatcher(database, clock=clock, poll=0.05) as dispatcher:
        await an_event(database, url=receiver.url, now=clock())
        with monkeypatch.context() as broken:
            broken.setattr(claims, "_CLAIM", "SELECT nothing_like_it")
            with pytest.raises(asyncpg.UndefinedColumnError):
                await dispatcher.run_once()
            async with running(dispatcher):
                await asyncio.sleep(0.1)
                assert receiver.received == []
                broken.undo()
                await eventually(lambda: len(receiver.received) == 1)


async def test_an_attempt_that_cannot_be_written_down_is_logged_and_due_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HandClock()
    monkeypatch.setattr(claims, "_RECORD", "SELECT nothing_like_it")
    async with a_receiver(status(200)) as receiver, a_dispatcher(database, clock=clock) as dispatcher:
        delivery_id = await an_event(database, url=receiver.url, now=clock())
        assert await dispatcher.run_once() == 1
    assert (await the_delivery(database, delivery_id)).next_attempt_at > clock()
