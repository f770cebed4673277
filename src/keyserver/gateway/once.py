"""`Idempotency-Key` on `/v1`: a plain call that is sent again gets the first answer again, and is charged once.

A call may take minutes, so a running twin is told by a row, and not by a lock that would need its transaction open:
claimed before the call, filled with the answer in the transaction of the debit, given up when the call fails. The claim
of a process that was killed ends with its hold. The rows are those of access/idempotency.py.

Streams are no part of this: each is a call of its own.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

import orjson
import structlog
from fastapi import Request, Response

from keyserver.access.errors import IdempotencyKeyReused, TwinInProgress
from keyserver.access.idempotency import idempotency_key, tenant_scope
from keyserver.gateway.multipart import without_boundary
from keyserver.gateway.payer import Payer
from keyserver.gateway.requests import Incoming
from keyserver.kit.db import Connection, Database
from keyserver.kit.secrets import MasterKey

_log = structlog.get_logger("keyserver.gateway")
#: Stands in a claim's row for the status of the answer to come.
_RUNNING = 102
_OF_THE_MOMENT = (b"x-ratelimit-", b"x-credits-remaining")
_CLAIM = f"""
    INSERT INTO idempotent_answers AS kept (scope, key, request_digest, status, body_encrypted, created_at)
    VALUES ($1, $2, $3, {_RUNNING}, '', $4)
    ON CONFLICT (scope, key) DO UPDATE SET request_digest = excluded.request_digest, created_at = excluded.created_at
     WHERE kept.status = {_RUNNING} AND kept.created_at < $5
    RETURNING true
"""  # noqa: S608 - a constant
_KEPT = "SELECT request_digest, status, body_encrypted FROM idempotent_answers WHERE scope = $1 AND key = $2"
_OURS = f"scope = $1 AND key = $2 AND status = {_RUNNING} AND created_at = $3"
_FILL = f"UPDATE idempotent_answers SET status = $4, body_encrypted = $5 WHERE {_OURS}"  # noqa: S608 - a constant
_GIVE_UP = f"DELETE FROM idempotent_answers WHERE {_OURS}"  # noqa: S608 - a constant


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to answer under a key, until it is filled or given up; `claimed_at` tells it from a later one."""

    scope: str
    key: str
    claimed_at: datetime


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer on its way to its claim's row: headers and body, encrypted together."""

    claim: Claim
    status: int
    encrypted: bytes = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """For the local journal; `from_json` reads it back."""
        return asdict(self) | {"encrypted": self.encrypted.decode()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "KeptAnswer":
        scope, key, claimed_at = (document["claim"][name] for name in ("scope", "key", "claimed_at"))
        claim = Claim(scope, key, datetime.fromisoformat(claimed_at))
        return cls(claim, document["status"], document["encrypted"].encode())


class Once:
    """Claims and kept answers. `lifetime`: how long a claim may stand whose process was killed."""

    def __init__(self, database: Database, *, master: MasterKey, lifetime: timedelta) -> None:
        self._database = database
        self._master = master
        self._lifetime = lifetime

    async def claim(
        self, request: Request, payer: Payer, incoming: Incoming, *, now: datetime
    ) -> Claim | Response | None:
        """A new claim, or the answer that was kept; None without a key, and for a stream.

        Raises BadRequest for what cannot be a key, IdempotencyKeyReused, and TwinInProgress.
        """
        key = idempotency_key(request)
        if key is None or incoming.streamed:
            return None
        claim = Claim(tenant_scope(payer.tenant_id), key, now)
        wanted = _digest(request, incoming)
        async with self._database.connection() as connection:
            if await connection.fetchval(_CLAIM, claim.scope, key, wanted, now, now - self._lifetime):
                return claim
            kept = await connection.fetchrow(_KEPT, claim.scope, key)
        if kept is None:  # the twin has just given up
            raise TwinInProgress
        if kept["request_digest"] != wanted:
            raise IdempotencyKeyReused
        if kept["status"] == _RUNNING:
            raise TwinInProgress
        return _Replayed(kept["status"], self._master.decrypt(kept["body_encrypted"]))

    def answer(self, claim: Claim, response: Response) -> KeptAnswer:
        """What is kept of an answer: all but the state of the rate limit and the credit, which will be another."""
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in response.raw_headers
            if not name.startswith(_OF_THE_MOMENT)
        ]
        document = orjson.dumps(headers) + b"\n" + bytes(response.body)
        return KeptAnswer(claim, response.status_code, self._master.encrypt(document))

    async def give_up(self, claim: Claim) -> None:
        """The key is free again; at the latest when the claim's lifetime is over, so that nothing is raised here."""
        try:
            async with self._database.connection() as connection:
                await connection.execute(_GIVE_UP, claim.scope, claim.key, claim.claimed_at)
        except Exception as error:  # noqa: BLE001
            _log.warning("claim_not_given_up", error=f"{type(error).__name__}: {error}"[:300])


async def keep(connection: Connection, answer: KeptAnswer) -> None:
    """In the transaction of the debit. Nothing where the claim has ended meanwhile."""
    claim = answer.claim
    await connection.execute(_FILL, claim.scope, claim.key, claim.claimed_at, answer.status, answer.encrypted)


class _Replayed(Response):
    def __init__(self, status: int, document: bytes) -> None:
        head, _, body = document.partition(b"\n")
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in orjson.loads(head)]
        self.status_code = status
        self.body = body
        self.background = None
        self.raw_headers = [*headers, (b"idempotency-replayed", b"true")]


def _digest(request: Request, incoming: Incoming) -> bytes:
    """SHA-256 of method, path and the body's meaning: a form's boundary, white space and order say nothing."""
    if incoming.is_form:
        meaning = without_boundary(incoming.body, content_type=request.headers["content-type"])
    else:
        meaning = json.dumps(incoming.document, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(f"{request.method} {request.url.path} ".encode() + meaning).digest()
