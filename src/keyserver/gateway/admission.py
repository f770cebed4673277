"""Whether a call may go ahead: caps, rate and credit, judged and held in one statement."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from keyserver.gateway.payer import Payer
from keyserver.kit.db import Connect


@dataclass(frozen=True, slots=True)
class RateState:
    """`remaining` calls of `limit` within a minute; one more is free in `reset_seconds`."""

    limit: int
    remaining: int
    reset_seconds: int

    def headers(self) -> dict[str, str]:
        return {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(self.remaining),
            "x-ratelimit-reset": str(self.reset_seconds),
        }


@dataclass(frozen=True, slots=True)
class Admitted:
    """A pending hold. `rate` is None for a capability that counts against no limit."""

    hold_id: str
    estimate_nanos: int
    available_nanos: int
    rate: RateState | None


async def admit(
    connect: Connect, *, payer: Payer, capability: str, estimate_nanos: int, ttl: timedelta, now: datetime
) -> Admitted:
    """Holds the estimate; raises InsufficientCredits, CreditsExhausted, SpendingCapReached or RateLimited."""
    raise NotImplementedError
