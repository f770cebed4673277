"""Waiting for a new block: told by the node where it can tell, asked for at intervals elsewhere."""

import asyncio

import structlog

from keyserver.kit.supervise import pause
from keyserver.watching.ports import BlockRef, ChainSource

#: Told with less time left than this is no sooner than asked, in seconds.
_SOONER = 0.005
_log = structlog.get_logger("keyserver.news")


class News:
    """What a follower waits by. Whatever is wrong with a node's news, blocks are asked for at intervals."""

    def __init__(self, source: ChainSource) -> None:
        self._source = source
        self._told_at: int | None = None
        self._warned = False

    async def wait(self, height: int, tip: BlockRef, *, within: float, stop: asyncio.Event) -> None:
        """Until the node's tip is no longer `tip`, for `within` seconds at most, or until `stop`.

        `height` is ours: a node that told of a block which then was not there, as a balancer's nodes in turn do, is
        not believed the next time.
        """
        if height == self._told_at:
            self._told_at = None
            await pause(within, stop=stop)
            return
        rest = await self._listen(tip, within=within, stop=stop)
        self._told_at = height if rest > _SOONER else None

    async def _listen(self, tip: BlockRef, *, within: float, stop: asyncio.Event) -> float:
        """Seconds that were left when the node told, or `stop` was set."""
        loop = asyncio.get_running_loop()
        end = loop.time() + within
        told = asyncio.create_task(self._source.news(tip, within=within))
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((told, stopped), timeout=within, return_when=asyncio.FIRST_COMPLETED)
            error = told.exception() if told.done() else None
        finally:
            told.cancel()
            stopped.cancel()
            await asyncio.gather(told, stopped, return_exceptions=True)
        if error is not None:
            self._warn(error)
            await pause(end - loop.time(), stop=stop)
        return end - loop.time()

    def _warn(self, error: BaseException) -> None:
        if not self._warned:
            _log.warning("news_failed", error=f"{type(error).__name__}: {error}"[:500])
        self._warned = True
