"""One bounded GET of a JSON document from a price source."""

import asyncio
import functools
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import httpx

from keyserver.kit.clock import Clock
from keyserver.pricing.ports import SourceFailed
from keyserver.pricing.quotes import parse_document

MAX_BODY_BYTES = 1024 * 1024
TIME_LIMIT = 10.0


@dataclass(frozen=True, slots=True)
class Site:
    """A source's web site. `label` begins the sentences about it; headers may hold a key and are never shown."""

    label: str
    base_url: str
    clock: Clock
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    time_limit: float = TIME_LIMIT

    async def get(self, path: str, *, params: Mapping[str, str]) -> Any:
        """The document at `path`. SourceFailed for anything but a 200 with JSON of at most 1 MiB in time.

        Proxies and credentials of the environment are not used, redirects are not followed.
        """
        try:
            async with asyncio.timeout(self.time_limit):
                body = await self._body(path, params)
        except TimeoutError:
            raise SourceFailed(f"{self.label} did not answer within {self.time_limit:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SourceFailed(f"{self.label} cannot be reached ({type(error).__name__})") from error
        try:
            return parse_document(body)
        except ValueError as error:
            raise SourceFailed(f"{self.label} answered something that is not JSON") from error

    async def _body(self, path: str, params: Mapping[str, str]) -> bytes:
        headers = {"accept": "application/json", "user-agent": "keyserver", **self.headers}
        async with (
            httpx.AsyncClient(
                verify=_tls(), trust_env=False, follow_redirects=False, timeout=self.time_limit, headers=headers
            ) as client,
            client.stream("GET", self.base_url.rstrip("/") + path, params=params) as response,
        ):
            if response.status_code != HTTPStatus.OK:
                raise SourceFailed(
                    f"{self.label} answered {response.status_code} {_phrase(response.status_code)}".rstrip(),
                    retry_after=_retry_after(response.headers.get("retry-after"), now=self.clock()),
                )
            body = bytearray()
            async for part in response.aiter_bytes():
                body += part
                if len(body) > MAX_BODY_BYTES:
                    raise SourceFailed(f"{self.label} answered more than {MAX_BODY_BYTES} bytes")
            return bytes(body)


@functools.cache
def _tls() -> ssl.SSLContext:
    """Reading the certificate store takes tens of milliseconds: once, not at every tick."""
    return httpx.create_ssl_context(trust_env=False)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _retry_after(value: str | None, *, now: datetime) -> float | None:
    """Seconds, from either form of Retry-After (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - now).total_seconds())


def member(document: Any, *names: str) -> Any:
    """The value at a path of object members; None where a part is missing or is no object."""
    for name in names:
        if not isinstance(document, dict):
            return None
        document = document.get(name)
    return document
