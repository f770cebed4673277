"""The admin routes of tenants' webhook secrets and of deliveries, over HTTP."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import update
from standardwebhooks import Webhook
from tests.webhooks.webhook_world import (
    HandClock,
    a_dispatcher,
    a_receiver,
    a_tenant,
    an_event,
    status,
    the_attempts,
    the_delivery,
)

from keyserver.access.attempts import FailedAttempts
from keyserver.kit.db import Database
from keyserver.kit.http import RequestContext, install_problem_handlers
from keyserver.kit.metrics import render
from keyserver.kit.secrets import MasterKey
from keyserver.webhooks.deliveries import backlog
from keyserver.webhooks.models import DeliveryStatus, WebhookDelivery
from keyserver.webhooks.routes import router

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> HandClock:
    return HandClock(NOW)


@pytest.fixture
async def admin(database: Database, clock: HandClock) -> AsyncIterator[httpx.AsyncClient]:
    """An operator's client of an app that has these routes alone."""
    app = FastAPI()
    app.include_router(router)
    install_problem_handlers(app)
    app.state.database = database
    app.state.clock = clock
    app.state.admin_token = "operator"
    app.state.failed_attempts = FailedAttempts(100)
    app.state.master_key = MasterKey("a master key for tests")
    transport = httpx.ASGITransport(RequestContext(app))
    headers = {"authorization": "Bearer operator"}
    async with httpx.AsyncClient(transport=transport, base_url="http://keyserver", headers=headers) as client:
        yield client


async def listed(admin: httpx.AsyncClient, **parameters: Any) -> list[str]:
    answer = await admin.get("/admin/webhooks/deliveries", params=parameters)
    assert answer.status_code == 200, answer.text
    return [delivery["id"] for delivery in answer.json()["deliveries"]]


# --- secrets ----------------------------------------------------------------------------------------------------


async def test_a_new_tenant_is_shown_the_secret_that_signs_its_webhooks(
    admin: httpx.AsyncClient, database: Database
) -> None:
    answer = await admin.post("/admin/tenants", json={"id": "acme", "name": "Acme", "type": "org"})
    assert answer.status_code == 201
    made = answer.json()
    assert {
        "id": "acme",
        "name": "Acme",
        "type": "org",
        "created_at": "2025-06-01T12:00:00.000Z",
    }.items() <= made.items()
    clock = HandClock()
    async with a_receiver() as receiver, a_dispatcher(database, clock=clock) as dispatcher:
        await an_event(database, url=receiver.url, now=clock())
        await dispatcher.run_once()
    (request,) = receiver.received
    Webhook(made["webhook_secret"]).verify(request.body, request.headers)


async def test_making_a_tenant_again_is_a_conflict_unless_it_is_the_same_request(admin: httpx.AsyncClient) -> None:
    body = {"id": "acme", "name": "Acme", "type": "org"}
    headers = {"idempotency-key": "k"}
    first = await admin.post("/admin/tenants", json=body, headers=headers)
    again = await admin.post("/admin/tenants", json=body, headers=headers)
    other = await admin.post("/admin/tenants", json=body)
    assert (again.status_code, again.content) == (201, first.content)
    assert (other.status_code, other.json()["code"]) == (409, "tenant_exists")


async def test_rotating_shows_a_new_secret_and_how_long_the_old_one_is_valid(
    admin: httpx.AsyncClient, clock: HandClock
) -> None:
    created = await admin.post("/admin/tenants", json={"id": "acme", "name": "Acme", "type": "org"})
    rotated = await admin.post("/admin/tenants/acme/webhook-secret")
    assert rotated.status_code == 200
    assert rotated.json() == {
        "tenant_id": "acme",
        "webhook_secret": rotated.json()["webhook_secret"],
        "previous_valid_until": "2025-06-02T12:00:00.000Z",
    }
    clock.turn(hours=1)
    twice = await admin.post("/admin/tenants/acme/webhook-secret")
    secrets = [answer.json()["webhook_secret"] for answer in (created, rotated, twice)]
    assert len(set(secrets)) == 3
    assert all(secret.startswith("whsec_") for secret in secrets)


async def test_a_rotation_sent_twice_with_one_key_rotates_once(admin: httpx.AsyncClient, database: Database) -> None:
    await a_tenant(database)
    headers = {"idempotency-key": "k"}
    first = await admin.post("/admin/tenants/acme/webhook-secret", headers=headers)
    again = await admin.post("/admin/tenants/acme/webhook-secret", headers=headers)
    assert first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"


async def test_the_secret_of_a_tenant_that_is_not_there_cannot_be_rotated(admin: httpx.AsyncClient) -> None:
    answer = await admin.post("/admin/tenants/nobody/webhook-secret")
    assert (answer.status_code, answer.json()["code"]) == (404, "tenant_not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/admin/tenants"),
        ("POST", "/admin/tenants/acme/webhook-secret"),
        ("GET", "/admin/webhooks/deliveries"),
        ("GET", "/admin/webhooks/deliveries/whd_1"),
        ("POST", "/admin/webhooks/deliveries/whd_1/redeliver"),
    ],
)
async def test_only_an_operator_gets_in(admin: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await admin.request(method, path, headers={"authorization": "Bearer someone"})
    assert answer.status_code == 401


# --- deliveries -------------------------------------------------------------------------------------------------


async def test_deliveries_are_listed_newest_first_a_page_at_a_time(
    admin: httpx.AsyncClient, database: Database, clock: HandClock
) -> None:
    made = []
    for number in range(5):  # three of them at the same instant
        if number > 2:
            clock.turn(seconds=1)
        made.append(await an_event(database, url="http://example.com/", now=clock()))
    expected = [made[4], made[3], *sorted(made[:3], reverse=True)]
    seen: list[str] = []
    cursor = None
    for _ in range(3):
        parameters = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await admin.get("/admin/webhooks/deliveries", params=parameters)).json()
        seen += [delivery["id"] for delivery in page["deliveries"]]
        cursor = page["next_cursor"]
        clock.turn(seconds=1)  # what is added meanwhile shifts nothing
        await an_event(database, url="http://example.com/", now=clock())
    assert seen == expected
    assert cursor is None


async def test_deliveries_are_filtered_by_status_tenant_and_charge(
    admin: httpx.AsyncClient, database: Database, clock: HandClock
) -> None:
    one = await an_event(database, url="http://example.com/", now=clock(), subject_id="chg_1")
    two = await an_event(database, url="http://example.com/", now=clock(), subject_id="chg_1", sequence=2)
    three = await an_event(database, url="http://example.com/", now=clock(), tenant_id="other")
    async with database.transaction() as session:
        done = update(WebhookDelivery).where(WebhookDelivery.id == one).values(status=DeliveryStatus.DELIVERED)
        await session.execute(done)
    assert await listed(admin, status="delivered") == [one]
    assert await listed(admin, tenant_id="other") == [three]
    assert sorted(await listed(admin, charge_id="chg_1")) == sorted([one, two])
    assert sorted(await listed(admin, subject_id="chg_1")) == sorted([one, two])
    assert await listed(admin, charge_id="chg_1", status="pending", tenant_id="acme") == [two]
    assert await listed(admin, charge_id="chg_none") == []


@pytest.mark.parametrize(
    "parameters",
    [{"status": "lost"}, {"limit": 0}, {"limit": 1000}, {"cursor": "?"}, {"cursor": "MSAy"}, {"cursor": "eB95"}],
)
async def test_a_question_that_makes_no_sense_is_malformed(
    admin: httpx.AsyncClient, parameters: dict[str, Any]
) -> None:
    answer = await admin.get("/admin/webhooks/deliveries", params=parameters)
    assert answer.status_code == 400
    assert answer.json()["errors"]


async def test_a_delivery_is_shown_with_what_it_says_and_every_attempt(
    admin: httpx.AsyncClient, database: Database, clock: HandClock
) -> None:
    async with a_receiver(status(500)) as receiver, a_dispatcher(database, clock=clock) as dispatcher:
        payload = {"chargeId": "chg_1", "status": "Settled"}
        delivery_id = await an_event(database, url=receiver.url, now=clock(), subject_id="chg_1", payload=payload)
        await dispatcher.run_once()
        clock.turn(seconds=10)
        receiver.answer = status(204)
        await dispatcher.run_once()
    shown = (await admin.get(f"/admin/webhooks/deliveries/{delivery_id}")).json()
    log = shown.pop("attempt_log")
    assert shown == {
        "id": delivery_id,
        "tenant_id": "acme",
        "subject_id": "chg_1",
        "charge_id": "chg_1",
        "sequence": 1,
        "type": "charge.settled",
        "url": receiver.url,
        "status": "delivered",
        "attempts": 2,
        "next_attempt_at": None,
        "last_status_code": 204,
        "last_error": None,
        "created_at": "2025-06-01T12:00:00.000Z",
        "finished_at": "2025-06-01T12:00:10.000Z",
        "payload": payload,
    }
    brief = [(attempt["attempt"], attempt["status_code"], attempt["error"]) for attempt in log]
    assert brief == [(1, 500, "The receiver answered 500"), (2, 204, None)]
    (listed_one,) = (await admin.get("/admin/webhooks/deliveries")).json()["deliveries"]
    assert listed_one == {name: value for name, value in shown.items() if name != "payload"}


@pytest.mark.parametrize("way", ["", "/redeliver"])
async def test_a_delivery_that_is_not_there_is_not_found(admin: httpx.AsyncClient, way: str) -> None:
    answer = await admin.request("POST" if way else "GET", f"/admin/webhooks/deliveries/whd_none{way}")
    assert (answer.status_code, answer.json()["code"]) == (404, "delivery_not_found")


async def test_a_redelivery_goes_out_now_with_its_id_and_a_fresh_schedule_and_its_log_counts_on(
    admin: httpx.AsyncClient, database: Database, clock: HandClock
) -> None:
    async with a_receiver(status(410)) as receiver, a_dispatcher(database, clock=clock) as dispatcher:
        delivery_id = await an_event(database, url=receiver.url, now=clock())
        await dispatcher.run_once()
        assert (await the_delivery(database, delivery_id)).status is DeliveryStatus.FAILED
        clock.turn(days=2)
        answer = await admin.post(f"/admin/webhooks/deliveries/{delivery_id}/redeliver")
        assert answer.status_code == 202
        again = answer.json()
        assert (again["id"], again["status"], again["attempts"]) == (delivery_id, "pending", 0)
        assert (again["next_attempt_at"], again["finished_at"]) == ("2025-06-03T12:00:00.000Z", None)
        receiver.answer = status(500)
        await dispatcher.run_once()
        delivery = await the_delivery(database, delivery_id)
        assert delivery.next_attempt_at - clock() < timedelta(seconds=6)
    assert receiver.ids == [delivery_id] * 2
    attempts = await the_attempts(database, delivery_id)
    assert [(attempt.attempt, attempt.status_code) for attempt in attempts] == [(1, 410), (2, 500)]


async def test_the_backlog_is_what_is_due_and_how_long_it_has_been(database: Database, clock: HandClock) -> None:
    async def gauges() -> str:
        async with database.transaction() as session:
            return render(database_gauges=await backlog(session, now=clock())).decode()

    assert "keyserver_webhooks_due 0.0" in await gauges()
    assert "keyserver_webhooks_due_age_seconds 0.0" in await gauges()
    for seconds in (30, 10, -10):
        await an_event(database, url="http://example.com/", now=clock() - timedelta(seconds=seconds))
    assert "keyserver_webhooks_due 2.0" in await gauges()
    assert "keyserver_webhooks_due_age_seconds 30.0" in await gauges()
