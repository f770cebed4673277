"""How many calls may be under way, so that receivers which are slow, silent or many delay no others."""

from collections import Counter
from collections.abc import Callable, Sequence

_REMEMBERED = 1000


class Slots:
    """`total` calls at once, `per_receiver` to one receiver.

    A receiver that gave no answer at all keeps a single slot until it answers again, and silent receivers together
    hold at most half of all slots: however many of them time out, the other half is for those that answer.
    """

    def __init__(self, *, total: int, per_receiver: int) -> None:
        self.per_receiver = per_receiver
        self._total = total
        self._in_flight: Counter[str] = Counter()
        #: Silent receivers, longest known first. One that is forgotten is taken for a good one until its next call.
        self._silent: dict[str, None] = {}

    @property
    def free(self) -> int:
        return self._total - self._in_flight.total()

    def take(self, receiver: str) -> None:
        self._in_flight[receiver] += 1

    def give_back(self, receiver: str) -> None:
        self._in_flight[receiver] -= 1
        if not self._in_flight[receiver]:
            del self._in_flight[receiver]

    def note(self, receiver: str, *, answered: bool) -> None:
        """Remembers whether the receiver's last call brought an answer, of whatever kind."""
        self._silent.pop(receiver, None)
        if not answered:
            self._silent[receiver] = None
            if len(self._silent) > _REMEMBERED:
                del self._silent[next(iter(self._silent))]

    def taken(self, sample: Callable[[Sequence[str], int], Sequence[str]]) -> dict[str, int]:
        """Slots that are not to be had, by receiver; a receiver not in here has all of its own.

        `sample` (as `random.Random.sample`) picks which silent receivers get the slots left for their kind.
        """
        taken = dict(self._in_flight)
        waiting = []
        for receiver in self._silent:
            if receiver in taken:
                taken[receiver] = self.per_receiver
            else:
                waiting.append(receiver)
        busy = sum(self._in_flight[receiver] for receiver in self._silent)
        room = min(max(self._total // 2 - busy, 0), len(waiting))
        taken |= dict.fromkeys(waiting, self.per_receiver)
        taken |= dict.fromkeys(sample(waiting, room), self.per_receiver - 1)
        return taken
