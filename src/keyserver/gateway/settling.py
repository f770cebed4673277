"""Every admitted call ends here, once: charged, or its hold given back, whatever the database does meanwhile."""

import asyncio
from collections.abc import Coroutine
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog

from keyserver.gateway import billing
from keyserver.gateway.billing import Settled
from keyserver.gateway.once import keep
from keyserver.gateway.unsettled import FinishedCall, Journal, database_id
from keyserver.kit.clock import Clock
from keyserver.kit.db import Connect, Database, driver_connection, is_unavailable
from keyserver.kit.grouping import Grouped
from keyserver.kit.supervise import Backoff

_log = structlog.get_logger("keyserver.gateway")
T = TypeVar("T")
_BACKOFF = Backoff(first=0.05, most=1.0)


@dataclass(frozen=True, slots=True)
class Charged:
    """`available_nanos` is None when the database could not be told yet: the charge is kept, and posted later."""

    charged_nanos: int
    available_nanos: int | None


class Settler:
    """`patience` is how many seconds the database may be away before a call is kept in a journal instead.

    The journal is in a directory of the database's own below `directory`: `ready` before the first call is admitted.
    """

    def __init__(self, database: Database, directory: Path, *, clock: Clock, patience: float) -> None:
        self._database = database
        self._directory = directory
        self._journal: Journal | None = None
        self._clock = clock
        self._patience = patience
        self._grouped = Grouped(database.connection, billing.SETTLE)
        self._unfinished: set[asyncio.Future[Any]] = set()

    async def ready(self) -> Journal:
        """The journal to keep calls in; must be known while the database answers."""
        if self._journal is None:
            self._journal = Journal(self._directory / await database_id(self._database.connection))
        return self._journal

    async def settle(self, call: FinishedCall) -> Charged:
        """Charges the call, to the end."""
        return await self.to_the_end(self._settle(call))

    async def void(self, hold_id: str) -> None:
        """Gives the hold back, to the end. What cannot be given back now expires."""
        await self.to_the_end(self._void(hold_id))

    async def replay(self) -> None:
        """Settles what is in the journal; stops at the first call that the database cannot be told of."""
        journal = await self.ready()
        for call in await journal.waiting():
            try:
                await self._post(call)
            except Exception as error:
                if is_unavailable(error):
                    raise
                _log.exception("unsettled_call_refused", hold=call.hold_id)
            else:
                await journal.forget(call.hold_id)
                _log.info("unsettled_call_settled", hold=call.hold_id)

    async def drain(self) -> None:
        """Waits for what goes on by itself."""
        while self._unfinished:
            await asyncio.gather(*self._unfinished, return_exceptions=True)

    async def to_the_end(self, work: Coroutine[None, None, T]) -> T:
        """Goes on without whoever waits for it, when that one is cancelled."""
        task = asyncio.ensure_future(work)
        self._unfinished.add(task)
        task.add_done_callback(self._unfinished.discard)
        return await asyncio.shield(task)

    async def _settle(self, call: FinishedCall) -> Charged:
        try:
            settled = await self._patiently(call)
        except Exception as error:  # noqa: BLE001 - money was spent: it is written down, whatever is wrong
            _log.warning("call_kept_unsettled", hold=call.hold_id, error=f"{type(error).__name__}: {error}"[:300])
            await self._keep(call)
            return Charged(call.metered.charge_nanos, None)
        return Charged(settled.charged_nanos, settled.available_nanos)

    async def _keep(self, call: FinishedCall) -> None:
        try:
            await (await self.ready()).keep(call)
        except Exception:  # noqa: BLE001 - the log is the last place that is left
            _log.exception(
                "call_not_kept", hold=call.hold_id, tenant=call.payer.tenant_id, metered=call.metered.to_json()
            )

    async def _patiently(self, call: FinishedCall) -> Settled:
        deadline = asyncio.get_running_loop().time() + self._patience
        failures = 0
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    return await self._post(call)
            except Exception as error:
                failures += 1
                pause = _BACKOFF.delay(failures)
                if not is_unavailable(error) or asyncio.get_running_loop().time() + pause > deadline:
                    raise
                await asyncio.sleep(pause)

    async def _post(self, call: FinishedCall) -> Settled:
        if call.answer is None:
            return await self._bill(self._database.connection, call, grouped=self._grouped)
        async with self._database.transaction() as session:
            connection = await driver_connection(session)
            settled = await self._bill(lambda: nullcontext(connection), call, grouped=None)
            await keep(connection, call.answer)
        return settled

    async def _bill(self, connect: Connect, call: FinishedCall, *, grouped: Grouped | None) -> Settled:
        return await billing.settle(
            connect,
            hold_id=call.hold_id,
            payer=call.payer,
            metered=call.metered,
            now=self._clock(),
            grouped=grouped,
        )

    async def _void(self, hold_id: str) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await billing.void(self._database.connection, hold_id=hold_id, now=self._clock())
        except Exception as error:  # noqa: BLE001 - the hold expires by itself
            _log.warning("hold_not_given_back", hold=hold_id, error=f"{type(error).__name__}: {error}"[:300])
