"""An event is written down with the fact it tells, or not at all."""

from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from tests.webhooks.webhook_world import HandClock, a_tenant

from keyserver.kit.db import Database
from keyserver.webhooks.models import DeliveryStatus, WebhookDelivery
from keyserver.webhooks.outbox import enqueue

CLOCK = HandClock()


async def tell(session: AsyncSession, **changed: Any) -> None:
    event: dict[str, Any] = {
        "tenant_id": "acme",
        "signing_tenant_id": "platform",
        "subject_id": "chg_1",
        "sequence": 1,
        "type": "charge.settled",
        "url": "https://Example.com/hook?a=b",
        "payload": {"chargeId": "chg_1", "metadata": {"note": "x" * 16_000}},
    }
    await enqueue(session, **(event | changed), now=CLOCK())


async def told(database: Database) -> list[WebhookDelivery]:
    async with database.transaction() as session:
        return list(await session.scalars(select(WebhookDelivery)))


@pytest.fixture(autouse=True)
async def _tenants(database: Database) -> None:
    for tenant_id in ("acme", "platform"):
        await a_tenant(database, tenant_id)


async def test_an_event_is_due_at_once_and_knows_its_receiver(database: Database) -> None:
    async with database.transaction() as session:
        await tell(session)
    (delivery,) = await told(database)
    assert delivery.id.startswith("whd_")
    assert (delivery.tenant_id, delivery.signing_tenant_id) == ("acme", "platform")
    assert (delivery.url, delivery.receiver) == ("https://Example.com/hook?a=b", "https://example.com:443")
    assert (delivery.status, delivery.attempts, delivery.finished_at) == (DeliveryStatus.PENDING, 0, None)
    assert delivery.created_at == delivery.next_attempt_at == CLOCK()
    assert delivery.payload["metadata"] == {"note": "x" * 16_000}


async def test_an_event_of_a_transaction_that_fails_was_never_there(database: Database) -> None:
    async def fail() -> None:
        async with database.transaction() as session:
            await tell(session)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await told(database) == []


async def test_a_change_of_a_charge_is_told_once(database: Database) -> None:
    async with database.transaction() as session:
        await tell(session)
        await tell(session, sequence=2)
        await tell(session, subject_id="chg_2")
    with pytest.raises(IntegrityError):
        async with database.transaction() as session:
            await tell(session)
    assert len(await told(database)) == 3


async def test_a_url_that_cannot_be_read_does_not_stop_the_fact_from_being_written(database: Database) -> None:
    async with database.transaction() as session:
        await tell(session, url="http://[::1")
    (delivery,) = await told(database)
    assert delivery.receiver == "unreadable"
