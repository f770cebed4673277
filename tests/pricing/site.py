"""A price source's web site on loopback."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Site:
    """Answers every request in the way set last, and remembers what was asked."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        self.url = ""
        self._answer: Answer | None = None

    def answers(self, body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()

        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(body=raw, status=status, headers=headers, content_type="application/json")

        self._answer = answer

    def answers_with(self, answer: Answer) -> None:
        self._answer = answer

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        assert self._answer is not None
        return await self._answer(request)


@asynccontextmanager
async def a_site() -> AsyncIterator[Site]:
    site = Site()
    application = web.Application()
    application.router.add_get("/{path:.*}", site.handle)
    async with TestServer(application) as server:
        site.url = str(server.make_url("/"))
        yield site
