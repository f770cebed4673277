"""A circuit breaker for one upstream (pure): what keeps failing is left alone, and tried again with one call.

The words are Nygard's (Release It!, 2nd edition, chapter 5). Instants are seconds of a monotonic clock.
"""

from dataclasses import dataclass
from enum import StrEnum


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(slots=True)
class Breaker:
    """Opens after `threshold` failures in a row; `cool_down` seconds later one call at a time may probe.

    Who was allowed a call says how it went: `succeeded`, `failed`, or `released` when it ended without telling
    anything about the upstream.
    """

    threshold: int = 5
    cool_down: float = 5.0
    _failures: int = 0
    _opened_at: float | None = None
    _probing: bool = False

    def state(self, now: float) -> BreakerState:
        if self._opened_at is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._opened_at + self.cool_down else BreakerState.HALF_OPEN

    def allows(self, now: float) -> bool:
        """Whether a call may go out now. In HALF_OPEN a yes takes the one place until its outcome is told."""
        match self.state(now):
            case BreakerState.CLOSED:
                return True
            case BreakerState.OPEN:
                return False
            case BreakerState.HALF_OPEN:
                allowed = not self._probing
                self._probing = True
                return allowed

    def retry_after(self, now: float) -> float:
        """Seconds until a probe is let through; 0 when calls are."""
        return 0.0 if self._opened_at is None else max(0.0, self._opened_at + self.cool_down - now)

    def succeeded(self) -> None:
        self._failures, self._opened_at, self._probing = 0, None, False

    def failed(self, now: float) -> None:
        """A call that began before the breaker opened does not keep it open longer."""
        if self.state(now) is BreakerState.OPEN:
            return
        self._failures += 1
        if self._probing or self._failures >= self.threshold:
            self._opened_at, self._probing = now, False

    def released(self) -> None:
        self._probing = False
