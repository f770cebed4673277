"""`/v1`: OpenAI's paths, served as any client of theirs expects.

Every call to them is charged, so all of them are hot: Starlette's own routes stand in front of FastAPI's, which
document the same functions (see access/hot.py).
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.routing import Route

from keyserver.gateway.call_errors import MethodNotAllowed, ModelNotFound, UnknownUrl
from keyserver.gateway.capabilities import Capability
from keyserver.gateway.errors import openai_body
from keyserver.gateway.payer import payer_of
from keyserver.gateway.proxy import Gateway
from keyserver.kit.http import as_problem

PREFIX = "/v1"
Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class _Call:
    """A path of OpenAI's that is charged; `required` are the members of its body that its document names."""

    path: str
    capability: Capability
    summary: str
    required: tuple[str, ...]
    answer: str = "application/json"


_CALLS = (
    _Call("/chat/completions", Capability.CHAT, "A chat completion, plain or streamed", ("model", "messages")),
    _Call("/completions", Capability.COMPLETIONS, "A text completion, plain or streamed", ("model", "prompt")),
    _Call("/embeddings", Capability.EMBEDDINGS, "Embeddings of texts", ("model", "input")),
    _Call("/images/generations", Capability.IMAGES, "Images from a text", ("model", "prompt")),
    _Call("/audio/speech", Capability.SPEECH, "Speech from a text", ("model", "input", "voice"), "audio/mpeg"),
    _Call("/audio/transcriptions", Capability.TRANSCRIPTIONS, "The text of a recording", ("model", "file")),
)


def _endpoint(path: str, methods: list[str], serve: Endpoint) -> Route:
    """A route whose every error is in OpenAI's shape."""

    async def endpoint(request: Request) -> Response:
        request.scope["route"] = route
        try:
            return await serve(request)
        except Exception as error:  # noqa: BLE001 - the one place where they become answers
            return _failed(error, request)

    endpoint.__name__ = path.strip("/").replace("/", "_")
    route = Route(PREFIX + path, endpoint, methods=methods)
    return route


def _failed(error: Exception, request: Request) -> Response:
    problem = as_problem(error, request_id=request.scope["state"]["request_id"])
    return Response(openai_body(problem), problem.status, problem.headers, "application/json")


def _gateway(request: Request) -> Gateway:
    return cast(Gateway, request.app.state.gateway)


def _billed(call: _Call) -> Route:
    async def serve(request: Request) -> Response:
        return await _gateway(request).answer(request, capability=call.capability, path=call.path)

    return _endpoint(call.path, ["POST"], serve)


async def _list_models(request: Request) -> Response:
    await payer_of(request)
    listed = await _gateway(request).models.get()
    return JSONResponse({"object": "list", "data": list(listed.values())})


async def _get_model(request: Request) -> Response:
    await payer_of(request)
    model = request.path_params["model"]
    listed = await _gateway(request).models.get()
    if model not in listed:
        raise ModelNotFound(model)
    return JSONResponse(listed[model])


async def _unknown(request: Request) -> Response:
    """Whatever no route has taken: another path, or another method of a path of ours."""
    path, method = request.url.path, request.method
    allowed = {name for each in routes if each.path_regex.match(path) for name in each.methods or ()}
    if allowed:
        raise MethodNotAllowed(f"{path} has no {method}", headers={"allow": ", ".join(sorted(allowed))})
    raise UnknownUrl(f"Unknown request URL: {method} {path}")


#: In front of all other routes.
routes = [
    *(_billed(call) for call in _CALLS),
    _endpoint("/models", ["GET"], _list_models),
    _endpoint("/models/{model:path}", ["GET"], _get_model),
]
#: Behind all of them.
unknown_route = _endpoint("/{path:path}", [], _unknown)
unknown_route.methods = None
unknown_route.path_regex = re.compile(f"^{PREFIX}/(?P<path>.*)$", re.DOTALL)  # Starlette's own stops at a line's end


def _documented() -> APIRouter:
    router = APIRouter(prefix=PREFIX, tags=["gateway"])
    for call, route in zip(_CALLS, routes, strict=False):
        router.add_api_route(
            call.path,
            route.endpoint,
            methods=["POST"],
            summary=call.summary,
            response_class=Response,
            responses={200: _answer(call)},
            openapi_extra={"requestBody": _body(call), "parameters": _HEADERS},
        )
    for path, route, summary, extra, answer in (
        ("/models", routes[-2], "The models that are served and priced", {}, _MODELS),
        ("/models/{model:path}", routes[-1], "One of them", _MODEL, _MODELS["properties"]["data"]["items"]),
    ):
        content = {"application/json": {"schema": answer}}
        responses: dict[int | str, dict[str, Any]] = {200: {"description": "As OpenAI tells them", "content": content}}
        router.add_api_route(
            path,
            route.endpoint,
            summary=summary,
            response_class=Response,
            responses=responses,
            openapi_extra=extra,
        )
    return router


_MODEL = {"parameters": [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}]}
_MODELS: dict[str, Any] = {
    "type": "object",
    "required": ["object", "data"],
    "properties": {
        "object": {"const": "list"},
        "data": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["id", "object", "created", "owned_by"],
                "properties": {
                    "id": {"type": "string"},
                    "object": {"const": "model"},
                    "created": {"type": "integer"},
                    "owned_by": {"type": "string"},
                },
            },
        },
    },
}
_HEADERS = [
    {
        "name": name,
        "in": "header",
        "required": False,
        "schema": {"type": "string"},
        "description": what,
    }
    for name, what in (
        ("X-Tenant-Id", "With a platform service's key: the tenant that is billed"),
        ("X-Attribute-To", "With a platform service's key: the tenant that the usage record names"),
        ("Idempotency-Key", "A plain call sent again under it is answered again, and charged once; not for streams"),
    )
]
_CREDITS = {
    name: {"description": what, "schema": {"type": "string", "example": example}}
    for name, what, example in (
        ("X-Credits-Charged", "Dollars, nine decimals; on a stream in a comment line before `[DONE]`", "0.000123400"),
        ("X-Credits-Remaining", "Dollars, nine decimals: balance less pending holds", "4.999876600"),
        ("Idempotency-Replayed", "On an answer that is given again", "true"),
        ("X-RateLimit-Limit", "Calls a minute of this group of capabilities", "60"),
        ("X-RateLimit-Remaining", "How many of them are left", "59"),
        ("X-RateLimit-Reset", "Seconds until one more is free", "60"),
    )
}


#: What errors of these routes look like.
ERROR = {
    "description": "An error in OpenAI's shape",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["error"],
                "properties": {
                    "error": {
                        "type": "object",
                        "required": ["message", "type", "code"],
                        "properties": {
                            "message": {"type": "string"},
                            "type": {"type": "string"},
                            "code": {"type": "string"},
                            "param": {"type": ["string", "null"]},
                        },
                    }
                },
            }
        }
    },
}


def _answer(call: _Call) -> dict[str, Any]:
    content: dict[str, Any] = {call.answer: {"schema": {}}}
    if call.answer == "application/json":
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return {"description": "The upstream's answer, as it is", "headers": _CREDITS, "content": content}


def _body(call: _Call) -> dict[str, Any]:
    properties: dict[str, Any] = {name: {} for name in call.required} | {"model": {"type": "string"}}
    media_type = "application/json"
    if call.capability is Capability.TRANSCRIPTIONS:
        media_type = "multipart/form-data"
        properties["file"] = {"type": "string", "format": "binary"}
    schema = {
        "type": "object",
        "description": "OpenAI's; members are passed on as they are",
        "required": list(call.required),
        "properties": properties,
    }
    return {"required": True, "content": {media_type: {"schema": schema}}}


router = _documented()
