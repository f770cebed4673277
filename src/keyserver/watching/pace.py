"""How fast a follower gets on."""

from collections import deque
from datetime import datetime, timedelta

_OVER = timedelta(minutes=1)


class Pace:
    """Blocks per second over the last minute in which steps were made."""

    def __init__(self) -> None:
        self._steps: deque[tuple[datetime, int]] = deque()

    def note(self, height: int, *, at: datetime) -> None:
        """Where a step ended; a step back, as a fork makes one, begins the count anew."""
        if self._steps and height < self._steps[-1][1]:
            self._steps.clear()
        self._steps.append((at, height))
        while len(self._steps) > 2 and at - self._steps[1][0] >= _OVER:
            self._steps.popleft()

    @property
    def blocks_per_second(self) -> float | None:
        """None until two steps at different times are known."""
        if not self._steps:
            return None
        (began, low), (ended, high) = self._steps[0], self._steps[-1]
        seconds = (ended - began).total_seconds()
        return (high - low) / seconds if seconds > 0 else None
