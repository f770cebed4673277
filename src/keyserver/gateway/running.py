"""The gateway of one process, for as long as the process serves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from keyserver.gateway.forwarding import Forwarder
from keyserver.gateway.limits import TenantMargins
from keyserver.gateway.listing import ListedModels
from keyserver.gateway.once import Once
from keyserver.gateway.proxy import Gateway, Limits
from keyserver.gateway.settling import Settler
from keyserver.gateway.tariffs import Tariffs
from keyserver.gateway.upstreams import Upstreams
from keyserver.kit.clock import Clock
from keyserver.kit.db import Database
from keyserver.kit.secrets import MasterKey
from keyserver.kit.supervise import repeat

#: How long an answer may wait for a database that is away, before its call is kept on disk instead.
_PATIENCE_SECONDS = 5.0
_REPLAY_SECONDS = 5.0


@asynccontextmanager
async def running_gateway(
    database: Database,
    *,
    upstreams: Upstreams,
    tariffs: Tariffs,
    margins: TenantMargins,
    clock: Clock,
    limits: Limits,
    master: MasterKey,
    connections: int,
    directory: Path,
) -> AsyncIterator[Gateway]:
    """Settles what was left over at the start and ever again; at the end, all that is still on its way.

    `directory` is where calls are kept that the database cannot be told of.
    """
    forwarder = Forwarder(connections=connections, call_seconds=limits.patience.whole)
    settler = Settler(database, directory, clock=clock, patience=_PATIENCE_SECONDS)
    replaying = asyncio.create_task(
        repeat("unsettled calls", settler.replay, every=_REPLAY_SECONDS, stop=asyncio.Event())
    )
    try:
        yield Gateway(
            database,
            upstreams=upstreams,
            tariffs=tariffs,
            margins=margins,
            forwarder=forwarder,
            settler=settler,
            models=ListedModels(upstreams, tariffs, forwarder),
            once=Once(database, master=master, lifetime=limits.hold_lifetime),
            clock=clock,
            limits=limits,
        )
    finally:
        await settler.drain()
        replaying.cancel()
        await asyncio.gather(replaying, return_exceptions=True)
        await forwarder.close()
