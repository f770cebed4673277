"""What a call cost: its hold closed, the debit, the journal entry and the usage record, in one statement."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from keyserver.gateway.payer import Payer
from keyserver.kit.db import Connect


class Outcome(StrEnum):
    """How a call ended. All of them are billed for what came."""

    COMPLETED = "completed"
    CLIENT_GONE = "client_gone"
    UPSTREAM_CUT = "upstream_cut"
    SHUTDOWN = "shutdown"


class CostSource(StrEnum):
    """Where the cost is from: the upstream's own figure, its usage × rates, an estimate, or a caller of the holds API."""

    UPSTREAM = "upstream"
    USAGE = "usage"
    ESTIMATE = "estimate"
    STATED = "stated"


@dataclass(frozen=True, slots=True)
class Metered:
    """What the usage record says of a call."""

    request_id: str
    capability: str
    model: str | None
    upstream: str | None
    input_tokens: int
    output_tokens: int
    units: Decimal | None
    unit_type: str | None
    cost_nanos: int
    charge_nanos: int
    cost_source: CostSource
    started_at: datetime
    duration_ms: int
    first_byte_ms: int | None
    outcome: Outcome
    upstream_status: int | None
    streamed: bool

    def to_json(self) -> str:
        """For the local journal; `from_json` reads it back."""
        return json.dumps(asdict(self), default=str, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Metered":
        fields: dict[str, Any] = json.loads(text)
        return cls(
            **{
                **fields,
                "units": None if fields["units"] is None else Decimal(fields["units"]),
                "cost_source": CostSource(fields["cost_source"]),
                "started_at": datetime.fromisoformat(fields["started_at"]),
                "outcome": Outcome(fields["outcome"]),
            }
        )


@dataclass(frozen=True, slots=True)
class Settled:
    """`replayed`: this hold had been settled before, and these are the figures of then (`available_nanos` of now)."""

    charged_nanos: int
    available_nanos: int
    entry_id: str | None
    replayed: bool


async def settle(connect: Connect, *, hold_id: str, payer: Payer, metered: Metered, now: datetime) -> Settled:
    """Charges `metered.charge_nanos`, exactly once by hold id; also for an expired or lost hold, since it was spent.

    Raises HoldClosed for a hold that was voided.
    """
    raise NotImplementedError


async def void(connect: Connect, *, hold_id: str, now: datetime) -> None:
    """Gives a pending hold's credit back; nothing when it is closed already."""
    raise NotImplementedError
