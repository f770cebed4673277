"""Rows that hot requests read from memory, with one rule that keeps every process right at once.

A cached value is used for at most `LIFETIME` seconds, counted from before its query began. Whoever changes such a row
answers only when `LIFETIME` has passed since the commit (`kit.deps.Settled`): by then no process, of this server or of
another replica, can still hold the old value. No LISTEN, which a PgBouncer in transaction mode does not carry.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import Generic, TypeVar

LIFETIME = 0.2

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Snapshot(Generic[T]):
    """One value; concurrent misses share a load. Errors are raised to everyone who waited, and not kept.

    It never extends its own life.
    """

    __slots__ = ("_held", "_lifetime", "_load", "_loading", "_monotonic")

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

    @property
    def last(self) -> T | None:
        """The value as it was last loaded, however long ago."""
        return None if self._held is None else self._held[0]

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
    """A Snapshot for each key, the least recently asked for dropped beyond `size`."""

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
        self._make = partial(Snapshot[T], lifetime=lifetime, monotonic=monotonic)
        self._held: OrderedDict[K, Snapshot[T]] = OrderedDict()

    def last(self, key: K) -> T | None:
        """The value as it was last loaded, however long ago; None when it is not held."""
        held = self._held.get(key)
        return None if held is None else held.last

    async def get(self, key: K) -> T:
        held = self._held.get(key)
        if held is None:
            held = self._held[key] = self._make(partial(self._load, key))
            if len(self._held) > self._size:
                self._held.popitem(last=False)
        else:
            self._held.move_to_end(key)
        return await held.get()
