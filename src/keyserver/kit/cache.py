"""Rows that hot requests read from memory, with one rule that keeps every process right at once.

A cached value is used for at most `LIFETIME` seconds, counted from before its query began. Whoever changes such a row
answers only when `LIFETIME` has passed since the commit (`kit.deps.Settled`): by then no process, of this server or of
another replica, can still hold the old value. No LISTEN, which a PgBouncer in transaction mode does not carry.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

LIFETIME = 0.2

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Snapshot(Generic[T]):
    """One value; concurrent misses share a load. Errors are raised to everyone who waited, and not kept."""

    def __init__(
        self,
        load: Callable[[], Awaitable[T]],
        *,
        lifetime: float = LIFETIME,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._lifetime = lifetime
        self._monotonic = monotonic
        self._held: tuple[T, float] | None = None
        self._loading: asyncio.Task[tuple[T, float]] | None = None

    async def get(self) -> T:
        arrived = self._monotonic()
        held = self._held
        if held is not None and held[1] > arrived - self._lifetime:
            return held[0]
        while True:
            if self._loading is None:
                self._loading = asyncio.create_task(self._reload())
            # Shielded: who waits may go away, the others still want the value.
            value, started = await asyncio.shield(self._loading)
            if started >= arrived - self._lifetime:
                return value

    async def _reload(self) -> tuple[T, float]:
        started = self._monotonic()
        try:
            value = await self._load()
        finally:
            self._loading = None
        self._held = (value, started)
        return value, started


class KeyedCache(Generic[K, T]):
    """Many values by key, the least recently loaded dropped beyond `size`. An entry never extends its own life."""

    def __init__(
        self,
        load: Callable[[K], Awaitable[T]],
        *,
        size: int = 10_000,
        lifetime: float = LIFETIME,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._size = size
        self._lifetime = lifetime
        self._monotonic = monotonic
        self._held: OrderedDict[K, tuple[T, float]] = OrderedDict()

    def last(self, key: K) -> T | None:
        """The value as it was last loaded, however long ago; None when it is not held."""
        held = self._held.get(key)
        return None if held is None else held[0]

    async def get(self, key: K) -> T:
        started = self._monotonic()
        held = self._held.get(key)
        if held is not None and held[1] > started - self._lifetime:
            return held[0]
        value = await self._load(key)
        self._held[key] = (value, started)
        self._held.move_to_end(key)
        if len(self._held) > self._size:
            self._held.popitem(last=False)
        return value
