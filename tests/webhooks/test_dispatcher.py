"""Delivery against real receivers on loopback: what arrives, what is retried, what is written down."""

import json
from datetime import timedelta

import pytest
from standardwebhooks import Webhook
from tests.webhooks.webhook_world import (
    SECRETS,
    HandClock,
    a_dispatcher,
    a_receiver,
    an_event,
    never,
    status,
    the_attempts,
    the_delivery,
)

from keyserver.kit.db import Database
from keyserver.webhooks.models import DeliveryStatus, WebhookDelivery
from keyserver.webhooks.schedule import DELAYS
from keyserver.webhooks.secrets import rotate

SECOND = timedelta(seconds=1)


def waits(delivery: WebhookDelivery, clock: HandClock) -> timedelta:
    assert delivery.status is DeliveryStatus.PENDING
    return delivery.next_attempt_at - clock()


def about(delay: timedelta) -> tuple[timedelta, timedelta]:
    return delay * 0.9 - SECOND, delay * 1.1 + SECOND


async def test_a_receiver_gets_the_event_signed_and_the_row_is_finished(database: Database) -> None:
    clock = HandClock()
    payload = {"chargeId": "chg_ü", "amountExpectedCents": 1234, "metadata": {"a": [1, 2.5, None]}, "big": 2**80}
    async with a_receiver() as receiver, a_dispatcher(database, clock=clock) as dispatcher:
        delivery_id = await an_event(database, url=receiver.url, now=clock(), payload=payload)
        assert await dispatcher.run_once() == 1
    (request,) = receiver.received
    assert Webhook(SECRETS.secret("acme")).verify(request.body, request.headers) == payload
    assert json.loads(request.body) == payload
    assert request.headers["webhook-id"] == delivery_id
    assert request.headers["webhook-timestamp"] == str(int(clock().timestamp()))
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("keyserver")
    delivery = await the_delivery(database, delivery_id)
    assert (delivery.status, delivery.attempts, delivery.finished_at) == (DeliveryStatus.DELIVERED, 1, clock())
    assert (delivery.last_status_code, delivery.last_error) == (200, None)
    (attempt,) = await the_attempts(database, delivery_id)
    assert (attempt.attempt, attempt.status_code, attempt.error, attempt.attempted_at) == (1, 200, None, clock())


async def test_nothing_is_sent_before_it_is_due_or_after_it_is_done(database: Database) -> None:
    clock = HandClock()
    async with a_receiver() as receiver, a_dispatcher(database, clock=clock) as dispatcher:
        await an_event(database, url=receiver.url, now=clock() + SECOND)
        assert await dispatcher.run_once() == 0
        clock.turn(seconds=1)
        assert await dispatcher.run_once() == 1
        clock.turn(days=10)
        assert await dispatcher.run_once() == 0
    assert len(receiver.received) == 1


async def test_a_failing_receiver_is_tried_ten_times_over_three_days_with_the_same_id_and_body(
    database: Database,
) -> None:
    clock = HandClock()
    async with a_receiver(status(500)) as receiver, a_dispatcher(database, clock=clock) as dispatcher:
        delivery_id = await an_event(database, url=receiver.url, now=clock())
        for delay in DELAYS:
            assert await dispatcher.run_once() == 1
            delivery = await the_delivery(database, delivery_id)
            shortest, longest = about(delay)
            assert shortest <= waits(delivery, clock) <= longest
            clock.now = delivery.next_attempt_at - timedelta(microseconds=1)
            assert await dispatcher.run_once() == 0
            clock.now = delivery.next_attempt_at
        assert await dispatcher.run_once() == 1
        clock.turn(days=30)
        assert await dispatcher.run_once() == 0
    assert receiver.ids == [delivery_id] * 10
    assert len({request.body for request in receiver.received}) == 1
    assert len({request.headers["webhook-timestamp"] for request in receiver.received}) == 10
    delivery = await the_delivery(database, delivery_id)
    assert (delivery.status, delivery.attempts) == (DeliveryStatus.FAILED, 10)
    assert delivery.last_error == "The receiver answered 500"
    attempts = await the_attempts(database, delivery_id)
    assert [attempt.attempt for attempt in attempts] == list(range(1, 11))


async def test_a_retry_is_signed_with_the_secrets_of_its_own_time(database: Database) -> None:
    clock = HandClock()
    async with a_receiver(status(500)) as receiver, a_dispatcher(database, clock=clock) as dispatcher:
        await an_event(database, url=receiver.url, now=clock())
        await dispatcher.run_once()
        async with database.transaction() as session:
            await rotate(session, "acme", now=clock())
        clock.turn(seconds=10)
        receiver.answer = status(200)
        await dispatcher.run_once()
    first, second = receiver.received
    assert len(first.headers["webhook-signature"].split(" ")) == 1
    assert len(second.headers["webhook-signature"].split(" ")) == 2
    for version in (1, 2):
        Webhook(SECRETS.secret("acme", version)).verify(second.body, second.headers)


async def test_410_stops_at_once(database: Database) -> None:
    clock = HandClock()
    async with a_receiver(status(410)) as receiver, a_dispatcher(database, clock=clock) as dispatcher:
        delivery_id = await an_event(database, url=receiver.url, now=clock())
        await dispatcher.run_once()
        clock.turn(days=10)
        assert await dispatcher.run_once() == 0
    delivery = await the_delivery(database, delivery_id)
    assert (delivery.status, delivery.last_error) == (DeliveryStatus.FAILED, "The receiver answered 410")


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        ("600", timedelta(minutes=10), timedelta(minutes=10)),
        ("0", *about(timedelta(seconds=5))),
        ("99999999", timedelta(hours=24), timedelta(hours=24)),
        ("whenever", *about(timedelta(seconds=5))),
    ],
)
async def test_429_with_retry_after_is_honoured(
    database: Database, asked: str, least: timedelta, most: timedelta
) -> None:
    clock = HandClock()
    busy = status(429, retry_after=asked)
    async with a_receiver(busy) as receiver, a_dispatcher(database, clock=clock) as dispatcher:
        delivery_id = await an_event(database, url=receiver.url, now=clock())
        await dispatcher.run_once()
    assert least <= waits(await the_delivery(database, delivery_id), clock) <= most


async def test_an_answer_that_comes_too_late_is_none(database: Database) -> None:
    clock = HandClock()
    async with a_receiver(never) as receiver, a_dispatcher(database, clock=clock, patience=0.1) as dispatcher:
        delivery_id = await an_event(database, url=receiver.url, now=clock())
        await dispatcher.run_once()
        assert len(receiver.received) == 1
    delivery = await the_delivery(database, delivery_id)
    assert (delivery.last_status_code, delivery.last_error) == (None, "The receiver did not answer in time")
    assert waits(delivery, clock) <= timedelta(seconds=6)
    (attempt,) = await the_attempts(database, delivery_id)
    assert attempt.duration_ms >= 100


async def test_a_redirect_to_a_private_address_is_a_failure_and_not_followed(database: Database) -> None:
    clock = HandClock()
    async with (
        a_receiver() as inside,
        a_receiver(status(308, location=inside.url)) as receiver,
        a_dispatcher(database, clock=clock) as dispatcher,
    ):
        delivery_id = await an_event(database, url=receiver.url, now=clock())
        await dispatcher.run_once()
        assert inside.received == []
    delivery = await the_delivery(database, delivery_id)
    assert delivery.status is DeliveryStatus.PENDING
    assert delivery.last_error == "The receiver answered 308, and redirects are not followed"


async def test_a_private_address_is_refused_when_it_comes_to_calling(database: Database) -> None:
    clock = HandClock()
    async with a_receiver() as receiver, a_dispatcher(database, clock=clock, allow=()) as dispatcher:
        delivery_id = await an_event(database, url=receiver.url, now=clock())
        await dispatcher.run_once()
        assert receiver.received == []
    delivery = await the_delivery(database, delivery_id)
    assert delivery.last_error == "The address 127.0.0.1 is loopback, which may not be called"


async def test_no_word_of_the_receivers_own_is_written_down(database: Database) -> None:
    clock = HandClock()
    async with a_receiver(status(500)) as receiver, a_dispatcher(database, clock=clock) as dispatcher:
        delivery_id = await an_event(database, url=receiver.url, now=clock())
        await dispatcher.run_once()
    (attempt,) = await the_attempts(database, delivery_id)
    assert attempt.error == "The receiver answered 500"


async def test_an_older_event_that_fails_does_not_hold_back_a_newer_one(database: Database) -> None:
    clock = HandClock()
    async with a_receiver(status(500)) as receiver, a_dispatcher(database, clock=clock) as dispatcher:
        first = await an_event(database, url=receiver.url, now=clock(), subject_id="chg_a", sequence=1)
        await dispatcher.run_once()
        receiver.answer = status(200)
        second = await an_event(database, url=receiver.url, now=clock(), subject_id="chg_a", sequence=2)
        await dispatcher.run_once()
    assert receiver.ids == [first, second]
    assert (await the_delivery(database, first)).status is DeliveryStatus.PENDING
    assert (await the_delivery(database, second)).status is DeliveryStatus.DELIVERED
