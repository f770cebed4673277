"""Waiting for a block: at once when the node tells, by the interval when it does not, cannot, or tells nonsense."""

import asyncio
import time
from dataclasses import dataclass, field

from tests.watching.chain_in_memory import ChainInMemory

from keyserver.watching.news import News
from keyserver.watching.ports import BlockRef

TIP = BlockRef(7, "seven")
LONG = 60.0


@dataclass
class Telling(ChainInMemory):
    """`told` is set by the test; `breaks` raises instead; `asked` counts."""

    told: asyncio.Event = field(default_factory=asyncio.Event)
    breaks: bool = False
    asked: int = 0

    async def news(self, tip: BlockRef, *, within: float) -> None:  # noqa: ARG002 - the port's signature
        self.asked += 1
        assert tip == TIP
        if self.breaks:
            raise RuntimeError("a bug")
        await self.told.wait()


async def wait(news: News, *, height: int = 7, within: float = LONG, stop: asyncio.Event | None = None) -> float:
    began = time.monotonic()
    async with asyncio.timeout(20):
        await news.wait(height, TIP, within=within, stop=stop or asyncio.Event())
    return time.monotonic() - began


async def test_a_node_that_tells_ends_the_wait_at_once() -> None:
    source = Telling()
    waiting = asyncio.create_task(wait(News(source)))
    await asyncio.sleep(0)
    source.told.set()
    assert await waiting < LONG / 10


async def test_a_node_that_says_nothing_is_asked_after_the_interval_and_not_before() -> None:
    assert await wait(News(Telling()), within=0.1) >= 0.1
    assert await wait(News(ChainInMemory()), within=0.1) >= 0.09


async def test_news_that_break_are_waited_out() -> None:
    source = Telling(breaks=True)
    news = News(source)
    for _ in range(2):
        assert await wait(news, within=0.1) >= 0.09
    assert source.asked == 2


async def test_a_node_that_told_of_a_block_which_was_not_there_is_not_believed_the_next_time() -> None:
    source = Telling()
    source.told.set()
    news = News(source)
    assert await wait(news) < LONG / 10
    assert await wait(news, within=0.1) >= 0.09, "the height is the same: there was nothing"
    assert await wait(news) < LONG / 10
    assert await wait(news, height=8) < LONG / 10, "there was a block"


async def test_the_end_is_not_waited_for() -> None:
    stop = asyncio.Event()
    waiting = asyncio.create_task(wait(News(Telling()), stop=stop))
    await asyncio.sleep(0)
    stop.set()
    assert await waiting < LONG / 10
