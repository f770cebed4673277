"""What a call took and cost, read from the upstream's answer (pure)."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from keyserver.gateway.capabilities import Capability
from keyserver.gateway.tariff import Quantities, Quote


@dataclass(frozen=True, slots=True)
class Reading:
    """What the upstream itself says: its cost in dollars, and how much the call took. None where it says nothing."""

    stated_cost_usd: Decimal | None = None
    usage: Quantities | None = None


def read_answer(capability: Capability, document: Mapping[str, Any], headers: Mapping[str, str]) -> Reading: ...


class StreamMeter:
    """Passes server-sent events on byte for byte and reads what they say; works on any division into chunks.

    `feed` gives what can be sent on now. From `data: [DONE]` on everything is kept back (`done` is true), so that a
    last comment can be written before it; `finish` gives that rest, or what is left of a stream that was cut.
    """

    def __init__(self, capability: Capability, *, usage_asked: bool, headers: Mapping[str, str]) -> None:
        self.done = False

    def feed(self, chunk: bytes) -> bytes: ...

    def finish(self) -> bytes: ...

    @property
    def reading(self) -> Reading: ...

    def sent(self, expected: Quantities) -> Quantities:
        """What was sent, for an upstream that reports no usage: the request's expected input, the output seen."""
        ...


def cost_of(reading: Reading, *, quote: Quote, sent: Quantities) -> tuple[int, "CostSource"]: ...
