"""Delivering what the outbox holds. Any number of dispatchers may run against one database."""

import asyncio
import random
from datetime import timedelta

import aiohttp
import structlog

from keyserver.kit.clock import Clock
from keyserver.kit.db import Database, is_unavailable
from keyserver.kit.metrics import TASK_FAILURES, WEBHOOK_ATTEMPTS
from keyserver.webhooks import claims, schedule, sender
from keyserver.webhooks.claims import Attempt, Claim
from keyserver.webhooks.models import DeliveryStatus
from keyserver.webhooks.schedule import Outcome
from keyserver.webhooks.secrets import TenantSecrets
from keyserver.webhooks.slots import Slots

#: What a claim lasts beyond the time-out: writing the result down, while the database may be away for a moment.
CLAIM_MARGIN = timedelta(seconds=15)
_RECORD_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
#: Two dispatchers that chose the same rows look again, at different times.
_CONTENDED_PAUSE = 0.05
_log = structlog.get_logger("keyserver.webhooks")


class Dispatcher:
    """`session` is a guarded session (kit/egress.py) whose time-out is `timeout` seconds.

    `grace` is how long calls in flight may take once it is told to stop; those cut off are due again by themselves.
    """

    def __init__(
        self,
        database: Database,
        session: aiohttp.ClientSession,
        secrets: TenantSecrets,
        *,
        clock: Clock,
        timeout: float,
        max_in_flight: int = 64,
        max_per_receiver: int = 4,
        poll: float = 0.5,
        grace: float = 5.0,
        rng: random.Random | None = None,
    ) -> None:
        self._database = database
        self._session = session
        self._secrets = secrets
        self._clock = clock
        self._claimed_for = timedelta(seconds=timeout) + CLAIM_MARGIN
        self._poll = poll
        self._grace = grace
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, keeps no secret
        self._slots = Slots(total=max_in_flight, per_receiver=max_per_receiver)
        self._tasks: set[asyncio.Task[None]] = set()
        self._freed = asyncio.Event()

    async def run_once(self) -> int:
        """Attempts what is due and has a free slot, once; returns how many attempts that were."""
        started = len(await self._start_due())
        if self._tasks:
            await asyncio.wait(self._tasks)
        return started

    async def run(self, stop: asyncio.Event, wake: asyncio.Event) -> None:
        """Delivers until `stop`, then waits for calls in flight; cancelled, it drops them. No failure ends it.

        Looks for work when `wake` is set (by whoever enqueued), a slot is free again, or the poll interval is over.
        """
        try:
            while not stop.is_set():
                wake.clear()
                self._freed.clear()
                await self._start_all_due(stop)
                await _first_of(stop, wake, self._freed, within=self._poll)
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=self._grace)
        finally:
            await self._abandon()

    async def _start_all_due(self, stop: asyncio.Event) -> None:
        try:
            while not stop.is_set() and await self._start_due():
                pass
        except Exception as error:  # noqa: BLE001 - whatever it was, deliveries go on later
            TASK_FAILURES.labels("webhooks").inc()
            _log.warning("webhook_claim_failed", error=type(error).__name__, exc_info=not is_unavailable(error))

    async def _start_due(self) -> list[Claim]:
        if self._slots.free <= 0:
            return []
        now = self._clock()
        async with self._database.connection() as connection:
            claimed = await claims.claim_due(
                connection,
                now=now,
                until=now + self._claimed_for,
                free=self._slots.free,
                per_receiver=self._slots.per_receiver,
                taken=self._slots.taken(self._rng.sample),
            )
        for claim in claimed.claims:
            self._start(claim)
        if claimed.contended:
            asyncio.get_running_loop().call_later(_CONTENDED_PAUSE * self._rng.random(), self._freed.set)
        return claimed.claims

    def _start(self, claim: Claim) -> None:
        self._slots.take(claim.receiver)
        task = asyncio.create_task(self._deliver(claim), name=f"webhook {claim.id}")
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._slots.give_back(claim.receiver)
            self._freed.set()

        task.add_done_callback(ended)

    async def _abandon(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _deliver(self, claim: Claim) -> None:
        loop = asyncio.get_running_loop()
        attempted_at, started = self._clock(), loop.time()
        body = sender.body_of(claim.payload)
        secrets = self._secrets.active(claim.signing_tenant_id, claim.rotation, now=attempted_at)
        headers = sender.signed_headers(secrets, message_id=claim.id, body=body, now=attempted_at)
        answer = await sender.send(self._session, url=claim.url, headers=headers, body=body)
        outcome = schedule.outcome_of(answer.status_code)
        self._slots.note(claim.receiver, answered=outcome is not Outcome.UNANSWERED)
        now = self._clock()
        wait = schedule.after(
            claim.attempts + 1,
            outcome=outcome,
            retry_after=schedule.parse_retry_after(answer.retry_after, now=now),
            random=self._rng.random,
        )
        attempt = Attempt(
            attempted_at=attempted_at,
            duration_ms=int((loop.time() - started) * 1000),
            status_code=answer.status_code,
            error=answer.error,
            status=_status(outcome, final=wait is None),
            next_attempt_at=None if wait is None else now + wait,
            finished_at=now if wait is None else None,
        )
        await self._record(claim, attempt, outcome=outcome)

    async def _record(self, claim: Claim, attempt: Attempt, *, outcome: Outcome) -> None:
        for pause in _RECORD_PAUSES:
            try:
                async with self._database.connection() as connection:
                    recorded = await claims.record_attempt(connection, claim, attempt)
            except Exception as error:  # noqa: BLE001 - nobody awaits this task: here is where its end is seen
                if not is_unavailable(error):
                    _log.exception("webhook_not_recorded", delivery=claim.id)
                    return
                await asyncio.sleep(pause)
                continue
            if recorded:
                WEBHOOK_ATTEMPTS.labels(str(outcome)).inc()
            if attempt.error:
                _log.info("webhook_failed", delivery=claim.id, receiver=claim.receiver, error=attempt.error)
            return
        _log.warning("webhook_not_recorded", delivery=claim.id, error="the database does not answer")


def _status(outcome: Outcome, *, final: bool) -> DeliveryStatus:
    if outcome is Outcome.DELIVERED:
        return DeliveryStatus.DELIVERED
    return DeliveryStatus.FAILED if final else DeliveryStatus.PENDING


async def _first_of(*events: asyncio.Event, within: float) -> None:
    waiters = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiters, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiter in waiters:
            waiter.cancel()
        await asyncio.gather(*waiters, return_exceptions=True)
