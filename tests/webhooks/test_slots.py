"""Slots: nobody's silence is anybody else's delay."""

from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from keyserver.webhooks.slots import Slots

TOTAL, EACH = 8, 4
RECEIVERS = st.sampled_from([f"https://{name}.example.com:443" for name in "abcdefghij"])


def sample(population: Sequence[str], room: int) -> Sequence[str]:
    return population[:room]


def test_a_receiver_has_its_own_number_of_slots() -> None:
    slots = Slots(total=TOTAL, per_receiver=EACH)
    slots.take("a")
    slots.take("a")
    assert slots.free == 6
    assert slots.taken(sample) == {"a": 2}
    slots.give_back("a")
    slots.give_back("a")
    assert slots.taken(sample) == {}


def test_a_silent_receiver_keeps_one_slot_until_it_answers() -> None:
    slots = Slots(total=TOTAL, per_receiver=EACH)
    slots.note("a", answered=False)
    assert slots.taken(sample) == {"a": EACH - 1}
    slots.take("a")
    assert slots.taken(sample) == {"a": EACH}
    slots.note("a", answered=True)
    assert slots.taken(sample) == {"a": 1}


def test_silent_receivers_together_leave_half_of_the_slots() -> None:
    slots = Slots(total=TOTAL, per_receiver=EACH)
    for name in "abcdefghij":
        slots.note(name, answered=False)
    taken = slots.taken(sample)
    assert Counter(taken.values()) == {EACH - 1: TOTAL // 2, EACH: 10 - TOTAL // 2}
    for name in [name for name, slots_taken in taken.items() if slots_taken < EACH]:
        slots.take(name)
    assert set(slots.taken(sample).values()) == {EACH}
    assert slots.free == TOTAL // 2


def test_what_is_remembered_of_silent_receivers_is_bounded() -> None:
    slots = Slots(total=TOTAL, per_receiver=EACH)
    for number in range(5000):
        slots.note(f"https://{number}.example.com:443", answered=False)
    assert len(slots.taken(sample)) == 1000
    assert "https://4999.example.com:443" in slots.taken(sample)


class Calls(RuleBasedStateMachine):
    """A dispatcher that takes only what is to be had, with receivers that answer or don't."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = Slots(total=TOTAL, per_receiver=EACH)
        self.calls: list[str] = []

    @rule(receiver=RECEIVERS)
    def start(self, receiver: str) -> None:
        if self.slots.free and self.slots.taken(sample).get(receiver, 0) < EACH:
            self.slots.take(receiver)
            self.calls.append(receiver)

    @precondition(lambda self: self.calls)
    @rule(number=st.integers(0), answered=st.booleans())
    def end(self, number: int, answered: bool) -> None:
        receiver = self.calls.pop(number % len(self.calls))
        self.slots.note(receiver, answered=answered)
        self.slots.give_back(receiver)

    @invariant()
    def the_limits_hold(self) -> None:
        assert self.slots.free == TOTAL - len(self.calls) >= 0
        assert max(Counter(self.calls).values(), default=0) <= EACH

    @invariant()
    def whoever_is_not_busy_and_not_silent_has_every_slot(self) -> None:
        taken = self.slots.taken(sample)
        assert all(0 < number <= EACH for number in taken.values())
        assert "https://new.example.com:443" not in taken


TestCalls = Calls.TestCase


@given(st.lists(st.tuples(RECEIVERS, st.booleans())))
def test_the_last_word_about_a_receiver_counts(words: list[tuple[str, bool]]) -> None:
    slots = Slots(total=100, per_receiver=EACH)
    for receiver, answered in words:
        slots.note(receiver, answered=answered)
    silent = {receiver for receiver, answered in dict(words).items() if not answered}
    assert slots.taken(sample) == dict.fromkeys(silent, EACH - 1)
