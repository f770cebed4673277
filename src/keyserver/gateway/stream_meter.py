"""Passes a streamed answer on and reads what it says (pure)."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from keyserver.gateway.capabilities import Capability
from keyserver.gateway.event_stream import EventSplitter, data_of
from keyserver.gateway.metering import Reading, read_document, read_headers
from keyserver.gateway.tariff import Quantities
from keyserver.gateway.tokens import tokens_of, weight_of

_DONE = b"[DONE]"
#: Between members of valid JSON only: inside a string the quotes would be escaped.
_NULL_USAGE = re.compile(rb',\s*"usage"\s*:\s*null(?=\s*[,}])')
_STREAMED_TEXTS = ("content", "reasoning", "reasoning_content", "refusal", "text")


class StreamMeter:
    """Passes server-sent events on byte for byte, as soon as each is complete, and reads what they say.

    With `usage_asked` false the client did not ask for `stream_options.include_usage`, so what that adds is taken out
    again: the chunk that has a usage and no choices, and the member `"usage": null` of the others. A usage in a chunk
    with choices is the upstream's own habit, and stays.

    `feed` gives what can be sent on now. From `data: [DONE]` on everything is kept back (`done` is true), so that a
    last comment can be written before it; `finish` gives that rest, or what is left of a stream that was cut.
    """

    def __init__(self, capability: Capability, *, usage_asked: bool, headers: Mapping[str, str]) -> None:
        self.done = False
        self._capability = capability
        self._usage_asked = usage_asked
        self._stated = read_headers(headers)
        self._read = Reading()
        self._splitter = EventSplitter()
        self._kept = bytearray()
        self._weight = 0
        self._images = 0

    def feed(self, chunk: bytes) -> bytes:
        passed = []
        for event in self._splitter.feed(chunk):
            if self.done:
                self._kept += event
            else:
                passed.append(self._metered(event))
        return b"".join(passed)

    def finish(self) -> bytes:
        return bytes(self._kept) + self._splitter.rest()

    @property
    def reading(self) -> Reading:
        """What the stream has said so far; a cost in the headers goes before one in the stream."""
        return self._read.merged(self._stated)

    def sent(self, expected: Quantities) -> Quantities:
        """What was sent, for an upstream that does not count: the request as expected, the output as it was seen."""
        match self._capability:
            case Capability.CHAT | Capability.COMPLETIONS:
                return replace(expected, output_tokens=tokens_of(self._weight))
            case Capability.IMAGES:
                return _share(expected, self._images)
            case _:
                return expected

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
            return event
        if not isinstance(document, dict):
            return event
        self._read = self._read.merged(read_document(self._capability, document))
        self._count(document)
        if self._usage_asked:
            return event
        if isinstance(document.get("usage"), dict) and document.get("choices") == []:
            return b""
        return _NULL_USAGE.sub(b"", event) if "usage" in document and document["usage"] is None else event

    def _count(self, document: dict[str, Any]) -> None:
        choices = document.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                self._weight += _weight_of_choice(choice)
        if str(document.get("type")).endswith(".completed"):
            self._images += 1


def _weight_of_choice(choice: dict[str, Any]) -> int:
    delta = choice.get("delta")
    weight = 0
    for part in (choice, delta if isinstance(delta, dict) else {}):
        weight += sum(weight_of(part[name]) for name in _STREAMED_TEXTS if isinstance(part.get(name), str))
        calls = part.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict):
                weight += sum(weight_of(text) for text in function.values() if isinstance(text, str))
    return weight


def _share(expected: Quantities, images: int) -> Quantities:
    """Of what was expected of several images, the part of those that came."""
    each = -(-expected.output_tokens // max(expected.images, 1))
    return replace(expected, images=images, output_tokens=each * images, output_image_tokens=each * images)
