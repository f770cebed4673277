"""A JSON-RPC server on loopback that answers what the test says, for what no real node can be made to do."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Fault:
    """An error as bitcoind answers it."""

    code: int
    message: str


#: JSON text, so that a number is written as a node writes it.
Answer = str | Fault


@asynccontextmanager
async def http_server(handler: Handler) -> AsyncIterator[str]:
    """`http://127.0.0.1:port` of a server whose every path is answered by `handler`."""

    async def dispatch(request: web.Request) -> web.StreamResponse:  # aiohttp takes no other callables
        return await handler(request)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", dispatch)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@dataclass
class ScriptedNode:
    """`answers` by method: an answer, or a function of the parameters. `requests` are the bodies it got, parsed."""

    answers: Mapping[str, Answer | Callable[..., Answer]]
    requests: list[Any] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    @property
    def calls(self) -> list[tuple[str, list[Any]]]:
        """Method and parameters of every call, those in batches too."""
        flat = [call for body in self.requests for call in (body if isinstance(body, list) else [body])]
        return [(call["method"], call["params"]) for call in flat]

    def methods(self) -> list[str]:
        return [method for method, _ in self.calls]

    async def __call__(self, request: web.Request) -> web.Response:
        body = json.loads(await request.text())
        self.requests.append(body)
        self.headers.append(request.headers)
        self.paths.append(request.path_qs)
        if isinstance(body, list):
            return _json("[" + ",".join(self._envelope(call)[1] for call in body) + "]")
        status, text = self._envelope(body)
        return _json(text, status=status)

    def _envelope(self, call: Mapping[str, Any]) -> tuple[int, str]:
        answer = self.answers[call["method"]]
        if callable(answer):
            answer = answer(*call["params"])
        if isinstance(answer, Fault):
            error = json.dumps({"code": answer.code, "message": answer.message})
            return 500, f'{{"result": null, "error": {error}, "id": {call["id"]}}}'
        return 200, f'{{"result": {answer}, "error": null, "id": {call["id"]}}}'


def _json(text: str, *, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status, content_type="application/json")
