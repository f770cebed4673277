"""What hot requests read from memory: how old it may be, and what waiting together means."""

import asyncio

import pytest

from keyserver.kit.cache import KeyedCache, Snapshot


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Source:
    """Answers with how often it was asked, when it is let to."""

    def __init__(self) -> None:
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()
        self.error: Exception | None = None

    async def load(self) -> int:
        self.asked += 1
        answer = self.asked
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return answer


async def test_a_value_is_used_until_it_is_as_old_as_its_lifetime() -> None:
    time, source = Time(), Source()
    snapshot = Snapshot(source.load, lifetime=0.2, monotonic=time)
    assert [await snapshot.get(), await snapshot.get()] == [1, 1]
    time.now += 0.19
    assert await snapshot.get() == 1
    time.now += 0.02
    assert await snapshot.get() == 2


async def test_age_is_counted_from_before_the_query_began() -> None:
    time, source = Time(), Source()
    snapshot = Snapshot(source.load, lifetime=0.2, monotonic=time)
    source.open.clear()
    first = asyncio.create_task(snapshot.get())
    await asyncio.sleep(0.01)
    time.now += 0.3
    source.open.set()
    assert await first == 1
    assert await snapshot.get() == 2


async def test_who_comes_while_a_load_runs_shares_it() -> None:
    source = Source()
    snapshot = Snapshot(source.load)
    source.open.clear()
    waiting = [asyncio.create_task(snapshot.get()) for _ in range(50)]
    await asyncio.sleep(0)
    source.open.set()
    assert set(await asyncio.gather(*waiting)) == {1}


async def test_a_load_that_began_too_long_ago_is_waited_for_and_not_used() -> None:
    time, source = Time(), Source()
    snapshot = Snapshot(source.load, lifetime=0.0, monotonic=time)
    source.open.clear()
    early = asyncio.create_task(snapshot.get())
    await asyncio.sleep(0.01)
    time.now += 1.0
    late = asyncio.create_task(snapshot.get())
    await asyncio.sleep(0.01)
    source.open.set()
    assert (await early, await late) == (1, 2)


async def test_everyone_who_waited_for_a_load_shares_its_failure_and_it_is_not_kept() -> None:
    source = Source()
    snapshot = Snapshot(source.load)
    source.open.clear()
    source.error = OSError("down")
    waiting = [asyncio.create_task(snapshot.get()) for _ in range(20)]
    await asyncio.sleep(0.01)
    source.open.set()
    failures = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in failures] == [OSError] * 20
    assert source.asked == 1
    source.error = None
    assert await snapshot.get() == 2


async def test_a_caller_who_goes_away_takes_the_load_from_nobody() -> None:
    source = Source()
    snapshot = Snapshot(source.load)
    source.open.clear()
    first, second = (asyncio.create_task(snapshot.get()) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    source.open.set()
    assert await second == 1
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_keyed_cache_never_extends_the_life_of_an_entry_and_forgets_the_oldest() -> None:
    time = Time()
    loads: list[str] = []

    async def load(key: str) -> int:
        loads.append(key)
        return len(loads)

    cache = KeyedCache(load, size=2, lifetime=0.2, monotonic=time)
    assert [await cache.get("a"), await cache.get("a")] == [1, 1]
    time.now += 0.15
    assert await cache.get("a") == 1
    time.now += 0.1
    assert await cache.get("a") == 2
    await cache.get("b")
    await cache.get("c")
    assert await cache.get("b") == 3
    await cache.get("a")
    assert loads == ["a", "a", "b", "c", "a"]


async def test_who_asks_for_the_same_key_while_it_loads_shares_the_load_and_another_key_has_its_own() -> None:
    loads: list[str] = []

    async def load(key: str) -> str:
        loads.append(key)
        await asyncio.sleep(0)
        return key

    cache = KeyedCache(load)
    assert await asyncio.gather(*(cache.get(key) for key in "aabab")) == list("aabab")
    assert loads == ["a", "b"]
