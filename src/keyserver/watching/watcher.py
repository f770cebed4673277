"""One follower for every blockchain that has a payment method, started as they are registered."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import select

from keyserver.chains.models import Blockchain, PaymentMethod
from keyserver.charges.crediting import Market
from keyserver.kit import metrics
from keyserver.kit.clock import Clock
from keyserver.kit.db import Database
from keyserver.kit.secrets import MasterKey, NotDecryptable
from keyserver.kit.supervise import Backoff, pause
from keyserver.watching.ports import ChainSource, NodeUnavailable, SourceError
from keyserver.watching.reports import report
from keyserver.watching.scanner import Follower, LostRace

#: How many failures in a row make an alarm.
ALARM_AFTER = 5
#: How many seconds a follower may take for the step it is in once it is told to end.
GRACE = 3.0
_log = structlog.get_logger("keyserver.watcher")


@dataclass(frozen=True, slots=True)
class Target:
    """One blockchain and how its node is reached."""

    blockchain_id: str
    chain: str
    network: str
    type: str
    url: str
    headers: tuple[tuple[str, str], ...]
    poll_seconds: float | None


SourceFactory = Callable[[Target], ChainSource]


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
    ) -> None:
        self._database = database
        self._make_source = make_source
        self._market = market
        self._master = master
        self._clock = clock
        self._poll_seconds = poll_seconds
        self._told = told
        self._backoff = backoff

    async def run(self, stop: asyncio.Event) -> None:
        """Follows everything there is to follow until `stop`; a new or changed target is picked up within a second."""
        running: dict[Target, tuple[asyncio.Task[None], asyncio.Event]] = {}
        try:
            while not stop.is_set():
                try:
                    targets = await self._targets()
                except Exception as error:  # noqa: BLE001 - the database may be away; followers see to themselves
                    _log.warning("targets_unknown", error=f"{type(error).__name__}: {error}"[:500])
                else:
                    await self._adjust(running, targets)
                await pause(1.0, stop=stop)
        finally:
            await self._adjust(running, set())

    async def _adjust(
        self, running: dict[Target, tuple[asyncio.Task[None], asyncio.Event]], targets: set[Target]
    ) -> None:
        gone = [running.pop(target) for target in set(running) - targets]
        for _, end in gone:
            end.set()
        await _ended([task for task, _ in gone])
        for target in targets - set(running):
            end = asyncio.Event()
            running[target] = (asyncio.create_task(self._follow(target, end), name=f"follow {target.chain}"), end)

    async def _targets(self) -> set[Target]:
        """Disabled payment methods count: what they asked for is still watched. The newest method's node serves."""
        query = (
            select(Blockchain, PaymentMethod)
            .join(PaymentMethod, PaymentMethod.blockchain_id == Blockchain.id)
            .where(PaymentMethod.rpc_url_encrypted.is_not(None))
            .order_by(Blockchain.id, PaymentMethod.enabled.desc(), PaymentMethod.created_at.desc())
            .distinct(Blockchain.id)
        )
        async with self._database.transaction() as session:
            rows = (await session.execute(query)).all()
        targets = set()
        for blockchain, method in rows:
            try:
                targets.add(self._target(blockchain, method))
            except NotDecryptable as error:
                await self._note_error(
                    blockchain.id, f"the node's URL of {method.id} is {error}: set it anew with PATCH"
                )
        return targets

    def _target(self, blockchain: Blockchain, method: PaymentMethod) -> Target:
        headers: tuple[tuple[str, str], ...] = ()
        if method.rpc_headers_encrypted is not None:
            lines = self._master.decrypt(method.rpc_headers_encrypted).decode().split("\n")
            headers = tuple((name, value) for name, _, value in (line.partition(": ") for line in lines))
        assert method.rpc_url_encrypted is not None
        return Target(
            blockchain_id=blockchain.id,
            chain=blockchain.chain,
            network=blockchain.network,
            type=method.type,
            url=self._master.decrypt(method.rpc_url_encrypted).decode(),
            headers=headers,
            poll_seconds=blockchain.poll_seconds,
        )

    async def _follow(self, target: Target, end: asyncio.Event) -> None:
        source = self._make_source(target)
        follower = Follower(
            self._database, target.blockchain_id, source, market=self._market, clock=self._clock, told=self._told
        )
        poll = target.poll_seconds or self._poll_seconds
        failures = 0
        try:
            while not end.is_set():
                try:
                    progress = await follower.step()
                    failures = await self._recovered(target, failures)
                    if progress.behind:
                        _log.info("catching_up", **_names(target), height=progress.height, behind=progress.behind)
                    delay = 0.0 if progress.behind else poll
                except LostRace:
                    delay = 0.05
                except Exception as error:  # noqa: BLE001 - a block is never stepped over, whatever is wrong with it
                    failures += 1
                    delay = await self._failed(target, error, failures)
                await pause(delay, stop=end)
        finally:
            await source.close()

    async def _recovered(self, target: Target, failures: int) -> int:
        if failures:
            metrics.BLOCK_STUCK.labels(target.chain, target.network).set(0)
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
        return max(wished or 0.0, self._backoff.delay(failures))

    async def _note_error(self, blockchain_id: str, sentence: str) -> None:
        async with self._database.transaction() as session:
            await report(session, blockchain_id, last_error=sentence[:500], last_error_at=self._clock())


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Waits for followers to end. One whose node keeps it waiting is cut off: what it had not committed never was."""
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=GRACE)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _names(target: Target) -> dict[str, str]:
    return {"chain": target.chain, "network": target.network}
