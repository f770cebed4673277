"""A trivial OpenAI-compatible upstream, in a process of its own: `python -m bench.upstream PORT`.

A protocol on asyncio, with nothing in the way: what is measured is the gateway. A stream has 20 events, 5 ms apart.
"""

import asyncio
import json
import sys
from typing import cast

MODEL = "bench"
EVENTS = 20
_PAUSE_SECONDS = 0.005
_USAGE = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}


def _answer(content_type: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _event(text: bytes) -> bytes:
    data = b"data: " + text + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


_PLAIN = _answer(
    "application/json",
    json.dumps(
        {
            "id": "c1",
            "object": "chat.completion",
            "created": 1,
            "model": MODEL,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
            "usage": _USAGE,
        }
    ).encode(),
)
_CHUNK = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
_DELTA = _event(json.dumps({**_CHUNK, "choices": [{"index": 0, "delta": {"content": "word "}}]}).encode())
_LAST = _event(json.dumps({**_CHUNK, "choices": [], "usage": _USAGE}).encode()) + _event(b"[DONE]") + b"0\r\n\r\n"
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class _Connection(asyncio.Protocol):
    """One request at a time: headers, then as many bytes of body as they say."""

    def __init__(self) -> None:
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own is no subclass of it

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._received[:end]).lower()
        _, found, rest = head.partition(b"content-length:")
        length = int(rest.split(b"\r\n", 1)[0]) if found else 0
        if len(self._received) < end + 4 + length:
            return
        body = bytes(self._received[end + 4 : end + 4 + length])
        del self._received[: end + 4 + length]
        if b'"stream":true' in body:
            self._transport.write(_STREAM_HEAD + _DELTA)
            self._next(EVENTS - 1)
        else:
            self._transport.write(_PLAIN)

    def _next(self, left: int) -> None:
        if left == 0:
            self._transport.write(_LAST)
        else:
            asyncio.get_running_loop().call_later(_PAUSE_SECONDS, self._send, left)

    def _send(self, left: int) -> None:
        self._transport.write(_DELTA)
        self._next(left - 1)


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve(int(sys.argv[1])))
