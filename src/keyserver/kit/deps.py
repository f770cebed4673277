"""FastAPI dependencies without a domain. What they need, the composition root has put on `app.state`.

Dependencies are `async def` even when they wait for nothing: FastAPI runs a plain function in a thread, which costs
more than the rest of a small request.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, cast

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.kit.clock import Clock
from keyserver.kit.db import Database


def database_of(request: Request) -> Database:
    return cast(Database, request.app.state.database)


def clock_of(request: Request) -> Clock:
    return cast(Clock, request.app.state.clock)


def request_id_of(request: Request) -> str:
    """The id that the answer's `X-Request-Id` and the log line carry."""
    return str(request.scope["state"]["request_id"])


async def _session(request: Request) -> AsyncIterator[AsyncSession]:
    async with database_of(request).transaction() as session:
        yield session


async def _clock(request: Request) -> Clock:
    return clock_of(request)


async def _settled(request: Request) -> AsyncIterator[None]:
    yield
    await asyncio.sleep(request.app.state.cache_lifetime)


#: One transaction around the route. `scope="function"` commits it before the answer goes out: FastAPI's default
#: scope would commit after, and a client could act on what is not there yet.
Session = Annotated[AsyncSession, Depends(_session, scope="function")]

#: For routers that change cached rows: the answer waits until no process can hold the old ones (see kit/cache.py).
#: As a router's dependency it is entered before the session's and left after it, that is after the commit.
Settled = Depends(_settled, scope="function")

Now = Annotated[Clock, Depends(_clock)]
