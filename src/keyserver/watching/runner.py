"""Working off the jobs that read blocks again, beside the followers and without standing in their way."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import structlog
from sqlalchemy import func, select

from keyserver.chains.models import Blockchain
from keyserver.charges.crediting import Market
from keyserver.kit.clock import Clock
from keyserver.kit.db import Database
from keyserver.kit.secrets import MasterKey
from keyserver.kit.supervise import Backoff, pause
from keyserver.watching import jobs
from keyserver.watching.arrivals import registered_contracts
from keyserver.watching.audit import Audit
from keyserver.watching.cursor import LostRace
from keyserver.watching.models import JobKind, ScannedBlock, Scanner, WatchJob
from keyserver.watching.nodes import LONGEST_WISH
from keyserver.watching.ports import ChainSource, NodeUnavailable, SourceError, WrongNode
from keyserver.watching.rereading import Rereader
from keyserver.watching.rescan import Rescan
from keyserver.watching.start import last_before
from keyserver.watching.targets import methods_with_nodes, targets_of, unreadable_nodes
from keyserver.watching.watcher import SourceFactory

#: So many failures in a row, over about ten minutes, and a job is given up.
GIVE_UP_AFTER = 20
_log = structlog.get_logger("keyserver.jobs")


class JobRunner:
    """Takes up jobs until `stop`. `told` is called after anything was committed that a webhook may be waiting for."""

    def __init__(
        self,
        database: Database,
        make_source: SourceFactory,
        *,
        market: Market,
        master: MasterKey,
        clock: Clock,
        told: Callable[[], None],
        backoff: Backoff = Backoff(first=0.5, most=60.0),  # noqa: B008 - frozen
        give_up_after: int = GIVE_UP_AFTER,
    ) -> None:
        self._database = database
        self._make_source = make_source
        self._market = market
        self._master = master
        self._clock = clock
        self._told = told
        self._backoff = backoff
        self._give_up_after = give_up_after

    async def run(self, stop: asyncio.Event, *, every: float = 1.0, grace: float = 5.0) -> None:
        """A step under way when `stop` is set may end; one that takes too long is broken off, with its transaction."""
        working: set[asyncio.Task[None]] = set()
        try:
            while not stop.is_set():
                try:
                    while (job := await self._claim()) is not None:
                        task = asyncio.create_task(self.work(job, stop))
                        working.add(task)
                        task.add_done_callback(working.discard)
                except Exception as error:  # noqa: BLE001 - the database may be away; the jobs wait there
                    _log.warning("jobs_unknown", error=f"{type(error).__name__}: {error}"[:500])
                await pause(every, stop=stop)
        finally:
            if working:
                await asyncio.wait(working, timeout=grace)
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)

    async def _claim(self) -> WatchJob | None:
        async with self._database.transaction() as session:
            return await jobs.claim(session, now=self._clock())

    async def work(self, job: WatchJob, stop: asyncio.Event) -> None:
        """Goes on with a claimed job until it is over, or `stop`."""
        desk: _Desk | None = None
        failures = 0
        try:
            while not stop.is_set():
                try:
                    desk = desk or await self._desk(job)
                    if await desk.step():
                        return
                    failures, delay = 0, 0.0
                except jobs.JobGone:
                    return
                except LostRace:
                    delay = 0.05
                except Exception as error:  # noqa: BLE001 - whatever it was, it is said, and tried again
                    failures += 1
                    delay = await self._failed(job, error, failures)
                    if failures >= self._give_up_after:
                        return
                await pause(delay, stop=stop)
        finally:
            if desk is not None:
                await desk.source.close()
            if stop.is_set():
                await self._release(job)

    async def _desk(self, job: WatchJob) -> "_Desk":
        query = methods_with_nodes().where(Blockchain.id == job.blockchain_id)
        async with self._database.transaction() as session:
            rows = (await session.execute(query)).all()
        if not rows:
            raise SourceError("no payment method on this blockchain names a node")
        (target,) = targets_of([(blockchain, method) for blockchain, method in rows], self._master)
        if not target.nodes:
            raise SourceError(unreadable_nodes(target))
        return _Desk(self._database, job.id, self._make_source(target), self._market, self._clock, self._told)

    async def _failed(self, job: WatchJob, error: Exception, failures: int) -> float:
        sentence = str(error) if isinstance(error, SourceError) else f"{type(error).__name__}: {error}"
        wished = error.retry_after if isinstance(error, NodeUnavailable) else None
        delay = max(min(wished or 0.0, LONGEST_WISH), self._backoff.delay(failures))
        given_up = failures >= self._give_up_after
        _log.warning(
            "job_failed", job=job.id, kind=job.kind, failures=failures, given_up=given_up, error=sentence[:500]
        )
        try:
            async with self._database.transaction() as session:
                if given_up:
                    await jobs.fail(session, job.id, sentence[:500], now=self._clock())
                else:
                    await jobs.note_error(
                        session, job.id, sentence[:500], now=self._clock(), lasting=timedelta(seconds=delay)
                    )
        except Exception as second:  # noqa: BLE001 - the database may be what failed; then the lease runs out
            _log.warning("error_not_noted", job=job.id, error=type(second).__name__)
        return delay

    async def _release(self, job: WatchJob) -> None:
        try:
            async with self._database.transaction() as session:
                await jobs.release(session, job.id)
        except Exception as error:  # noqa: BLE001 - the lease runs out by itself
            _log.warning("job_not_released", job=job.id, error=type(error).__name__)


class _Desk:
    """One job with what is needed to work on it. Nothing in it would be lost by a restart."""

    def __init__(
        self,
        database: Database,
        job_id: str,
        source: ChainSource,
        market: Market,
        clock: Clock,
        told: Callable[[], None],
    ) -> None:
        self.source = source
        self._is_identified = False
        self._database = database
        self._job_id = job_id
        self._clock = clock
        self._told = told
        self._rescan = Rescan(database, source, market, clock)
        self._audit = Audit(database, source, clock)
        self._rereader: Rereader | None = None

    async def step(self) -> bool:
        """Reads and applies one stretch of blocks; returns whether the job is over."""
        try:
            return await self._step()
        except Exception:
            self._is_identified = False  # what answers next may be another node behind the same URL
            raise

    async def _step(self) -> bool:
        async with self._database.transaction() as session:
            job, blockchain = await jobs.get_job(session, self._job_id)
            contracts = await registered_contracts(session, blockchain.id)
            height = await session.scalar(select(Scanner.height).where(Scanner.blockchain_id == blockchain.id))
        if job.finished_at is not None or height is None:
            raise jobs.JobGone
        if not self._is_identified:
            await self._identify(blockchain)
        if job.next_height is None:
            await self._begin(job, blockchain)
            return False
        last = min(job.to_height, height)  # above the cursor, after a fork, blocks are followed as new ones
        if job.next_height > last:
            await self._finish(job, blockchain)
            return True
        if self._rereader is None:
            self._rereader = Rereader(self._database, self.source, blockchain.id)
        stretch = await self._rereader.read(job.next_height, last, contracts=contracts)
        if job.kind is JobKind.AUDIT:
            await self._audit.compare(blockchain, job, stretch)
        elif await self._rescan.apply(blockchain, job.id, stretch):
            self._told()
        return False

    async def _identify(self, blockchain: Blockchain) -> None:
        node = await self.source.identify()
        if node.identity != blockchain.node_identity:
            raise WrongNode(f"the node is on chain {node.identity}, but {blockchain.id} was followed on another so far")
        self._is_identified = True

    async def _begin(self, job: WatchJob, blockchain: Blockchain) -> None:
        first = job.from_height
        if first is None:
            assert job.since_at is not None
            async with self._database.transaction() as session:
                mine = ScannedBlock.blockchain_id == blockchain.id
                start = await session.scalar(select(func.min(ScannedBlock.height)).where(mine))
            # What lies before the block where following started is an operator's to ask for.
            first = max(await last_before(self.source, job.since_at), start or 0) + 1
        async with self._database.transaction() as session:
            await jobs.begin(session, job.id, from_height=first, now=self._clock())

    async def _finish(self, job: WatchJob, blockchain: Blockchain) -> None:
        names = {"job": job.id, "chain": blockchain.chain, "network": blockchain.network}
        if job.kind is JobKind.RESCAN:
            async with self._database.transaction() as session:
                await jobs.finish(session, job.id, now=self._clock())
            _log.info("rescan_done", **names, payments=job.found)
            return
        ended = await self._audit.finish(blockchain, job)
        if ended.found:
            _log.error("audit_differences", **names, differences=ended.found)
        else:
            _log.info("audit_done", **names, from_height=ended.from_height, to_height=ended.to_height)
