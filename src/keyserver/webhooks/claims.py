"""Taking due deliveries, and writing down what became of them. Each is one statement, so also one transaction.

`next_attempt_at` is the claim: it is moved behind the time-out before the call. Whoever dies in between leaves a
delivery that becomes due again by itself, with the same id.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from keyserver.kit.db import Connection
from keyserver.webhooks.models import DeliveryStatus

#: Due rows looked at for one claim. Receivers without a free slot are passed over before they are counted.
LOOKAHEAD = 500

_CLAIM = """
WITH seen AS MATERIALIZED (
    SELECT id, receiver, next_attempt_at
    FROM webhook_deliveries
    WHERE status = 'pending' AND next_attempt_at <= $1 AND receiver <> ALL ($3::text[])
    ORDER BY next_attempt_at
    LIMIT $8
), placed AS (
    SELECT id, next_attempt_at,
           coalesce(taken.slots, 0)
           + row_number() OVER (PARTITION BY receiver ORDER BY next_attempt_at, id) AS place
    FROM seen LEFT JOIN unnest($4::text[], $5::integer[]) AS taken (receiver, slots) USING (receiver)
), chosen AS (
    SELECT id FROM placed WHERE place <= $6 ORDER BY place, next_attempt_at, id LIMIT $7
), locked AS (
    SELECT id FROM webhook_deliveries JOIN chosen USING (id)
    WHERE status = 'pending' AND next_attempt_at <= $1
    FOR UPDATE OF webhook_deliveries SKIP LOCKED
), claimed AS (
    UPDATE webhook_deliveries AS delivery SET next_attempt_at = $2
    FROM locked WHERE delivery.id = locked.id
    RETURNING delivery.id, signing_tenant_id, receiver, url, payload::text AS payload, attempts
)
SELECT claimed.*, version, rotated_at, (SELECT count(*) FROM chosen) AS chosen
FROM (VALUES (1)) AS always LEFT JOIN claimed ON true LEFT JOIN webhook_secrets ON tenant_id = signing_tenant_id
"""

_RECORD = """
WITH recorded AS (
    UPDATE webhook_deliveries
    SET status = $3, attempts = attempts + 1, next_attempt_at = coalesce($4, next_attempt_at), finished_at = $5,
        last_status_code = $8, last_error = $9
    WHERE id = $1 AND attempts = $2 AND status = 'pending'
    RETURNING id
)
INSERT INTO webhook_attempts (delivery_id, attempt, attempted_at, duration_ms, status_code, error)
SELECT id, (SELECT coalesce(max(attempt), 0) + 1 FROM webhook_attempts WHERE delivery_id = $1), $6, $7, $8, $9
FROM recorded
RETURNING attempt
"""


@dataclass(frozen=True, slots=True)
class Rotated:
    version: int
    rotated_at: datetime


@dataclass(frozen=True, slots=True)
class Claim:
    """A delivery that is this process's to send. `payload` is JSON text; `attempts` counts those recorded before."""

    id: str
    signing_tenant_id: str
    receiver: str
    url: str
    payload: str
    attempts: int
    rotation: Rotated | None


@dataclass(frozen=True, slots=True)
class Claimed:
    """`contended`: another process took some of what we chose, so there may be more."""

    claims: list[Claim]
    contended: bool


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of a call, and what that makes of its delivery: either due again or finished."""

    attempted_at: datetime
    duration_ms: int
    status_code: int | None
    error: str | None
    status: DeliveryStatus
    next_attempt_at: datetime | None
    finished_at: datetime | None


async def claim_due(
    connection: Connection, *, now: datetime, until: datetime, free: int, per_receiver: int, taken: Mapping[str, int]
) -> Claimed:
    """At most `free` due deliveries, moved to `until`, the longest due of each receiver first.

    Every receiver gets its first slot before any gets its second; `taken` slots of a receiver count as given.
    """
    full = [receiver for receiver, slots in taken.items() if slots >= per_receiver]
    rows = await connection.fetch(
        _CLAIM, now, until, full, list(taken.keys()), list(taken.values()), per_receiver, free, LOOKAHEAD
    )
    claims = [
        Claim(
            id=row["id"],
            signing_tenant_id=row["signing_tenant_id"],
            receiver=row["receiver"],
            url=row["url"],
            payload=row["payload"],
            attempts=row["attempts"],
            rotation=None if row["version"] is None else Rotated(row["version"], row["rotated_at"]),
        )
        for row in rows
        if row["id"] is not None
    ]
    return Claimed(claims, contended=rows[0]["chosen"] > len(claims))


async def record_attempt(connection: Connection, claim: Claim, attempt: Attempt) -> bool:
    """Logs the attempt and moves the delivery on; False when another process had moved it meanwhile.

    The log's numbers rise by one with every attempt ever recorded, also after a redelivery has begun anew.
    """
    number = await connection.fetchval(
        _RECORD,
        claim.id,
        claim.attempts,
        str(attempt.status),
        attempt.next_attempt_at,
        attempt.finished_at,
        attempt.attempted_at,
        attempt.duration_ms,
        attempt.status_code,
        attempt.error,
    )
    return number is not None
