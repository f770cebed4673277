"""What webhook tests are built from: receivers on loopback, a clock turned by hand, rows, a dispatcher."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractResolver
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from keyserver.access.models import Tenant, TenantType
from keyserver.kit.clock import Clock, utc_now
from keyserver.kit.db import Database
from keyserver.kit.egress import EgressPolicy, guarded_session, origin
from keyserver.kit.secrets import MasterKey
from keyserver.webhooks.dispatcher import Dispatcher
from keyserver.webhooks.models import DeliveryStatus, WebhookAttempt, WebhookDelivery
from keyserver.webhooks.outbox import enqueue
from keyserver.webhooks.secrets import TenantSecrets

SECRETS = TenantSecrets(MasterKey("a master key for tests"))
_numbers = itertools.count(1)


class HandClock:
    """Stands still until it is turned."""

    def __init__(self, now: datetime | None = None) -> None:
        self.now = now or utc_now()

    def __call__(self) -> datetime:
        return self.now

    def turn(self, **by: float) -> None:
        self.now += timedelta(**by)


@dataclass
class Received:
    headers: dict[str, str]
    body: bytes


Answer = Callable[[], Awaitable[web.StreamResponse]]


@dataclass
class Receiver:
    """A real HTTP server. `answer` is what it does from now on; `received` what it got, whole."""

    url: str
    answer: Answer
    received: list[Received] = field(default_factory=list)
    under_way: int = 0
    most_at_once: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ids(self) -> list[str]:
        return [request.headers["webhook-id"] for request in self.received]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        self.received.append(Received({name.lower(): value for name, value in request.headers.items()}, body))
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        self.arrived.set()
        try:
            return await self.answer()
        finally:
            self.under_way -= 1


def status(code: int, **headers: str) -> Answer:
    async def answer() -> web.StreamResponse:
        return web.Response(
            status=code,
            text="a body nobody may see",
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )

    return answer


async def never() -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


def once_set(event: asyncio.Event) -> Answer:
    async def answer() -> web.StreamResponse:
        await event.wait()
        return web.Response()

    return answer


@asynccontextmanager
async def a_receiver(answer: Answer | None = None, *, host: str = "127.0.0.1") -> AsyncIterator[Receiver]:
    receiver = Receiver("", answer or status(200))
    runner = web.ServerRunner(web.Server(receiver.handle, handler_cancellation=True), shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, host, 0).start()
    receiver.url = f"http://{host}:{runner.addresses[0][1]}/hook"
    try:
        yield receiver
    finally:
        await runner.cleanup()


async def a_tenant(database: Database, tenant_id: str = "acme") -> str:
    async with database.transaction() as session:
        row = {"id": tenant_id, "name": tenant_id, "type": TenantType.ORG}
        await session.execute(insert(Tenant).values(row).on_conflict_do_nothing())
    return tenant_id


async def an_event(
    database: Database,
    *,
    url: str,
    now: datetime,
    subject_id: str | None = None,
    sequence: int = 1,
    tenant_id: str = "acme",
    payload: dict[str, Any] | None = None,
) -> str:
    """A committed event; gives its delivery's id."""
    subject_id = subject_id or f"chg_{next(_numbers)}"
    await a_tenant(database, tenant_id)
    async with database.transaction() as session:
        await enqueue(
            session,
            tenant_id=tenant_id,
            signing_tenant_id=tenant_id,
            subject_id=subject_id,
            sequence=sequence,
            type="charge.settled",
            url=url,
            payload={"chargeId": subject_id, "sequence": sequence} if payload is None else payload,
            now=now,
        )
        found = await session.scalar(
            select(WebhookDelivery.id).where(
                WebhookDelivery.subject_id == subject_id, WebhookDelivery.sequence == sequence
            )
        )
    assert found is not None
    return found


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


async def the_delivery(database: Database, delivery_id: str) -> WebhookDelivery:
    async with database.transaction() as session:
        return await session.get_one(WebhookDelivery, delivery_id)


async def the_attempts(database: Database, delivery_id: str) -> list[WebhookAttempt]:
    async with database.transaction() as session:
        query = select(WebhookAttempt).where(WebhookAttempt.delivery_id == delivery_id)
        return list(await session.scalars(query.order_by(WebhookAttempt.attempt)))


async def count_of(database: Database, state: DeliveryStatus) -> int:
    async with database.connection() as connection:
        query = "SELECT count(*) FROM webhook_deliveries WHERE status = $1"
        return int(await connection.fetchval(query, str(state)))


@asynccontextmanager
async def a_dispatcher(
    database: Database,
    *,
    clock: Clock,
    patience: float = 5.0,
    allow: tuple[str, ...] = ("127.0.0.0/8",),
    resolver: AbstractResolver | None = None,
    **options: Any,
) -> AsyncIterator[Dispatcher]:
    options.setdefault("rng", random.Random(0))  # noqa: S311 - the same jitter in every run
    async with guarded_session(EgressPolicy(allow), timeout=patience, resolver=resolver) as session:
        yield Dispatcher(database, session, SECRETS, clock=clock, timeout=patience, **options)


@asynccontextmanager
async def running(dispatcher: Dispatcher) -> AsyncIterator[asyncio.Event]:
    """The dispatcher's loop; gives the event that wakes it. Stopped at the end, as on SIGTERM."""
    stop, wake = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(dispatcher.run(stop, wake))
    try:
        yield wake
    finally:
        stop.set()
        await task


async def eventually(condition: Callable[[], Awaitable[bool]] | Callable[[], bool], *, within: float = 5.0) -> None:
    """Waits until the condition holds."""
    async with asyncio.timeout(within):
        while True:
            holds = condition()
            if isinstance(holds, bool):
                if holds:
                    return
            elif await holds:
                return
            await asyncio.sleep(0.01)
