"""Wrong keys, counted by the address they come from.

Keys of 256 random bits are not guessed; what is limited is the work that guessing makes. Each process counts for
itself, and behind a proxy that hides its clients they share one count: therefore a key that this process has known to
be right is asked for as ever, however many wrong ones came from beside it.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from keyserver.access.errors import TooManyFailures

WINDOW_SECONDS = 60.0
_REMEMBERED = 10_000


class FailedAttempts:
    """At most `limit` wrong keys from one address in a minute; the minute begins with the first of them."""

    def __init__(self, limit: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._monotonic = monotonic
        self._counted: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def refusal(self, address: str) -> TooManyFailures | None:
        """What to answer to an unknown key from here, when there were too many already."""
        begun, count = self._counted.get(address, (0.0, 0))
        left = begun + WINDOW_SECONDS - self._monotonic()
        return TooManyFailures(math.ceil(left)) if count >= self._limit and left > 0 else None

    def failed(self, address: str) -> None:
        now = self._monotonic()
        begun, count = self._counted.pop(address, (now, 0))
        self._counted[address] = (begun, count + 1) if begun + WINDOW_SECONDS > now else (now, 1)
        if len(self._counted) > _REMEMBERED:
            self._counted.popitem(last=False)
