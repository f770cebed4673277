"""One admitted call, and what its usage record will say."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from keyserver.gateway.admission import Admitted
from keyserver.gateway.billing import Metered, Outcome
from keyserver.gateway.capabilities import Capability
from keyserver.gateway.metering import Reading, cost_of
from keyserver.gateway.once import Claim
from keyserver.gateway.payer import Payer
from keyserver.gateway.requests import Incoming
from keyserver.gateway.tariff import Quantities, Quote
from keyserver.gateway.unsettled import FinishedCall
from keyserver.gateway.upstreams import Upstream


@dataclass(slots=True)
class Call:
    """`quotes` are by upstream, of the moment of admission: a rate that changes meanwhile does not touch the call."""

    capability: Capability
    payer: Payer
    incoming: Incoming
    candidates: Sequence[Upstream]
    quotes: Mapping[str, Quote]
    expected: Quantities
    admitted: Admitted
    request_id: str
    started_at: datetime
    claim: Claim | None = None
    upstream: Upstream = field(init=False)
    upstream_status: int | None = None
    #: Set once the bill is made out: from here on the hold is never given back.
    billed: bool = False
    _began: float = field(default_factory=time.perf_counter)

    def answered_by(self, upstream: Upstream, status: int) -> None:
        self.upstream, self.upstream_status = upstream, status

    def finished(
        self,
        reading: Reading,
        *,
        outcome: Outcome,
        first_byte_at: float | None = None,
        streamed: bool = False,
    ) -> FinishedCall:
        """The bill: the cost as the upstream tells it, else as it was seen or expected; the charge by its margin."""
        self.billed = True
        quote = self.quotes[self.upstream.id]
        cost_nanos, source = cost_of(reading, quote=quote, sent=self.expected)
        taken = reading.taken(self.expected)
        units, unit_type = _units(self.capability, taken)
        metered = Metered(
            request_id=self.request_id,
            capability=self.capability,
            model=self.incoming.model,
            upstream=self.upstream.id,
            input_tokens=taken.input_tokens,
            output_tokens=taken.output_tokens,
            units=units,
            unit_type=unit_type,
            cost_nanos=cost_nanos,
            charge_nanos=quote.charge_nanos(cost_nanos),
            cost_source=source,
            started_at=self.started_at,
            duration_ms=self._milliseconds_to(time.perf_counter()),
            first_byte_ms=None if first_byte_at is None else self._milliseconds_to(first_byte_at),
            outcome=outcome,
            upstream_status=self.upstream_status,
            streamed=streamed,
        )
        return FinishedCall(self.admitted.hold_id, self.payer, metered)

    def _milliseconds_to(self, instant: float) -> int:
        return round((instant - self._began) * 1000)


def _units(capability: Capability, taken: Quantities) -> tuple[Decimal | None, str | None]:
    """What is counted besides tokens, where something is."""
    match capability:
        case Capability.IMAGES:
            return Decimal(taken.images), "image"
        case Capability.SPEECH:
            return Decimal(taken.characters), "character"
        case Capability.TRANSCRIPTIONS:
            return taken.seconds, "second"
        case _:
            return None, None
