"""Group commit: calls of one statement that come while others are on their way go out together, in one transaction.

What is shared is what stands round a statement: the round trip, the connection, the commit that waits for the disk, and
the wait for a row that all of them lock. A call that comes alone goes out at once, and on its own.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keyserver.kit.db import Connect, is_unavailable

#: Calls in one transaction: as many as keep the rows locked for a few milliseconds.
MOST = 32


@dataclass(frozen=True, slots=True)
class _Waiting:
    arguments: Sequence[Any]
    row: asyncio.Future[Any]

    def gives(self, row: Any) -> None:
        if not self.row.done():
            self.row.set_result(row)

    def fails(self, error: Exception) -> None:
        if not self.row.done():
            self.row.set_exception(error)


class Grouped:
    """One statement, which gives exactly one row, and its calls of one process.

    Calls of one `key` follow each other, and up to MOST of them are one transaction. They must lock the same rows, or
    rows of their own: groups that lock several shared rows in another order would wait for each other in a circle.
    """

    def __init__(self, connect: Connect, statement: str) -> None:
        self._connect = connect
        self._statement = statement
        self._queues: dict[str, deque[_Waiting]] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def fetchrow(self, key: str, arguments: Sequence[Any]) -> Any:
        """The statement's row, once it is committed. Raises what this very call raises; others do not suffer from it.

        A caller that goes away before its call has left takes it back; later, the call is made without it.
        """
        row = asyncio.get_running_loop().create_future()
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = deque()
            task = asyncio.create_task(self._serve(key, queue))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        queue.append(_Waiting(arguments, row))
        return await row

    async def _serve(self, key: str, queue: deque[_Waiting]) -> None:
        taken: list[_Waiting] = []
        try:
            while queue:
                taken = [queue.popleft() for _ in range(min(len(queue), MOST))]
                await self._run([each for each in taken if not each.row.done()])
        finally:
            del self._queues[key]
            for each in (*taken, *queue):  # some still wait only when this task is cancelled, as the loop ends
                each.row.cancel()

    async def _run(self, calls: Sequence[_Waiting]) -> None:
        try:
            rows = await self._fetch([call.arguments for call in calls])
        except Exception as error:  # noqa: BLE001 - it is the callers'
            if len(calls) > 1 and not is_unavailable(error):
                for call in calls:  # one of them is at fault, and nothing was written
                    await self._run([call])
            else:
                for call in calls:
                    call.fails(error)
        else:
            for call, row in zip(calls, rows, strict=True):
                call.gives(row)

    async def _fetch(self, calls: Sequence[Sequence[Any]]) -> Sequence[Any]:
        if not calls:
            return ()
        async with self._connect() as connection:
            if len(calls) == 1:
                return [await connection.fetchrow(self._statement, *calls[0])]
            rows: Sequence[Any] = await connection.fetchmany(self._statement, calls)
            return rows
