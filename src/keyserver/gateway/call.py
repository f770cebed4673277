"""One admitted call, and what its usage record will say."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from keyserver.gateway.admission import Admitted
from keyserver.gateway.billing import Metered, Outcome
from keyserver.gateway.capabilities import Capability
from keyserver.gateway.metering import Reading, cost_of
from keyserver.gateway.payer import Payer
from keyserver.gateway.requests import Incoming
from keyserver.gateway.tariff import Quantities, Quote, Unit
from keyserver.gateway.unsettled import FinishedCall
from keyserver.gateway.upstreams import Upstream

_UNITS = {Capability.IMAGES: Unit.IMAGE, Capability.SPEECH: Unit.CHARACTERS, Capability.TRANSCRIPTIONS: Unit.SECOND}


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
    upstream: Upstream = field(init=False)
    upstream_status: int | None = None
    #: Set once the bill is made out: from here on the hold is never given back.
    billed: bool = False
    _began: float = field(default_factory=time.perf_counter)

    def answered_by(self, upstream: Upstream, status: int) -> None:
        self.upstream, self.upstream_status = upstream, status

    def sent(self, document: Mapping[str, Any]) -> Quantities:
        """What was sent, for an upstream that does not count: the request as expected, the answer's own text."""
        choices = document.get("choices")
        if not isinstance(choices, list):
            return self.expected
        return replace(self.expected, output_tokens=tokens_of(sum(weight_of_choice(each) for each in choices)))

    def finished(
        self,
        reading: Reading,
        sent: Quantities,
        *,
        outcome: Outcome,
        first_byte_at: float | None = None,
        streamed: bool = False,
    ) -> FinishedCall:
        """The bill: cost by what the upstream said, else by what was sent; charge by the margin of admission."""
        self.billed = True
        quote = self.quotes[self.upstream.id]
        cost_nanos, source = cost_of(reading, quote=quote, sent=sent)
        taken = reading.taken(sent)
        unit = _UNITS.get(self.capability)
        metered = Metered(
            request_id=self.request_id,
            capability=self.capability,
            model=self.incoming.model,
            upstream=self.upstream.id,
            input_tokens=taken.input_tokens,
            output_tokens=taken.output_tokens,
            units=None if unit is None else _counted(taken, unit),
            unit_type=unit,
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
