"""Being told of a new block by bitcoind, instead of asking again and again."""

import asyncio

from keyserver.watching.bitcoind_rpc import METHOD_NOT_FOUND, NodeRpc, Refused
from keyserver.watching.ports import BlockRef, SourceError

#: Seconds of one wait: shorter than a node's own -rpcservertimeout (30), which may close a connection that is silent.
LONGEST_WAIT = 20.0
#: Seconds by which the node's wait ends before ours, so that it answers and the connection can be used again.
_MARGIN = 0.05


class BlockNews:
    """Waits with `waitfornewblock`, a hidden call of Bitcoin Core since 0.14 and of its relatives.

    A waiting call holds one of the node's RPC threads (-rpcthreads, 4 by default), never for longer than it was asked
    to. `rpc` must be this object's own, so that waiting does not stand in the way of other calls.
    """

    def __init__(self, rpc: NodeRpc) -> None:
        self._rpc = rpc
        self._waiting: set[asyncio.Task[None]] = set()
        self._is_told = True

    def forget_abilities(self) -> None:
        """Tries to be told again: another node, or another version, may answer from now on."""
        self._is_told = True

    async def wait(self, tip: BlockRef, *, within: float) -> None:
        """As the port's `news`; ends when `close` is called, too."""
        task = asyncio.create_task(self._wait(tip, within=within))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()
        if not task.cancelled():
            task.result()

    async def close(self) -> None:
        for task in self._waiting:
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)
        await self._rpc.close()

    async def _wait(self, tip: BlockRef, *, within: float) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + within
        try:
            async with asyncio.timeout_at(deadline):
                while self._is_told and (left := deadline - clock() - _MARGIN) > 0:
                    began, seconds = clock(), min(left, LONGEST_WAIT)
                    if await self._has_moved(tip, within=seconds):
                        return
                    if clock() - began < seconds / 2:
                        break  # it does not wait: asking again at once would keep both busy
        except TimeoutError:
            return
        except SourceError as error:  # whatever else it is, the follower's next call says it
            self._is_told = not (isinstance(error, Refused) and error.code == METHOD_NOT_FOUND)
        await asyncio.sleep(deadline - clock())

    async def _has_moved(self, tip: BlockRef, *, within: float) -> bool:
        """Asked first, since the node tells only of blocks that come after it began to wait."""
        if await self._rpc.call("getbestblockhash") != tip.hash:
            return True
        best = await self._rpc.call("waitfornewblock", max(1, int(within * 1000)))  # 0 would mean for ever
        return isinstance(best, dict) and best.get("hash") != tip.hash
