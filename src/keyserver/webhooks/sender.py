"""One attempt at telling one receiver."""

import asyncio
import contextlib
import json
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata

import aiohttp

from keyserver.kit.egress import RefusedAddress
from keyserver.webhooks.signing import sign

#: Enough of an answer for its sender to finish writing a usual one. It is thrown away.
_READ_BYTES = 16 * 1024
_READ_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Answer:
    """`error` is one sentence without a word of the receiver's own; None when it answered 2xx."""

    status_code: int | None
    error: str | None = None
    retry_after: str | None = None


def _user_agent() -> str:
    try:
        return f"keyserver/{metadata.version('keyserver')}"
    except metadata.PackageNotFoundError:  # run from a checkout that was never installed
        return "keyserver"


USER_AGENT = _user_agent()


def body_of(payload: str) -> bytes:
    """The bytes that are signed and sent: the payload as compact JSON in UTF-8, the same at every attempt."""
    return json.dumps(json.loads(payload), ensure_ascii=False, separators=(",", ":")).encode()


def signed_headers(secrets: list[str], *, message_id: str, body: bytes, now: datetime) -> dict[str, str]:
    """Standard Webhooks headers. The id stays the same over retries, the timestamp is the attempt's."""
    timestamp = int(now.timestamp())
    return {
        "content-type": "application/json",
        "user-agent": USER_AGENT,
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(secrets, message_id=message_id, timestamp=timestamp, body=body),
    }


async def send(session: aiohttp.ClientSession, *, url: str, headers: dict[str, str], body: bytes) -> Answer:
    """POSTs within the session's time-out. Raises nothing: whatever goes wrong is the attempt's error."""
    try:
        async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            with contextlib.suppress(aiohttp.ClientError, OSError, ValueError):
                async with asyncio.timeout(_READ_SECONDS):
                    await response.content.read(_READ_BYTES)
            return Answer(response.status, _refusal(response.status), response.headers.get("retry-after"))
    except Exception as error:  # noqa: BLE001 - one receiver's oddity must end as its own failed attempt
        return Answer(None, _sentence(error))


def _refusal(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    return f"The receiver answered {status}" + (", and redirects are not followed" if 300 <= status < 400 else "")


_UNCALLABLE = "The URL cannot be called"
#: The first that fits. More special errors stand before the ones they derive from.
_SENTENCES: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, "The receiver did not answer in time"),
    (aiohttp.InvalidURL, _UNCALLABLE),
    (aiohttp.NonHttpUrlClientError, _UNCALLABLE),
    (aiohttp.ClientConnectorDNSError, "The receiver's host name does not resolve"),
    (aiohttp.ClientSSLError, "The receiver's TLS certificate or handshake is not acceptable"),
    (aiohttp.ClientConnectorError, "The receiver cannot be connected to"),
    (aiohttp.ClientResponseError, "The receiver did not answer in HTTP"),
    (aiohttp.ClientConnectionError, "The receiver closed the connection without an answer"),
)


def _sentence(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, RefusedAddress):
        return str(error.os_error)
    for kind, sentence in _SENTENCES:
        if isinstance(error, kind):
            return sentence
    return f"The attempt failed ({type(error).__name__})"
