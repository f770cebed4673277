"""JSON-RPC 2.0 over HTTP, as bitcoind, EVM nodes and their hosted providers speak it.

RpcFailure
├── RpcError         the node answered the call with an error: `code`, `message`, `data`, and the HTTP `status`
└── RpcUnavailable   no answer we can use: refused, too slow, rate-limited (`retry_after`), not JSON-RPC
    └── AnswerTooLarge    more than the cap; asking for less at a time can help

Numbers with a point are parsed as `Decimal`, never as float. Nothing here tries again: when is the caller's matter.
No message and no repr holds more of the URL than host and port, since passwords and keys live in the rest.
"""

import asyncio
import base64
import json
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from keyserver.kit.clock import Clock, utc_now

MAX_ANSWER_BYTES = 64 * 1024 * 1024
#: A node's own words are quoted up to this many characters.
_QUOTED = 500
_BUSY = frozenset({429, 502, 503, 504})
_FORBIDDEN = 403
#: TronGrid's words for "too many requests", with 403 or 503 and no Retry-After.
_SUSPENDED = re.compile(rb"suspended for ([0-9]{1,5}) ?s")

Auth = Callable[[], tuple[str, str] | None]


class RpcFailure(Exception):
    """One sentence; never holds credentials."""


class RpcError(RpcFailure):
    """The node's own answer to one call. `status` is the HTTP status it came with: bitcoind sends errors with 500."""

    def __init__(self, code: int, message: str, *, status: int = 200, data: Any = None) -> None:
        super().__init__(f"{message} (code {code})")
        self.code = code
        self.message = message
        self.status = status
        self.data = data


class RpcUnavailable(RpcFailure):
    """`retry_after` is the server's own wish in seconds; `status` the HTTP status, when there was one.

    `text` is the beginning of what it sent in place of JSON-RPC: to be recognised, not to be shown.
    """

    def __init__(
        self, message: str, retry_after: float | None = None, *, status: int | None = None, text: str = ""
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.status = status
        self.text = text


class AnswerTooLarge(RpcUnavailable):
    pass


def parse_retry_after(value: str | None, *, now: datetime) -> float | None:
    """Seconds to wait by a `Retry-After` header (RFC 9110, 10.2.3: seconds or an HTTP date); None when unreadable."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    if until.tzinfo is None:  # how the parser writes "-0000"
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - now).total_seconds())


class JsonRpc:
    """One server. `user:password@` in the URL becomes Basic authentication; `auth`, when given, is asked before every
    request instead, so that credentials may rotate.

    `timeout` bounds a whole request in seconds, `max_bytes` an answer, unpacked. Redirects are not followed and
    proxies of the environment not used. Raises ValueError for a URL that isn't http(s), without repeating it.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
        max_bytes: int = MAX_ANSWER_BYTES,
        auth: Auth | None = None,
        clock: Clock = utc_now,
    ) -> None:
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, TypeError, ValueError):
            raise ValueError("the node's address is not a URL like http://user:password@host:port/") from None
        if parsed.scheme not in {"http", "https"} or not parsed.host or not 0 < (parsed.port or 1) < 65536:
            raise ValueError("the node's URL must start with http:// or https:// and name a host")
        userinfo = (parsed.username, parsed.password) if parsed.userinfo else None
        self._auth: Auth = auth or (lambda: userinfo)
        self._url = parsed.copy_with(userinfo=b"", fragment=None)
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._clock = clock
        sent = httpx.Headers(headers)
        sent.update({"content-type": "application/json", "accept-encoding": "gzip"})
        self._client = httpx.AsyncClient(
            headers=sent,
            timeout=timeout,
            trust_env=False,
            follow_redirects=False,
            verify=parsed.scheme == "https",  # without TLS there is nothing to verify, and no certificates to load
            # bitcoind closes a connection that was idle for 30 seconds
            limits=httpx.Limits(max_connections=8, max_keepalive_connections=4, keepalive_expiry=20.0),
        )

    def __repr__(self) -> str:
        return f"JsonRpc({self.server})"

    @property
    def server(self) -> str:
        """Host and port, for messages."""
        return self._url.netloc.decode("ascii")

    async def call(self, method: str, *params: Any) -> Any:
        """The result of one call. Raises RpcError or RpcUnavailable."""
        status, answer = await self._post(_request(0, method, params))
        if not _is_answer(answer):
            raise self._no_rpc(status)
        outcome = _outcome(answer, status=status)
        if isinstance(outcome, RpcError):
            raise outcome
        if answer.get("id") != 0:
            raise RpcUnavailable(f"{self.server} answered another request than ours", status=status)
        return outcome

    async def batch(self, calls: Sequence[tuple[str, Sequence[Any]]], *, return_errors: bool = False) -> list[Any]:
        """Results in the order of `calls`, by one HTTP request.

        The first call that failed is raised as its RpcError; with `return_errors` each error stands at its call's
        place instead. An error for the whole batch is raised either way, as is RpcUnavailable.
        """
        if not calls:
            return []
        requests = [_request(number, method, params) for number, (method, params) in enumerate(calls)]
        status, answer = await self._post(requests)
        if not isinstance(answer, list):
            outcome = _outcome(answer, status=status) if _is_answer(answer) else None
            raise outcome if isinstance(outcome, RpcError) else self._no_rpc(status)
        by_id = {item["id"]: item for item in answer if _is_answer(item) and isinstance(item.get("id"), int)}
        if len(answer) != len(calls) or by_id.keys() != set(range(len(calls))):
            raise RpcUnavailable(f"{self.server} did not answer every call of a batch", status=status)
        outcomes = [_outcome(by_id[number], status=status) for number in range(len(calls))]
        if not return_errors:
            for outcome in outcomes:
                if isinstance(outcome, RpcError):
                    raise outcome
        return outcomes

    async def document(self, body: Any) -> Any:
        """Any JSON document for another, within the same limits: what a node offers beside JSON-RPC.

        RpcUnavailable for anything but HTTP 200 with JSON.
        """
        status, answer = await self._post(body)
        if status != httpx.codes.OK:
            raise RpcUnavailable(f"{self.server} answered HTTP {status}", status=status)
        return answer

    async def close(self) -> None:
        await self._client.aclose()

    async def _post(self, request: Any) -> tuple[int, Any]:
        """HTTP status and parsed body; a refusal (401, 403) without JSON in it is told by the error's `status`."""
        headers = {}
        if credentials := self._auth():
            token = base64.b64encode(":".join(credentials).encode()).decode("ascii")
            headers["authorization"] = f"Basic {token}"
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._client.stream("POST", self._url, content=json.dumps(request), headers=headers) as response,
            ):
                await self._refuse_busy(response)
                body = await self._read(response)
        except (TimeoutError, httpx.TimeoutException):
            raise RpcUnavailable(f"{self.server} did not answer within {self._timeout:g} seconds") from None
        except httpx.ConnectError as error:
            raise RpcUnavailable(f"cannot connect to {self.server}: {error}") from None
        except (httpx.HTTPError, zlib.error) as error:  # its own words may hold a header's value
            raise RpcUnavailable(f"the connection to {self.server} failed: {type(error).__name__}") from None
        if response.status_code == _FORBIDDEN and _SUSPENDED.search(body):
            raise self._busy(response, body)
        try:
            return response.status_code, json.loads(body, parse_float=Decimal, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            raise self._no_rpc(response.status_code, _beginning(body)) from None

    def _no_rpc(self, status: int, text: str = "") -> RpcUnavailable:
        return RpcUnavailable(
            f"{self.server} answered HTTP {status} and something that is not JSON-RPC", status=status, text=text
        )

    async def _refuse_busy(self, response: httpx.Response) -> None:
        """Reads no body but a short one that is announced: whoever is overloaded may never send it."""
        if response.status_code in _BUSY:
            announced = response.headers.get("content-length", "")
            is_short = announced.isdecimal() and int(announced) <= _QUOTED
            raise self._busy(response, await self._read(response) if is_short else b"")

    def _busy(self, response: httpx.Response, body: bytes) -> RpcUnavailable:
        wished = parse_retry_after(response.headers.get("retry-after"), now=self._clock())
        if suspended := _SUSPENDED.search(body):
            wished = max(wished or 0.0, float(suspended[1]))
        status = response.status_code
        return RpcUnavailable(f"{self.server} answered HTTP {status}", wished, status=status, text=_beginning(body))

    async def _read(self, response: httpx.Response) -> bytes:
        """The body, unpacked; a small answer that unpacks to a huge one is stopped at the cap too."""
        gunzip = zlib.decompressobj(wbits=31) if response.headers.get("content-encoding") == "gzip" else None
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += gunzip.decompress(chunk, self._max_bytes - len(body) + 1) if gunzip else chunk
            if len(body) > self._max_bytes:
                raise AnswerTooLarge(
                    f"{self.server} sent an answer of more than {self._max_bytes} bytes", status=response.status_code
                )
        return bytes(body)


def _beginning(body: bytes) -> str:
    return body[:_QUOTED].decode("utf-8", "replace")


def _request(number: int, method: str, params: Sequence[Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": list(params)}


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _is_answer(answer: Any) -> bool:
    """A result, or an error with a code. JSON-RPC 1.0 sends both members, one of them null."""
    if not isinstance(answer, dict):
        return False
    error = answer.get("error")
    return "result" in answer if error is None else isinstance(error, dict) and isinstance(error.get("code"), int)


def _outcome(answer: dict[str, Any], *, status: int) -> Any:
    error = answer.get("error")
    if error is None:
        return answer["result"]
    return RpcError(error["code"], str(error.get("message", ""))[:_QUOTED], status=status, data=error.get("data"))
