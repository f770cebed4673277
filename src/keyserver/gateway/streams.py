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
#: How long the end of a connection is waited for, whose stream is complete: a connection that ends is used again.
_AFTER_DONE_SECONDS = 1.0


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
    outcome = Outcome.COMPLETED
    error: GatewayError | None = None
    try:
        async with asyncio.timeout(patience.whole) as limit:
            watching = asyncio.create_task(caller.watch(receive, limit, patience.without_caller))
            await _pass_on(upstream, meter, caller=caller, limit=limit, write=write)
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
        if meter.done:  # nothing was still to come
            outcome, error = Outcome.COMPLETED, None
    if caller.gone:
        outcome = Outcome.CLIENT_GONE
    return End(outcome, error, caller.answered_at)


async def _pass_on(
    upstream: aiohttp.ClientResponse,
    meter: StreamMeter,
    *,
    caller: "_Caller",
    limit: asyncio.Timeout,
    write: Callable[[bytes], Awaitable[None]],
) -> None:
    async for chunk in upstream.content.iter_any():
        caller.answered_at = caller.answered_at or time.perf_counter()
        passed = meter.feed(chunk)
        if meter.done:
            _sooner(limit, _AFTER_DONE_SECONDS)
        if passed and not caller.gone:
            await write(passed)


def _sooner(limit: asyncio.Timeout, seconds: float) -> None:
    """Time is up in so many seconds, if it was not before."""
    until = asyncio.get_running_loop().time() + seconds
    limit.reschedule(min(until, limit.when() or until))


class _Caller:
    """Whether the caller is still there, and when the first bytes came for it.

    Once it has gone, the stream has `lingering` seconds left.
    """

    def __init__(self) -> None:
        self.gone = False
        self.answered_at: float | None = None

    async def watch(self, receive: Receive, limit: asyncio.Timeout, lingering: float) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        _sooner(limit, lingering)
