"""Background work that outlives its own failures: loops that are started again, with back-off and jitter."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from keyserver.kit import metrics

_log = structlog.get_logger("keyserver.tasks")


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delay before try number `failures` + 1: doubled from `first` to `most` seconds, and up to a quarter of jitter."""

    first: float = 0.5
    most: float = 60.0

    def delay(self, failures: int, *, pick: random.Random = random.Random()) -> float:  # noqa: B008, S311
        base: float = min(self.most, self.first * 2 ** min(failures - 1, 30))
        return base * (1 + pick.random() / 4)


async def pause(seconds: float, *, stop: asyncio.Event, wake: asyncio.Event | None = None) -> None:
    """Waits until the time is over, or one of the events is set; `wake` is cleared."""
    waits = [asyncio.ensure_future(event.wait()) for event in (stop, wake) if event is not None]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    if wake is not None:
        wake.clear()


async def repeat(
    name: str,
    work: Callable[[], Awaitable[object]],
    *,
    every: float,
    stop: asyncio.Event,
    wake: asyncio.Event | None = None,
    backoff: Backoff = Backoff(),
) -> None:
    """Does the work every so often until `stop`. A failure is logged in one line and never ends the loop."""
    failures = 0
    while not stop.is_set():
        try:
            await work()
            failures = 0
        except Exception as error:  # noqa: BLE001 - whatever it was, the work goes on later
            failures += 1
            metrics.TASK_FAILURES.labels(name).inc()
            _log.warning("task_failed", task=name, failures=failures, error=f"{type(error).__name__}: {error}"[:500])
        delay = every if failures == 0 else max(every, backoff.delay(failures))
        await pause(delay, stop=stop, wake=wake)
