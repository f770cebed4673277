"""Meters an answer, whole or streamed: what it took and cost (pure).

The cost is, in this order: what the upstream says it was (`x-openrouter-cost`, `usage.cost`); its `usage` at our
rates; an estimate from what was sent.
"""

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import orjson

from keyserver.gateway.capabilities import Capability
from keyserver.gateway.event_stream import EventSplitter, data_of
from keyserver.gateway.readings import Reading, is_error, read_document, read_headers, weight_of_answer
from keyserver.gateway.tariff import CostSource, Quantities, Quote, nanos_up
from keyserver.gateway.tokens import tokens_of

__all__ = ["CostSource", "Reading", "StreamMeter", "cost_of", "read_answer"]

_DONE = b"[DONE]"
_TEXT = frozenset({Capability.CHAT, Capability.COMPLETIONS})
#: Between members of valid JSON only: inside a string the quotes would be escaped.
_NULL_USAGE = re.compile(rb',\s*"usage"\s*:\s*null(?=\s*[,}])')


def read_answer(capability: Capability, document: Mapping[str, Any], headers: Mapping[str, str]) -> Reading:
    """What a whole answer says. A cost in the headers goes before one in the body."""
    read = read_document(capability, document).merged(read_headers(headers))
    return _with_text(capability, read, weight_of_answer(document))


def cost_of(reading: Reading, *, quote: Quote, sent: Quantities) -> tuple[int, CostSource]:
    """The cost in nanodollars, rounded up, and who says so. `sent`: what was expected of the request."""
    if reading.stated_cost_usd is not None:
        return nanos_up(Fraction(reading.stated_cost_usd)), CostSource.UPSTREAM
    taken, counted = reading.taken(sent), reading.taken_by_count()
    cost = quote.price_of(taken)
    # Where the price rests on something that the upstream did not count, it is an estimate.
    exact = taken == counted or cost == quote.price_of(counted)
    return cost, CostSource.USAGE if exact else CostSource.ESTIMATE


def _with_text(capability: Capability, reading: Reading, weight: int) -> Reading:
    """The reading with the text that came, of those capabilities whose output is text."""
    return reading.with_output(tokens_of(weight)) if capability in _TEXT else reading


class StreamMeter:
    """Passes server-sent events on byte for byte, as soon as each is complete, and reads what they say.

    With `usage_asked` false the client did not ask for `stream_options.include_usage`, so what that adds is taken out
    again: the chunk that has a usage and no choices, and the member `"usage": null` of the others. A usage in a chunk
    with choices is the upstream's own habit, and stays.

    `feed` gives what can be sent on now. From `data: [DONE]` on everything is kept back (`done` is true), so that a
    last comment can be written before it; `finish` gives that rest, or what is left of a stream that was cut.
    `answered`: something came that is no comment and no error; `refused`: an error came.
    """

    def __init__(self, capability: Capability, *, usage_asked: bool, headers: Mapping[str, str]) -> None:
        self.done = False
        self.answered = False
        self.refused = False
        self._capability = capability
        self._usage_asked = usage_asked
        self._stated = read_headers(headers)
        self._read = Reading()
        self._splitter = EventSplitter()
        self._kept = bytearray()
        self._weight = 0

    def feed(self, chunk: bytes) -> bytes:
        passed = []
        for event in self._splitter.feed(chunk):
            if self.done:
                self._kept += event
            else:
                passed.append(self._metered(event))
        return b"".join(passed)

    def finish(self) -> bytes:
        rest = self._splitter.rest()
        passed = rest if self.done else self._metered(rest)
        return bytes(self._kept) + passed

    @property
    def reading(self) -> Reading:
        """What the stream has said so far; a cost in the headers goes before one in the stream."""
        return _with_text(self._capability, self._read.merged(self._stated), self._weight)

    def _metered(self, event: bytes) -> bytes:
        """The event as it goes on to the client; empty when it does not."""
        data = data_of(event)
        if data is None:
            return event
        if data.strip() == _DONE:
            self.done = True
            self._kept += event
            return b""
        try:
            document = orjson.loads(data)
        except orjson.JSONDecodeError:
            document = None
        if isinstance(document, dict) and is_error(document):
            self.refused = True
            return event
        self.answered = True
        if not isinstance(document, dict):
            return event
        self._read = self._read.merged(read_document(self._capability, document))
        self._weight += weight_of_answer(document)
        if self._usage_asked:
            return event
        if isinstance(document.get("usage"), dict) and document.get("choices") == []:
            return b""
        return _NULL_USAGE.sub(b"", event) if "usage" in document and document["usage"] is None else event
