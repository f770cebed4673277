"""One call from its admission to its bill: key, credit and rate, upstream, cost, debit, and then the answer."""

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta

import aiohttp
import orjson
from fastapi import Request, Response

from keyserver.access.deps import bearer_token
from keyserver.gateway.admission import ADMIT, admit
from keyserver.gateway.answers import PassedAnswer, StreamedAnswer, WholeAnswer, billed_headers
from keyserver.gateway.billing import Outcome
from keyserver.gateway.call import Call
from keyserver.gateway.call_errors import (
    ModelNotFound,
    ShuttingDown,
    UpstreamMalformed,
    UpstreamTimeout,
    UpstreamUnreachable,
    refusal,
)
from keyserver.gateway.capabilities import Capability
from keyserver.gateway.errors import GatewayError
from keyserver.gateway.estimate import EstimatePolicy, estimate_nanos, expected
from keyserver.gateway.forwarding import Forwarder, Outgoing, read_whole
from keyserver.gateway.limits import TenantMargins
from keyserver.gateway.listing import ListedModels
from keyserver.gateway.metering import read_answer
from keyserver.gateway.once import Once
from keyserver.gateway.payer import Payer, payer_of
from keyserver.gateway.readings import is_error, read_headers
from keyserver.gateway.requests import Incoming, read_request
from keyserver.gateway.settling import Charged, Settler
from keyserver.gateway.streams import Patience
from keyserver.gateway.tariffs import Tariffs
from keyserver.gateway.upstreams import Upstream, Upstreams
from keyserver.kit.clock import Clock
from keyserver.kit.db import Database
from keyserver.kit.grouping import Grouped

#: Bytes of an answer that is read whole, and of an error.
_LONGEST_ANSWER = 256 * 1024 * 1024
_LONGEST_ERROR = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """How long one call may take, the estimate's floor and cap, and where whoever lacks credit is sent."""

    patience: Patience
    estimate: EstimatePolicy
    top_up_url: str | None

    @property
    def hold_lifetime(self) -> timedelta:
        """A hold outlives its call by as much as settling may take."""
        return timedelta(seconds=self.patience.whole + 60)


class Gateway:
    """What the routes of `/v1` ask of this process."""

    def __init__(
        self,
        database: Database,
        *,
        upstreams: Upstreams,
        tariffs: Tariffs,
        margins: TenantMargins,
        forwarder: Forwarder,
        settler: Settler,
        models: ListedModels,
        once: Once,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self.database = database
        self.upstreams = upstreams
        self.tariffs = tariffs
        self.margins = margins
        self.forwarder = forwarder
        self.settler = settler
        self.models = models
        self.once = once
        self.clock = clock
        self.limits = limits
        self._admissions = Grouped(database.connection, ADMIT)

    async def answer(self, request: Request, *, capability: Capability, path: str) -> Response:
        """Serves one call, billed. Raises what it is refused or fails with, which costs nothing."""
        payer = await payer_of(request)
        incoming = await read_request(request, capability)
        claim = await self.once.claim(request, payer, incoming, now=self.clock())
        if isinstance(claim, Response):
            return claim
        if claim is None:
            return await self._served(request, await self._admitted(request, capability, payer, incoming), path)
        call: Call | None = None
        try:
            call = await self._admitted(request, capability, payer, incoming)
            call.claim = claim
            return await self._served(request, call, path)
        finally:
            if call is None or call.claim is not None:
                await self.settler.to_the_end(self.once.give_up(claim))

    async def _served(self, request: Request, call: Call, path: str) -> Response:
        outgoing = Outgoing(
            method="POST",
            path=path,
            query=f"?{request.url.query}" if request.url.query else "",
            headers=request.scope["headers"],
            body=call.incoming.body,
            key=bearer_token(request),
            request_id=call.request_id,
        )
        try:
            upstream, response = await self.forwarder.open(call.candidates, outgoing)
            call.answered_by(upstream, response.status)
            return await self._passed_on(call, upstream, response)
        except asyncio.CancelledError:  # told to stop: uvicorn's time for requests in flight is over
            await self._give_back(call)
            raise ShuttingDown from None
        except BaseException:
            await self._give_back(call)
            raise

    async def _admitted(self, request: Request, capability: Capability, payer: Payer, incoming: Incoming) -> Call:
        candidates = await self.upstreams.candidates(incoming.model)
        if not candidates:
            raise ModelNotFound(incoming.model)
        margin = await self.margins.of(payer.tenant_id)
        quotes = {
            upstream.id: await self.tariffs.quote(capability, incoming.model, upstream=upstream, tenant_margin=margin)
            for upstream in candidates
        }
        policy = self.limits.estimate
        quantities = expected(capability, incoming.document, raw_size=incoming.size, head=incoming.head, policy=policy)
        await self.settler.ready()
        started_at = self.clock()
        admitted = await admit(
            self.database.connection,
            payer=payer,
            capability=capability,
            estimate_nanos=estimate_nanos(quotes[candidates[0].id], quantities, policy=policy),
            ttl=self.limits.hold_lifetime,
            now=started_at,
            top_up_url=self.limits.top_up_url,
            grouped=self._admissions,
        )
        return Call(
            capability=capability,
            payer=payer,
            incoming=incoming,
            candidates=candidates,
            quotes=quotes,
            expected=quantities,
            admitted=admitted,
            request_id=request.scope["state"]["request_id"],
            started_at=started_at,
        )

    async def _give_back(self, call: Call) -> None:
        if not call.billed:
            await self.settler.void(call.admitted.hold_id)

    async def _passed_on(self, call: Call, upstream: Upstream, response: aiohttp.ClientResponse) -> Response:
        if response.status >= 300:
            raise _refusal(upstream, response, await _error_body(response))
        media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type == "text/event-stream":
            return StreamedAnswer(call, response, settler=self.settler, patience=self.limits.patience)
        is_sound = media_type.startswith("audio/") or media_type == "application/octet-stream"
        if is_sound and call.claim is None:
            return await self._audio(call, response)
        return await self._document(call, response, is_json=not is_sound and _is_json(call, media_type))

    async def _document(self, call: Call, response: aiohttp.ClientResponse, *, is_json: bool) -> Response:
        """A whole answer: read, charged, then passed on as it is."""
        body = await read_whole(response, limit=_LONGEST_ANSWER)
        reading = read_headers(response.headers)
        if is_json:
            try:
                document = orjson.loads(body)
            except orjson.JSONDecodeError:
                raise UpstreamMalformed from None
            if not isinstance(document, dict):
                raise UpstreamMalformed
            if is_error(document):
                raise _refusal(call.upstream, response, body)
            reading = read_answer(call.capability, document, response.headers)
        finished = call.finished(reading, outcome=Outcome.COMPLETED)
        if call.claim is not None:
            cost = Charged(finished.metered.charge_nanos, None)
            answer = WholeAnswer(body, response, headers=billed_headers(call, response, cost))
            finished = replace(finished, answer=self.once.answer(call.claim, answer))
            call.claim = None  # filled with the debit
        charged = await self.settler.settle(finished)
        return WholeAnswer(body, response, headers=billed_headers(call, response, charged))

    async def _audio(self, call: Call, response: aiohttp.ClientResponse) -> Response:
        """Sound is passed on as it comes. The text has its price, so that it is charged with its first bytes."""
        first = await _first(response)
        reading = read_headers(response.headers)
        charged = await self.settler.settle(call.finished(reading, outcome=Outcome.COMPLETED))
        return PassedAnswer(first, response, headers=billed_headers(call, response, charged))


def _is_json(call: Call, media_type: str) -> bool:
    """Transcriptions may be asked for as text; everything else that is no sound is JSON, whatever it calls itself."""
    return media_type == "application/json" or call.capability is not Capability.TRANSCRIPTIONS


def _refusal(upstream: Upstream, response: aiohttp.ClientResponse, body: bytes) -> GatewayError:
    status = response.status if response.status >= 300 else 502
    return refusal(status, body, retry_after=response.headers.get("retry-after"), secret=upstream.api_key)


async def _error_body(response: aiohttp.ClientResponse) -> bytes:
    """Nothing where it stops in the middle: the status has been told."""
    try:
        return await read_whole(response, limit=_LONGEST_ERROR)
    except GatewayError:
        return b""


async def _first(response: aiohttp.ClientResponse) -> bytes:
    try:
        if first := await response.content.readany():
            return first
    except (aiohttp.ClientError, OSError) as error:
        response.close()
        raise UpstreamTimeout if isinstance(error, TimeoutError) else UpstreamUnreachable from error
    raise UpstreamMalformed
