"""HTTP at the edge: request ids, body limits, strict JSON, one log line a request, every error a problem document."""

import re
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import asyncpg
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keyserver.kit import metrics
from keyserver.kit.db import is_unavailable
from keyserver.kit.ids import new_id
from keyserver.kit.logging import log_request
from keyserver.kit.problems import MEDIA_TYPE, BadRequest, PayloadTooLarge, Problem, Unavailable
from keyserver.kit.strict_json import parse_json

MAX_BODY_BYTES = 1024 * 1024
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_log = structlog.get_logger("keyserver.http")


# --- strict JSON ------------------------------------------------------------------------------------------------


class StrictRequest(Request):
    """`malformed` is what is wrong with the body, once it has been read."""

    malformed: BadRequest | None = None

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            try:
                self._json = parse_json(await self.body())
            except BadRequest as error:
                # FastAPI reads the body before it asks who is calling. This text, which is no body of ours, stands for
                # the document until the guards have had their say; then `StrictRoute` raises the problem.
                self.malformed, self._json = error, "malformed"
        return self._json


class StrictRoute(APIRoute):
    """A route whose JSON is read strictly, and as JSON whatever its content type says, as the older service did.

    Callers who may not call learn that first, whatever they sent.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            read = StrictRequest(_called_json(request.scope), request.receive)
            try:
                return await handle(read)
            except RequestValidationError:
                if read.malformed is not None:
                    raise read.malformed from None
                raise

        return strict


def _called_json(scope: Scope) -> Scope:
    """The scope with the one content type that FastAPI reads as JSON."""
    kept = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    scope["headers"] = [*kept, (b"content-type", b"application/json")]
    return scope


async def json_of(request: Request) -> Any:
    """The JSON of a request's body, None when it has none; BadRequest when it is malformed."""
    document = await request.json() if await request.body() else None
    if isinstance(request, StrictRequest) and request.malformed is not None:
        raise request.malformed
    return document


# --- the middleware ---------------------------------------------------------------------------------------------


class RequestContext:
    """Outermost ASGI middleware. Pure ASGI: BaseHTTPMiddleware costs a task and a queue per request.

    Routes below `self_limited` read their bodies within limits of their own.
    """

    def __init__(self, app: ASGIApp, *, max_body_bytes: int = MAX_BODY_BYTES, self_limited: str | None = None) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.self_limited = self_limited

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
        if self.self_limited is not None and scope["path"].startswith(self.self_limited):
            return receive
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > self.max_body_bytes:
            raise self._too_large()
        if b"transfer-encoding" not in headers:
            return receive
        messages: deque[Message] = deque()
        size = 0
        more = True
        while more:
            message = await receive()
            messages.append(message)
            more = message.get("more_body", False)
            size += len(message.get("body", b""))
            if size > self.max_body_bytes:
                raise self._too_large()

        async def replay() -> Message:
            return messages.popleft() if messages else await receive()

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


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods_here(request))
    problem = Problem(str(error.detail), code=_snake(str(error.detail)), headers=headers)
    problem.status, problem.title = error.status_code, str(error.detail)
    return problem_response(problem)


def _methods_here(request: Request) -> list[str]:
    """The methods of every route with this path; Starlette names those of the first one alone."""
    routes = request.app.router.routes
    scopes = {method: {**request.scope, "method": method} for method in _METHODS}
    return [method for method, scope in scopes.items() if any(each.matches(scope)[0] is Match.FULL for each in routes)]


def _snake(sentence: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", sentence.lower()).strip("_")


def install_problem_handlers(app: FastAPI) -> None:
    app.add_exception_handler(Problem, _problem_raised)
    app.add_exception_handler(RequestValidationError, _validation_failed)
    app.add_exception_handler(HTTPException, _http_exception)
