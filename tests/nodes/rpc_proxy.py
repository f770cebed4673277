"""A door in front of a real node, on loopback, that refuses some methods as providers do and counts the others."""

from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from aiohttp import web
from tests.nodes.rpc_server import http_server

#: The methods by which nodes show internal calls.
TRACING = ("debug_traceBlockByHash", "trace_block")


@dataclass
class Door:
    """`refused` may be changed at any time; `asked` counts calls by method."""

    refused: set[str]
    url: str = ""
    asked: Counter[str] = field(default_factory=Counter)


@asynccontextmanager
async def door_before(node_url: str, *, refusing: Collection[str] = TRACING) -> AsyncIterator[Door]:
    door = Door(set(refusing))
    async with httpx.AsyncClient(trust_env=False, timeout=30.0) as client:

        async def answer(call: dict[str, Any]) -> Any:
            door.asked[call["method"]] += 1
            if call["method"] in door.refused:
                error = {"code": -32601, "message": f"the method {call['method']} does not exist/is not available"}
                return {"jsonrpc": "2.0", "id": call["id"], "error": error}
            return (await client.post(node_url, json=call)).json()

        async def handle(request: web.Request) -> web.Response:
            asked = await request.json()
            if isinstance(asked, list):
                return web.json_response([await answer(call) for call in asked])
            return web.json_response(await answer(asked))

        async with http_server(handle) as door.url:
            yield door
