"""From a call to its outcome, retries and all, without doing the input and output itself (pure).

`conduct` is a generator: it yields what to do next and is told what came of it. The two clients only send and sleep.
"""

import json
import os
import random
import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from ipaddress import ip_address
from typing import Any, TypeVar
from urllib.parse import urlsplit

from keyserver.client.calls import Call
from keyserver.client.errors import BY_STATUS, ApiError, Detail, NotConfigured, NotReached, NotUnderstood

T = TypeVar("T")

URL_VARIABLE = "CRYPTO_SERVICE_URL"
KEY_VARIABLE = "CRYPTO_SERVICE_KEY"
TENANT_VARIABLE = "TENANT_ID"

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0
#: Answers with these codes are passing: the same request may succeed a moment later.
_PASSING = {"request_in_progress"}


@dataclass(frozen=True, slots=True)
class Access:
    """Where the key server is and who is calling. `tenant_id` None: the key's own tenant."""

    url: str
    key: str = field(repr=False)
    tenant_id: str | None = None

    @property
    def is_loopback(self) -> bool:
        host = urlsplit(self.url).hostname or ""
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


def read_access(
    url: str | None, key: str | None, tenant_id: str | None, *, environ: Mapping[str, str] = os.environ
) -> Access:
    """Arguments, else CRYPTO_SERVICE_URL, CRYPTO_SERVICE_KEY and TENANT_ID. NotConfigured names what is missing."""
    url = url or environ.get(URL_VARIABLE)
    key = key or environ.get(KEY_VARIABLE)
    if not url:
        raise NotConfigured(f"No URL of the key server: set {URL_VARIABLE}, or give `url`")
    if not key:
        raise NotConfigured(f"No service key: set {KEY_VARIABLE}, or give `key`")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise NotConfigured(f"The key server's URL must be like http://host:3100: mend {URL_VARIABLE} or `url`")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise NotConfigured(f"The service key holds characters that no key has: mend {KEY_VARIABLE} or `key`")
    return Access(url.rstrip("/"), key, tenant_id or environ.get(TENANT_VARIABLE) or None)


@dataclass(frozen=True, slots=True)
class Send:
    """Send this, and tell a Reply or Lost."""

    method: str
    url: str
    headers: Mapping[str, str]
    query: Mapping[str, str] | None
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Pause:
    """Sleep this many seconds, and tell None."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Reply:
    """Header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Lost:
    """No answer came; `why` ends the sentence "The key server at … "."""

    why: str


Step = Send | Pause
Told = Reply | Lost | None


def conduct(
    access: Access,
    call: Call[T],
    *,
    retries: int,
    jitter: Callable[[], float] = random.random,
    new_key: Callable[[], str] = lambda: str(uuid.uuid4()),
) -> Generator[Step, Told, T]:
    """Sends the call, and again after a lost connection, a 503 or a twin in progress, at most `retries` times.

    What creates something carries one idempotency key through all its tries, so that it is created once.
    """
    request = _request(access, call, new_key=new_key)
    tries = 0
    while True:
        told = yield request
        assert told is not None
        if isinstance(told, Reply) and 200 <= told.status < 300:
            return _parsed(call, told)
        tries += 1
        error = _error(access, told)
        if tries > retries or not _is_passing(error):
            raise error
        own = _FIRST_PAUSE * 2 ** (tries - 1) * (1 + jitter())
        yield Pause(min(_LONGEST_PAUSE, max(own, _retry_after(told))))


def _request(access: Access, call: Call[Any], *, new_key: Callable[[], str]) -> Send:
    headers = {
        "authorization": f"Bearer {access.key}",
        "accept": "application/json",
        "user-agent": f"keyserver-client/{_version()}",
    }
    if access.tenant_id is not None:
        headers["x-tenant-id"] = access.tenant_id
    if call.attribute_to is not None:
        headers["x-attribute-to"] = call.attribute_to
    if call.creates:
        headers["idempotency-key"] = call.idempotency_key or new_key()
    body = None
    if call.body is not None:
        headers["content-type"] = "application/json"
        body = json.dumps(call.body, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    return Send(call.method, f"{access.url}{call.path}", headers, call.query, body)


def _version() -> str:
    try:
        return metadata.version("keyserver")
    except metadata.PackageNotFoundError:  # run from a checkout that was never installed
        return "dev"


def _parsed(call: Call[T], reply: Reply) -> T:
    try:
        return call.parse(reply.body)
    except ValueError:
        raise NotUnderstood(
            f"{call.method} {call.path} was answered with {reply.status}, but not in the key server's words: "
            "is the URL the key server's?"
        ) from None


def _error(access: Access, told: Reply | Lost) -> ApiError | NotReached | NotUnderstood:
    if isinstance(told, Lost):
        return NotReached(f"The key server at {access.url} {told.why}")
    document = _problem(told.body)
    request_id = told.headers.get("x-request-id")
    if document is None and told.status != 503:  # a load balancer's own 503 says what ours says
        return NotUnderstood(f"{access.url} answered {told.status}, but not as a key server does")
    document = document or {}
    return BY_STATUS.get(told.status, ApiError)(
        status=told.status,
        code=str(document.get("code", "unavailable")),
        error=str(document.get("error", "The service cannot answer right now")),
        errors=[
            Detail(str(each.get("pointer", "")), str(each.get("detail", "")))
            for each in document.get("errors") or ()
            if isinstance(each, dict)
        ],
        request_id=request_id,
    )


def _problem(body: bytes) -> dict[str, Any] | None:
    """A problem document (RFC 9457) of the key server's; None for any other body."""
    try:
        document = json.loads(body)
    except ValueError:
        return None
    return document if isinstance(document, dict) and isinstance(document.get("error"), str) else None


def _is_passing(error: Exception) -> bool:
    if isinstance(error, ApiError):
        return error.status == 503 or error.code in _PASSING
    return isinstance(error, NotReached)


def _retry_after(told: Reply | Lost) -> float:
    wished = told.headers.get("retry-after", "") if isinstance(told, Reply) else ""
    return float(wished) if wished.isdecimal() and len(wished) < 6 else 0.0
