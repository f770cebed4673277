"""The next index of a key ring, for all callers that ask at the same time in one query.

A sequence is not the bottleneck, but a round trip for each caller is: whoever comes while a query is under way shares
the next one.
"""

import asyncio
from collections import defaultdict

import asyncpg

from keyserver.addresses.errors import NothingToDerive
from keyserver.kit.db import Connect, Connection, Database

_NEXT = "SELECT nextval($1::text::regclass) FROM generate_series(1, $2)"


class Indexes:
    """One for a process. An index is given to one caller, ever."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: defaultdict[str, list[asyncio.Future[int]]] = defaultdict(list)
        self._serving: dict[str, asyncio.Task[None]] = {}

    async def take(self, sequence: str, *, connect: Connect) -> int:
        """The sequence's next number. NothingToDerive when it has none left; else what the database raises.

        From inside a transaction it is taken there: who holds a connection must not wait for another, for behind a
        pooler they are the same few.
        """
        if connect != self._database.connection:
            async with connect() as connection:
                return (await _next(connection, sequence, 1))[0]
        place: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[sequence].append(place)
        if sequence not in self._serving:
            self._serving[sequence] = asyncio.create_task(self._serve(sequence))
        return await place

    async def _serve(self, sequence: str) -> None:
        waiting = self._waiting[sequence]
        while waiting:
            places, waiting[:] = waiting[:], []
            try:
                async with self._database.connection() as connection:
                    indexes = await _next(connection, sequence, len(places))
            except Exception as error:  # noqa: BLE001 - each of those who waited learns of it
                for place in places:
                    if not place.done():
                        place.set_exception(error)
            else:
                for place, index in zip(places, indexes, strict=True):
                    if not place.done():  # a caller that was cancelled: its index stays unused
                        place.set_result(index)
        del self._serving[sequence]


async def _next(connection: Connection, sequence: str, count: int) -> list[int]:
    try:
        return [row[0] for row in await connection.fetch(_NEXT, sequence, count)]
    except asyncpg.SequenceGeneratorLimitExceededError:
        raise NothingToDerive from None
