"""One follower for every blockchain that has a payment method, started as they are registered."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy import select

from keyserver.chains.models import NATIVE, Blockchain, PaymentMethod
from keyserver.charges.crediting import Market
from keyserver.kit import metrics
from keyserver.kit.clock import Clock
from keyserver.kit.db import Database
from keyserver.kit.secrets import MasterKey, NotDecryptable
from keyserver.kit.supervise import Backoff, pause
from keyserver.watching.cursor import LostRace
from keyserver.watching.ports import ChainSource, NodeUnavailable, SourceError
from keyserver.watching.reports import report
from keyserver.watching.scanner import Follower
from keyserver.watching.targets import Target, target_of

#: How many failures in a row make an alarm.
ALARM_AFTER = 5
#: A node that asks for a longer pause, in seconds, is asked again all the same: payments wait.
LONGEST_WISH = 600.0
#: Blocks between two looks at whether to end, and two lines of progress in the log.
STEP = 100
_log = structlog.get_logger("keyserver.watcher")


SourceFactory = Callable[[Target], ChainSource]


@dataclass(frozen=True, slots=True)
class _Following:
    task: asyncio.Task[None]
    end: asyncio.Event

    async def finish(self, grace: float) -> None:
        """Lets the step under way end; one that takes too long is broken off, and its transaction with it."""
        self.end.set()
        await asyncio.wait([self.task], timeout=grace)
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class Watcher:
    """`told` is called after anything was committed that a webhook may be waiting for."""

    def __init__(
        self,
        database: Database,
        make_source: SourceFactory,
        *,
        market: Market,
        master: MasterKey,
        clock: Clock,
        poll_seconds: float,
        told: Callable[[], None],
        backoff: Backoff = Backoff(first=0.5, most=30.0),  # noqa: B008 - frozen
        grace: float = 5.0,
    ) -> None:
        self._database = database
        self._make_source = make_source
        self._market = market
        self._master = master
        self._clock = clock
        self._poll_seconds = poll_seconds
        self._told = told
        self._backoff = backoff
        self._grace = grace

    async def run(self, stop: asyncio.Event) -> None:
        """Follows everything there is to follow until `stop`; a new or changed target is picked up within a second."""
        running: dict[Target, _Following] = {}
        ending: set[asyncio.Task[None]] = set()
        try:
            while not stop.is_set():
                try:
                    targets = await self._targets()
                except Exception as error:  # noqa: BLE001 - the database may be away; followers see to themselves
                    _log.warning("targets_unknown", error=f"{type(error).__name__}: {error}"[:500])
                else:
                    self._adjust(running, ending, targets)
                await pause(1.0, stop=stop)
        finally:
            self._adjust(running, ending, set())
            await asyncio.gather(*ending, return_exceptions=True)

    def _adjust(self, running: dict[Target, _Following], ending: set[asyncio.Task[None]], targets: set[Target]) -> None:
        """The old follower of a changed target may still finish its step beside the new one: they race safely."""
        for target in set(running) - targets:
            task = asyncio.create_task(running.pop(target).finish(self._grace))
            ending.add(task)
            task.add_done_callback(ending.discard)
        for target in targets - set(running):
            end = asyncio.Event()
            running[target] = _Following(asyncio.create_task(self._follow(target, end)), end)

    async def _targets(self) -> set[Target]:
        """Disabled payment methods count: what they asked for is still watched. The newest method's node serves."""
        query = (
            select(Blockchain, PaymentMethod)
            .join(PaymentMethod, PaymentMethod.blockchain_id == Blockchain.id)
            .where(PaymentMethod.rpc_url_encrypted.is_not(None))
            .order_by(PaymentMethod.enabled.desc(), PaymentMethod.created_at.desc(), PaymentMethod.id)
        )
        async with self._database.transaction() as session:
            rows = (await session.execute(query)).all()
        with_coin = {blockchain.id for blockchain, method in rows if method.asset == NATIVE}
        targets = set()
        served = set()
        for blockchain, method in rows:
            if blockchain.id in served:
                continue
            served.add(blockchain.id)
            try:
                offers_coin = blockchain.id in with_coin
                targets.add(target_of(blockchain, method, self._master, offers_coin=offers_coin))
            except NotDecryptable as error:
                await self._note_error(
                    blockchain.id, f"the node's URL of {method.id} is {error}: set it anew with PATCH"
                )
        return targets

    async def _follow(self, target: Target, end: asyncio.Event) -> None:
        source: ChainSource | None = None
        follower: Follower | None = None
        failures: int | None = None  # not known yet: an alarm of before may still stand
        try:
            while not end.is_set():
                try:
                    if follower is None or source is None:
                        source = self._make_source(target)
                        follower = self._follower(target, source)
                    progress = await follower.step(most=STEP)
                    failures = self._recovered(target, failures)
                    if progress.behind:
                        _log.info("catching_up", **_names(target), height=progress.height, behind=progress.behind)
                    delay = 0.0 if progress.behind else target.poll_seconds or self._poll_seconds
                except LostRace:
                    delay = 0.05
                except Exception as error:  # noqa: BLE001 - a block is never stepped over, whatever is wrong with it
                    failures = (failures or 0) + 1
                    delay = await self._failed(target, error, failures)
                await pause(delay, stop=end)
        finally:
            if source is not None:
                await source.close()

    def _follower(self, target: Target, source: ChainSource) -> Follower:
        return Follower(
            self._database, target.blockchain_id, source, market=self._market, clock=self._clock, told=self._told
        )

    def _recovered(self, target: Target, failures: int | None) -> int:
        if failures != 0:
            metrics.BLOCK_STUCK.labels(target.chain, target.network).set(0)
        if failures:
            _log.info("scanner_recovered", **_names(target), failures=failures)
        return 0

    async def _failed(self, target: Target, error: Exception, failures: int) -> float:
        sentence = str(error) if isinstance(error, SourceError) else f"{type(error).__name__}: {error}"
        metrics.BLOCK_FAILURES.labels(target.chain, target.network).inc()
        if failures >= ALARM_AFTER:
            metrics.BLOCK_STUCK.labels(target.chain, target.network).set(1)
        _log.warning("scanner_failed", **_names(target), failures=failures, error=sentence[:500])
        try:
            await self._note_error(target.blockchain_id, sentence)
        except Exception as second:  # noqa: BLE001 - the database may be what failed
            _log.warning("error_not_noted", **_names(target), error=type(second).__name__)
        wished = error.retry_after if isinstance(error, NodeUnavailable) else None
        return max(min(wished or 0.0, LONGEST_WISH), self._backoff.delay(failures))

    async def _note_error(self, blockchain_id: str, sentence: str) -> None:
        async with self._database.transaction() as session:
            await report(session, blockchain_id, last_error=sentence[:500], last_error_at=self._clock())


def _names(target: Target) -> dict[str, str]:
    return {"chain": target.chain, "network": target.network}
