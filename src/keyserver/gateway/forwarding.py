"""One call to an upstream: which of several, over a bounded pool of connections, and what went wrong.

A call is sent to the next upstream only where the one before cannot have begun to work on it: no connection came
about, its breaker was open, or it said itself that it does not serve now (429, 502, 503). A 504 says that the work
had been handed on.
"""

import io
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiohttp
import structlog
from yarl import URL

from keyserver.gateway.breaker import Breaker
from keyserver.gateway.call_errors import NoUpstream, UpstreamMalformed, UpstreamTimeout, UpstreamUnreachable
from keyserver.gateway.errors import GatewayError
from keyserver.gateway.headers import RawHeaders, upward
from keyserver.gateway.upstreams import Upstream
from keyserver.kit import metrics

_log = structlog.get_logger("keyserver.gateway")
#: An upstream that says so has not served the call; another may.
_ELSEWHERE = frozenset({429, 502, 503})
#: Of these, the ones that speak against the upstream as a whole.
_ILL = frozenset({502, 503, 504})
#: Servers close idle connections after 5 seconds and more; ours go first, so that none is used while it closes.
_KEPT_SECONDS = 4.0
_LONG = 256 * 1024


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What is sent, to whichever upstream. `query` has its question mark; `key` is the caller's and must not pass."""

    method: str
    path: str
    query: str
    headers: RawHeaders
    body: bytes | None
    key: str
    request_id: str


class Forwarder:
    """The client of one process, with a breaker for each upstream. Make it inside the running loop, and close it."""

    def __init__(
        self, *, connections: int, call_seconds: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._monotonic = monotonic
        self._call_seconds = call_seconds
        self._breakers: dict[tuple[str, str], Breaker] = {}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=_KEPT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
            read_bufsize=2**16,
        )

    async def close(self) -> None:
        await self._session.close()

    async def open(self, upstreams: Sequence[Upstream], outgoing: Outgoing) -> tuple[Upstream, aiohttp.ClientResponse]:
        """The upstream that answered, and its answer with the body still to be read.

        Errors that an upstream answers with are answers. Raises what went wrong with the last one that was tried.
        """
        error: GatewayError = NoUpstream()
        for number, upstream in enumerate(upstreams, start=1):
            breaker = self._breaker(upstream)
            if not breaker.allows(self._monotonic()):
                error = NoUpstream(retry_after=math.ceil(breaker.retry_after(self._monotonic())))
                continue
            try:
                response = await self._ask(upstream, breaker, outgoing)
            except _NotSent as unsent:
                error = unsent.error
                continue
            if response.status not in _ELSEWHERE or number == len(upstreams):
                return upstream, response
            response.release()
        raise error

    async def _ask(self, upstream: Upstream, breaker: Breaker, outgoing: Outgoing) -> aiohttp.ClientResponse:
        settled = False
        try:
            response = await self._session.request(
                outgoing.method,
                URL(upstream.base_url + outgoing.path + outgoing.query, encoded=True),
                data=_sendable(outgoing.body),
                headers=upward(
                    outgoing.headers,
                    key=outgoing.key,
                    upstream_key=upstream.api_key,
                    request_id=outgoing.request_id,
                ),
                timeout=self._timeout(upstream),
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError) as error:  # asyncio's TimeoutError is an OSError
            settled = True
            breaker.failed(self._monotonic())
            raise self._failure(upstream, error) from error
        else:
            settled = True
            if response.status in _ILL:
                breaker.failed(self._monotonic())
            else:
                breaker.succeeded()
            metrics.UPSTREAM_ATTEMPTS.labels(upstream.id, f"{response.status // 100}xx").inc()
            return response
        finally:
            if not settled:  # cancelled
                breaker.released()

    def _failure(self, upstream: Upstream, error: Exception) -> Exception:
        late = isinstance(error, TimeoutError)
        metrics.UPSTREAM_ATTEMPTS.labels(upstream.id, "timeout" if late else "unreachable").inc()
        _log.warning("upstream_failed", upstream=upstream.id, error=f"{type(error).__name__}: {error}"[:300])
        answer = UpstreamTimeout() if late else UpstreamUnreachable()
        unsent = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
        return _NotSent(answer) if unsent else answer

    def _timeout(self, upstream: Upstream) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(
            total=self._call_seconds,
            connect=upstream.connect_seconds,
            sock_connect=upstream.connect_seconds,
            sock_read=upstream.idle_seconds,
        )

    def _breaker(self, upstream: Upstream) -> Breaker:
        """One that is registered anew with another address begins anew."""
        return self._breakers.setdefault((upstream.id, upstream.base_url), Breaker())


class _NotSent(Exception):
    """The request has not left: another upstream may have it."""

    def __init__(self, error: GatewayError) -> None:
        self.error = error


def _sendable(body: bytes | None) -> bytes | io.BytesIO | None:
    """A long body is written piece by piece, so that the event loop serves others meanwhile."""
    return io.BytesIO(body) if body is not None and len(body) > _LONG else body


async def read_whole(response: aiohttp.ClientResponse, *, limit: int) -> bytes:
    """The whole body. Raises UpstreamMalformed where it stops in the middle or is longer than it should ever be."""
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in response.content.iter_any():
            chunks.append(chunk)
            size += len(chunk)
            if size > limit:
                response.close()
                raise UpstreamMalformed(f"The upstream's answer is over {limit} bytes")
    except (aiohttp.ClientError, OSError) as error:
        response.close()
        raise UpstreamTimeout if isinstance(error, TimeoutError) else UpstreamMalformed from error
    return b"".join(chunks)
