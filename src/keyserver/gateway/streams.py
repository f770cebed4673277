"""A stream of server-sent events on its way down: metered, and its end told, whichever it is."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp
import structlog
from starlette.types import Receive

from keyserver.gateway.billing import Outcome
from keyserver.gateway.call_errors import ShuttingDown, UpstreamCut, UpstreamTimeout
from keyserver.gateway.errors import GatewayError
from keyserver.gateway.metering import StreamMeter

_log = structlog.get_logger("keyserver.gateway")


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds a call may take in all, and a stream may go on after its caller has gone, for the usage at its end."""

    whole: float
    without_caller: float


@dataclass(frozen=True, slots=True)
class End:
    """How a stream ended, what its caller is told of that, and when its first bytes came (`time.perf_counter`)."""

    outcome: Outcome
    error: GatewayError | None
    first_byte_at: float | None


async def relay(
    upstream: aiohttp.ClientResponse,
    meter: StreamMeter,
    *,
    write: Callable[[bytes], Awaitable[None]],
    receive: Receive,
    patience: Patience,
) -> End:
    """Passes the stream on until it ends, its caller has gone, or time is up.

    Never raises, not even when this task is cancelled: what came must be charged.
    """
    caller = _Caller()
    watching: asyncio.Task[None] | None = None
    first_byte_at: float | None = None
    outcome = Outcome.COMPLETED
    error: GatewayError | None = None
    try:
        async with asyncio.timeout(patience.whole) as limit:
            watching = asyncio.create_task(caller.watch(receive, limit, patience.without_caller))
            async for chunk in upstream.content.iter_any():
                first_byte_at = first_byte_at or time.perf_counter()
                passed = meter.feed(chunk)
                if passed and not caller.gone:
                    await write(passed)
    except TimeoutError:
        outcome, error = Outcome.UPSTREAM_CUT, UpstreamTimeout()
    except (aiohttp.ClientError, OSError):
        outcome, error = Outcome.UPSTREAM_CUT, UpstreamCut()
    except asyncio.CancelledError:
        outcome, error = Outcome.SHUTDOWN, ShuttingDown()
    except Exception:  # noqa: BLE001 - whatever it was, what came is charged
        _log.exception("stream_failed")
        outcome, error = Outcome.UPSTREAM_CUT, UpstreamCut()
    if watching is not None:
        watching.cancel()
    if error is not None:
        upstream.close()
    if caller.gone:
        outcome = Outcome.CLIENT_GONE
    return End(outcome, error, first_byte_at)


class _Caller:
    """Whether the caller is still there. Once it has gone, the stream has `lingering` seconds left."""

    def __init__(self) -> None:
        self.gone = False

    async def watch(self, receive: Receive, limit: asyncio.Timeout, lingering: float) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        until = asyncio.get_running_loop().time() + lingering
        limit.reschedule(min(until, limit.when() or until))
