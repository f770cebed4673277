"""An upstream that plays what a test tells it, faults among it: aiohttp's server on a loopback port."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web
from tests.ports import free_port

KEY = "sk-upstream-key-of-the-tests"
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
USAGE = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}


@dataclass(frozen=True)
class Received:
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


def completion(**members: Any) -> dict[str, Any]:
    """A chat completion of 10 tokens in and 20 out."""
    message = {"role": "assistant", "content": "Hello there"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    document = {"id": "c1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return document | {"usage": USAGE} | members


def chunk(text: str, **members: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]} | members


#: What a stream says last when it was asked for its usage.
USAGE_CHUNK = chunk("", choices=[], usage=USAGE)


def answers(document: Any, *, status: int = 200, headers: Mapping[str, str] = {}) -> Answer:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=status, headers={"content-type": "application/json", **headers})

    return answer


class Stream:
    """Server-sent events, one for each document (or the bytes themselves); then `[DONE]`, or a cut.

    `go_on` is waited for before event number `held_before`, so that a test decides when the rest comes.
    """

    def __init__(self, *events: Any, cut: bool = False, held_before: int | None = None) -> None:
        self._events: Sequence[Any] = events
        self._cut = cut
        self._held_before = held_before
        self.go_on = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        try:
            await response.prepare(request)
            for number, event in enumerate(self._events):
                if number == self._held_before:
                    await self.go_on.wait()
                data = event if isinstance(event, bytes) else f"data: {json.dumps(event)}\n\n".encode()
                await response.write(data)
            if self._held_before == len(self._events):
                await self.go_on.wait()
            if self._cut:
                assert request.transport is not None
                request.transport.abort()
                return response
            await response.write(b"data: [DONE]\n\n")
            await response.write_eof()
        except (ConnectionError, asyncio.CancelledError):
            self.left.set()
            raise
        return response


async def hang_up(request: web.Request) -> web.StreamResponse:
    """Takes the request, and closes the connection without an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def silence(_: web.Request) -> web.StreamResponse:
    """Never answers."""
    await asyncio.sleep(3600)
    return web.Response()


class ScriptedUpstream:
    """`script` holds the answers to come, the last of which is repeated; without any, everything is a completion."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.received: list[Received] = []
        self.script: list[Answer] = []
        self._runner: web.AppRunner | None = None
        self._asked = asyncio.Event()

    async def is_asked(self) -> None:
        """Waits for the first request."""
        async with asyncio.timeout(30):
            await self._asked.wait()

    def plays(self, *script: Answer) -> None:
        self.script = list(script)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(request.path, request.query_string, headers, body))
        self._asked.set()
        if request.path == "/v1/models":
            return await answers({"object": "list", "data": [{"id": "m", "object": "model"}]})(request)
        play = self.script.pop(0) if len(self.script) > 1 else (self.script or [answers(completion())])[0]
        return await play(request)

    async def start(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
