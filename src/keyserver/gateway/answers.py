"""What goes back to the caller: the upstream's answer, and what it cost."""

import aiohttp
from fastapi import Response
from starlette.types import Receive, Scope, Send

from keyserver.gateway.billing import Outcome
from keyserver.gateway.call import Call
from keyserver.gateway.errors import openai_body
from keyserver.gateway.headers import downward
from keyserver.gateway.metering import StreamMeter
from keyserver.gateway.settling import Charged, Settler
from keyserver.gateway.streams import End, Patience, relay
from keyserver.kit.money import format_nanos

RawHeaders = list[tuple[bytes, bytes]]


class WholeAnswer(Response):
    """The very bytes of the upstream's body."""

    def __init__(self, body: bytes, response: aiohttp.ClientResponse, *, headers: RawHeaders) -> None:
        self.status_code = response.status
        self.body = body
        self.background = None
        self.raw_headers = [*headers, (b"content-length", b"%d" % len(body))]


class PassedAnswer(Response):
    """A body that is passed on as it comes; `first` has come already. One that stops in the middle stops here too."""

    def __init__(self, first: bytes, response: aiohttp.ClientResponse, *, headers: RawHeaders) -> None:
        self.status_code = response.status
        self.raw_headers = headers
        self._first = first
        self._response = response

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self._first, "more_body": True})
        async for chunk in self._response.content.iter_any():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


class StreamedAnswer(Response):
    """Server-sent events, charged when they end. What they cost is told in a comment line before `data: [DONE]`."""

    def __init__(self, call: Call, response: aiohttp.ClientResponse, *, settler: Settler, patience: Patience) -> None:
        self.status_code = response.status
        self.raw_headers = passed_headers(call, response)
        self._call = call
        self._response = response
        self._settler = settler
        self._patience = patience

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        async def write(body: bytes, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": body, "more_body": more})

        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        call = self._call
        meter = StreamMeter(call.capability, usage_asked=call.incoming.usage_asked, headers=self._response.headers)
        end = await relay(self._response, meter, write=write, receive=receive, patience=self._patience)
        rest = meter.finish()
        charged = await self._charge(end, meter)
        comment = b"" if charged is None else _cost_comment(charged)
        if end.error is not None:
            last = comment + b"data: " + openai_body(end.error) + b"\n\n"
        else:
            last = comment + rest if meter.done else rest + comment
        await write(last, more=False)

    async def _charge(self, end: End, meter: StreamMeter) -> Charged | None:
        """What came is charged; nothing is when nothing but an error came, unless the caller went before it could."""
        call = self._call
        if not meter.answered and (meter.refused or end.outcome is not Outcome.CLIENT_GONE):
            await self._settler.void(call.admitted.hold_id)
            return None
        finished = call.finished(
            meter.reading,
            outcome=end.outcome,
            first_byte_at=end.first_byte_at,
            streamed=True,
        )
        return await self._settler.settle(finished)


def passed_headers(call: Call, response: aiohttp.ClientResponse) -> RawHeaders:
    """The upstream's headers that are the caller's business, and the state of its rate limit."""
    headers = downward(response.raw_headers, upstream_key=call.upstream.api_key)
    rate = call.admitted.rate
    if rate is not None:
        headers += [(name.encode(), value.encode()) for name, value in rate.headers().items()]
    return headers


def billed_headers(call: Call, response: aiohttp.ClientResponse, charged: Charged) -> RawHeaders:
    """Those, and what the call cost in dollars with nine decimals."""
    headers = passed_headers(call, response)
    headers.append((b"x-credits-charged", format_nanos(charged.charged_nanos).encode()))
    if charged.available_nanos is not None:
        headers.append((b"x-credits-remaining", format_nanos(charged.available_nanos).encode()))
    return headers


def _cost_comment(charged: Charged) -> bytes:
    """Headers have left by now; clients pass over a line that begins with a colon (WHATWG HTML, 9.2.6)."""
    remaining = charged.available_nanos
    told = "" if remaining is None else f", x-credits-remaining: {format_nanos(remaining)}"
    return f": x-credits-charged: {format_nanos(charged.charged_nanos)}{told}\n\n".encode()
