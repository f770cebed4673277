"""`Idempotency-Key`: the same request again gets the first answer again, and has no second effect.

The answer is kept in the transaction of the effect, so neither is there without the other. Refusals are not kept:
sent again, the request is judged anew. A twin that is still running holds an advisory lock of the transaction, which
is how the second one knows at once, without waiting.
"""

import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from datetime import datetime, timedelta
from typing import Any, cast

import orjson
from fastapi import Request, Response
from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.access.errors import IdempotencyKeyReused, TwinInProgress
from keyserver.access.models import IdempotentAnswer
from keyserver.kit.db import Connect, driver_connection
from keyserver.kit.deps import clock_of, database_of
from keyserver.kit.http import json_of
from keyserver.kit.problems import BadRequest
from keyserver.kit.secrets import MasterKey

KEPT_FOR = timedelta(hours=48)
_KEY = re.compile(r"[\x20-\x7e]{1,255}")

#: Does the request's work inside the transaction; gives the status and the JSON document of the answer.
Work = Callable[[AsyncSession], Awaitable[tuple[int, Any]]]
HotWork = Callable[[Connect], Awaitable[tuple[int, Any]]]


def idempotency_key(request: Request) -> str | None:
    """The caller's key; BadRequest when it cannot be one."""
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise BadRequest("Idempotency-Key must be 1 to 255 printable ASCII characters", code="invalid_idempotency_key")
    return key


def tenant_scope(tenant_id: str) -> str:
    """Whose keys a tenant's are. No id has a space in it, so that a tenant called `admin` is not the operator."""
    return f"tenant {tenant_id}"


async def kept_answer(request: Request, *, scope: str) -> Response | None:
    """The first answer to this `Idempotency-Key`, if there is one.

    For routes that look at anything but the request before they call `answer_once`: what was promised once is
    answered again, although the price is gone or the payment method is disabled meanwhile.
    """
    key = idempotency_key(request)
    if key is None:
        return None
    async with database_of(request).transaction() as session:
        return await _replay(request, session, scope=scope, key=key, wanted=await _digest(request))


async def answer_once(request: Request, work: Work, *, scope: str) -> Response:
    """Runs `work` in one transaction and answers with what it gives; with an `Idempotency-Key` at most once.

    `scope` is whose keys these are: a tenant's id, or `admin`. The answer is sent after the commit.
    """
    key = idempotency_key(request)
    if key is None:
        async with database_of(request).transaction() as session:
            status, document = await work(session)
        return json_response(status, _json_bytes(document))
    wanted = await _digest(request)
    async with database_of(request).transaction() as session:
        lock = func.pg_try_advisory_xact_lock(func.hashtextextended(f"{scope}\x1f{key}", 0))
        if not await session.scalar(select(lock)):
            raise TwinInProgress
        if (kept := await _replay(request, session, scope=scope, key=key, wanted=wanted)) is not None:
            return kept
        status, document = await work(session)
        body = _json_bytes(document)
        session.add(
            IdempotentAnswer(
                scope=scope,
                key=key,
                request_digest=wanted,
                status=status,
                body_encrypted=_master_key(request).encrypt(body),
                created_at=clock_of(request)(),
            )
        )
    return json_response(status, body)


async def answer_hot(request: Request, work: HotWork, *, scope: str) -> Response:
    """As `answer_once`, for work of few single statements: without a key it runs in autocommit, outside a session."""
    if idempotency_key(request) is None:
        status, document = await work(database_of(request).connection)
        return json_response(status, _json_bytes(document))

    async def in_session(session: AsyncSession) -> tuple[int, Any]:
        connection = await driver_connection(session)
        return await work(lambda: nullcontext(connection))

    return await answer_once(request, in_session, scope=scope)


def json_response(status: int, body: bytes, *, replayed: bool = False) -> Response:
    headers = {"idempotency-replayed": "true"} if replayed else None
    return Response(body, status_code=status, media_type="application/json", headers=headers)


async def _replay(request: Request, session: AsyncSession, *, scope: str, key: str, wanted: bytes) -> Response | None:
    kept = await session.get(IdempotentAnswer, (scope, key))
    if kept is None:
        return None
    if kept.request_digest != wanted:
        raise IdempotencyKeyReused
    return json_response(kept.status, _master_key(request).decrypt(kept.body_encrypted), replayed=True)


def _master_key(request: Request) -> MasterKey:
    return cast(MasterKey, request.app.state.master_key)


def _json_bytes(document: Any) -> bytes:
    try:
        return orjson.dumps(document)
    except TypeError:  # orjson writes no integer of more than 64 bits, and a caller's metadata may hold one
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


async def _digest(request: Request) -> bytes:
    """SHA-256 of method, path and the JSON's meaning: white space and the order of members make no other request."""
    canonical = json.dumps(await json_of(request), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{request.method} {request.url.path} {canonical}".encode()).digest()


async def forget_old_answers(session: AsyncSession, *, now: datetime) -> None:
    await session.execute(delete(IdempotentAnswer).where(IdempotentAnswer.created_at < now - KEPT_FOR))
