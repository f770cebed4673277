"""HTTP at the edge: request ids, body limits, strict JSON, one log line a request, every error a problem document."""

import json
import re
import time
from collections.abc import Callable, Coroutine
from typing import Any

import asyncpg
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keyserver.kit import metrics
from keyserver.kit.db import is_unavailable
from keyserver.kit.ids import new_id
from keyserver.kit.logging import log_request
from keyserver.kit.problems import MEDIA_TYPE, BadRequest, PayloadTooLarge, Problem, Unavailable

MAX_BODY_BYTES = 1024 * 1024
_SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_log = structlog.get_logger("keyserver.http")


# --- strict JSON ------------------------------------------------------------------------------------------------


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def parse_json(body: bytes) -> Any:
    """JSON as RFC 8259 has it and PostgreSQL can keep it: no NaN, no NUL, no lone surrogate. Raises BadRequest."""
    try:
        document = json.loads(body, parse_constant=_refuse_constant)
    except RecursionError:
        raise BadRequest.at("", "The body is nested too deeply", code="malformed_json") from None
    except ValueError as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "not valid JSON"
        raise BadRequest.at("", f"The body is not valid JSON: {reason}", code="malformed_json") from None
    if b"\\u" in body and _has_unstorable_text(document):
        raise BadRequest.at(
            "", "The body has a NUL character or half a surrogate pair in a string", code="malformed_json"
        )
    return document


def _has_unstorable_text(document: Any) -> bool:
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
                return True
        elif isinstance(value, dict):
            waiting += value.keys()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return False


class StrictRequest(Request):
    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = parse_json(await self.body())
        return self._json


class StrictRoute(APIRoute):
    """A route whose JSON is read strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return strict


# --- the middleware ---------------------------------------------------------------------------------------------


class RequestContext:
    """Outermost ASGI middleware. Pure ASGI: BaseHTTPMiddleware costs a task and a queue per request."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _request_id(scope)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            try:
                _refuse_nul(scope)
                limited = await self._limited(scope, receive)
                await self.app(scope, limited, send_with_id)
            except Exception as error:
                if status:
                    raise
                await send_problem(as_problem(error, request_id=request_id), send_with_id)
        finally:
            _observe(scope, request_id=request_id, status=status or 499, seconds=time.perf_counter() - started)

    async def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """`receive` for a body that is small enough: the server enforces a declared length, we a chunked one."""
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > self.max_body_bytes:
            raise self._too_large()
        if b"transfer-encoding" not in headers:
            return receive
        messages: list[Message] = []
        size = 0
        more = True
        while more:
            message = await receive()
            messages.insert(0, message)
            more = message.get("more_body", False)
            size += len(message.get("body", b""))
            if size > self.max_body_bytes:
                raise self._too_large()

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        return replay

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"The request body is over {self.max_body_bytes} bytes")


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SANE_REQUEST_ID.fullmatch(value):
            return str(value, "ascii")
    return new_id("req")


def _refuse_nul(scope: Scope) -> None:
    if "\x00" in scope["path"] or b"%00" in scope["query_string"]:
        raise BadRequest("The URL has a NUL character in it")


def _observe(scope: Scope, *, request_id: str, status: int, seconds: float) -> None:
    state = scope["state"]
    route = getattr(scope.get("route"), "path", "(none)")
    method = scope["method"]
    metrics.observe_request(method, route, status, seconds)
    log_request(
        request_id=request_id,
        tenant=state.get("tenant"),
        method=method,
        route=route,
        status=status,
        duration_ms=round(seconds * 1000, 3),
    )


# --- problems ---------------------------------------------------------------------------------------------------


def as_problem(error: Exception, *, request_id: str) -> Problem:
    """The problem document for any exception; what we did not expect is logged whole and answered without detail."""
    if isinstance(error, Problem):
        return error
    cause = error.orig.__cause__ if isinstance(error, DBAPIError) and error.orig is not None else error
    if is_unavailable(error):
        _log.warning("database_unavailable", request_id=request_id, error=type(cause).__name__)
        return Unavailable("The database does not answer right now; try again shortly", code="database_unavailable")
    if isinstance(cause, asyncpg.DataError):
        return BadRequest("The request holds a value that cannot be stored")
    _log.error("unhandled_error", request_id=request_id, exc_info=error)
    return Problem()


async def send_problem(problem: Problem, send: Send) -> None:
    headers = [(b"content-type", MEDIA_TYPE.encode())]
    headers += [(name.encode(), value.encode()) for name, value in problem.headers.items()]
    body = problem.body()
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def problem_response(problem: Problem) -> Response:
    return Response(problem.body(), status_code=problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


def _pointer(location: tuple[Any, ...]) -> str:
    """JSON pointer of a member of the body; `#query/limit` style for the other places."""
    place, *rest = location
    path = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in rest)
    return path if place == "body" else f"#{place}{path}"


async def _validation_failed(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [
        {"pointer": _pointer(tuple(item["loc"])), "detail": item["msg"].removeprefix("Value error, ")}
        for item in error.errors()
    ]
    first = errors[0]
    name = first["pointer"].rpartition("/")[2]
    sentence = f"{name}: {first['detail']}" if name else first["detail"]
    return problem_response(BadRequest(sentence, errors=errors))


async def _problem_raised(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return problem_response(error)


async def _http_exception(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    problem = Problem(str(error.detail), code=_snake(str(error.detail)), headers=dict(error.headers or {}))
    problem.status, problem.title = error.status_code, str(error.detail)
    return problem_response(problem)


def _snake(sentence: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", sentence.lower()).strip("_")


def install_problem_handlers(app: FastAPI) -> None:
    app.add_exception_handler(Problem, _problem_raised)
    app.add_exception_handler(RequestValidationError, _validation_failed)
    app.add_exception_handler(HTTPException, _http_exception)
