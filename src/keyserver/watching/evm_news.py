"""New blocks as the node tells them, by `eth_subscribe` (geth's pub/sub) over a WebSocket to the node's own URL.

Nothing is kept running: the subscription is made when somebody first waits, its messages stay in the connection until
somebody waits again. Many providers have no such door: one that turns us away is not knocked at again for a while.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping

import aiohttp

from keyserver.watching.evm_wire import read_header
from keyserver.watching.ports import BlockRef, SourceError

#: Seconds until a node that does not know subscriptions is asked again, and one that could not be reached.
REFUSED_PAUSE = 600.0
_LOST_PAUSE = 1.0
_OPENING = 5.0
_SILENCE = 20.0  # between two pings
_SUBSCRIBE = {"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]}


class _Refused(Exception):
    """The node answers, but not as one that tells new blocks."""


class NewHeads:
    """`url` is the node's JSON-RPC URL (http or https); user and password in it are sent as Basic authentication."""

    def __init__(
        self, url: str, *, headers: Mapping[str, str], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = "ws" + url.removeprefix("http")
        self._headers = dict(headers)
        self._monotonic = monotonic
        self._not_before = 0.0
        self._session: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._closed = False

    @property
    def stands(self) -> bool:
        return self._socket is not None and not self._socket.closed

    @property
    def pause(self) -> float:
        """Seconds until it makes sense to try again, never none at all."""
        return REFUSED_PAUSE if self._closed else max(0.05, self._not_before - self._monotonic())

    async def subscribed(self) -> bool | None:
        """True when a subscription stands since before, None when it was made just now, False when there is none."""
        if self.stands:
            return True
        if self._closed or self._monotonic() < self._not_before:
            return False
        try:
            async with asyncio.timeout(_OPENING):
                self._socket = await self._subscribe()
        except (_Refused, aiohttp.WSServerHandshakeError):
            await self._lose(REFUSED_PAUSE)
            return False
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            await self._lose(_LOST_PAUSE)
            return False
        return None

    async def after(self, tip: BlockRef) -> bool:
        """Waits until the node tells of another newest block; False when the connection was lost first.

        Blocks below the tip are old news, which came while nobody was waiting.
        """
        socket = self._socket
        while socket is not None:
            message = await socket.receive()
            if message.type is not aiohttp.WSMsgType.TEXT:
                break
            head = _head(message.data)
            if head is not None and head.height >= tip.height and head.hash != tip.hash:
                return True
        await self._lose(_LOST_PAUSE)
        return False

    async def close(self) -> None:
        self._closed = True
        await self._lose(0.0)
        if self._session is not None:
            await self._session.close()

    async def _subscribe(self) -> aiohttp.ClientWebSocketResponse:
        if self._session is None:
            self._session = aiohttp.ClientSession(headers=self._headers)
        socket = await self._session.ws_connect(self._url, heartbeat=_SILENCE)
        try:
            await socket.send_json(_SUBSCRIBE)
            message = await socket.receive()
            if message.type is not aiohttp.WSMsgType.TEXT:
                raise aiohttp.ClientConnectionError
            answer = json.loads(message.data)
            if not isinstance(answer, dict) or not isinstance(answer.get("result"), str):
                raise _Refused
        except BaseException:
            await socket.close()
            raise
        return socket

    async def _lose(self, pause: float) -> None:
        self._not_before = self._monotonic() + pause
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()


def _head(text: str) -> BlockRef | None:
    """The block in an eth_subscription notification."""
    try:
        header = read_header(json.loads(text)["params"]["result"])
    except (ValueError, KeyError, TypeError, SourceError):
        return None
    return BlockRef(header.height, header.hash)
