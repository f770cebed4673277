"""The circuit breaker, by hand and against whatever may happen to it."""

from hypothesis import given
from hypothesis import strategies as st

from keyserver.gateway.breaker import Breaker, BreakerState


def opened(*, at: float = 0.0) -> Breaker:
    breaker = Breaker(threshold=3, cool_down=10.0)
    for _ in range(3):
        assert breaker.allows(at)
        breaker.failed(at)
    return breaker


def test_failures_in_a_row_open_it() -> None:
    breaker = opened()

    assert breaker.state(1.0) is BreakerState.OPEN
    assert not breaker.allows(9.9)
    assert breaker.retry_after(4.0) == 6.0


def test_a_success_between_failures_keeps_it_closed() -> None:
    breaker = Breaker(threshold=3)
    for _ in range(10):
        breaker.failed(0.0)
        breaker.failed(0.0)
        breaker.succeeded()

    assert breaker.state(0.0) is BreakerState.CLOSED


def test_half_open_lets_one_call_through_at_a_time() -> None:
    breaker = opened()

    assert breaker.state(10.0) is BreakerState.HALF_OPEN
    assert [breaker.allows(10.0) for _ in range(3)] == [True, False, False]


def test_a_probe_that_succeeds_closes_it() -> None:
    breaker = opened()
    breaker.allows(10.0)
    breaker.succeeded()

    assert [breaker.allows(10.0) for _ in range(3)] == [True, True, True]


def test_a_probe_that_fails_opens_it_for_as_long_again() -> None:
    breaker = opened()
    breaker.allows(10.0)
    breaker.failed(11.0)

    assert not breaker.allows(20.9)
    assert breaker.allows(21.0)


def test_a_probe_that_tells_nothing_gives_its_place_back() -> None:
    breaker = opened()
    breaker.allows(10.0)
    breaker.released()

    assert breaker.allows(10.0)


def test_a_call_from_before_it_opened_does_not_keep_it_open_longer() -> None:
    breaker = opened(at=0.0)
    breaker.failed(9.0)

    assert breaker.allows(10.0)


_STEPS = st.lists(
    st.tuples(st.sampled_from(["ask", "succeeded", "failed", "released"]), st.floats(0.0, 20.0)), max_size=60
)


@given(_STEPS)
def test_it_never_refuses_for_ever(steps: list[tuple[str, float]]) -> None:
    """Whatever happened: once calls have told how they went, a cool-down later one is let through."""
    breaker, now, running = Breaker(threshold=2, cool_down=5.0), 0.0, 0
    for step, later in steps:
        now += later
        if step == "ask":
            running += breaker.allows(now)
        elif running:
            running -= 1
            breaker.failed(now) if step == "failed" else getattr(breaker, step)()
    for _ in range(running):
        breaker.released()

    assert breaker.allows(now + 5.0)
