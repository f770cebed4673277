"""One price out of several, or the reason why there is none."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyserver.pricing.consensus import NoPrice, Pin, Policy, Price, SourcePrice, decide, median

NOW = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)
POLICY = Policy(max_age=timedelta(seconds=300), max_deviation=Decimal("0.05"), stablecoin_band=Decimal("0.02"))


def seen(source: str, price: str | Decimal, *, age: float = 10) -> SourcePrice:
    return SourcePrice(source=source, price_usd=Decimal(price), observed_at=NOW - timedelta(seconds=age))


def decided(*observations: SourcePrice, pin: Pin | None = None, stablecoin: bool = False) -> Price:
    return decide(observations, pin, token="LTC", now=NOW, policy=POLICY, stablecoin=stablecoin)


def refusal(*observations: SourcePrice, stablecoin: bool = False) -> str:
    with pytest.raises(NoPrice) as raised:
        decided(*observations, stablecoin=stablecoin)
    return raised.value.reason


def test_three_sources_give_the_median_and_are_all_named() -> None:
    price = decided(seen("kraken", "80.2"), seen("coinbase", "80.4", age=40), seen("coingecko", "80.3"))
    assert price == Price(Decimal("80.3"), "coinbase+coingecko+kraken", NOW - timedelta(seconds=40))


def test_two_sources_give_their_exact_mean() -> None:
    price = decided(seen("kraken", "80.123456789012345678901234567891"), seen("coinbase", "80.2"))
    assert price.price_usd == Decimal("80.1617283945061728394506172839455")


def test_one_fresh_source_is_enough() -> None:
    assert decided(seen("kraken", "80"), seen("coinbase", "90", age=301)).source == "kraken"


def test_an_outlier_is_left_out_and_not_named() -> None:
    price = decided(seen("coingecko", "1"), seen("kraken", "80"), seen("coinbase", "82"))
    assert (price.price_usd, price.source) == (Decimal(81), "coinbase+kraken")


def test_two_sources_that_disagree_leave_no_price() -> None:
    assert refusal(seen("coingecko", "1"), seen("kraken", "80.50")) == (
        "the sources for LTC differ by more than 5% from their median: coingecko 1 USD, kraken 80.5 USD"
    )


def test_the_deviation_itself_is_still_allowed() -> None:
    assert decided(seen("a", "95"), seen("b", "105")).price_usd == 100
    refusal(seen("a", "94.999999"), seen("b", "105.000001"))


def test_half_of_the_sources_is_no_majority() -> None:
    refusal(seen("a", "50"), seen("b", "100"), seen("c", "101"), seen("d", "200"))
    assert decided(seen("a", "50"), seen("b", "100"), seen("c", "101"), seen("d", "102")).source == "b+c+d"


def test_three_sources_far_apart_leave_no_price() -> None:
    refusal(seen("a", "50"), seen("b", "100"), seen("c", "200"))


def test_an_old_price_does_not_count_and_the_reason_says_how_old_it_is() -> None:
    assert decided(seen("kraken", "80", age=300)).price_usd == 80
    assert refusal(seen("kraken", "80", age=300.001), seen("coingecko", "80", age=812)) == (
        "no source has answered for LTC in the last 300 s: coingecko 812 s ago, kraken 300 s ago"
    )


def test_a_price_from_the_future_does_not_count_beyond_a_clock_error_of_a_minute() -> None:
    assert decided(seen("kraken", "80", age=-60)).price_usd == 80
    assert "kraken 61 s in the future" in refusal(seen("kraken", "80", age=-61))


def test_a_token_nobody_knows_has_no_price() -> None:
    assert refusal() == "no source has ever answered for LTC"


def test_a_pin_wins_over_every_source_however_old_it_is() -> None:
    pinned_at = NOW - timedelta(days=400)
    price = decided(seen("kraken", "80"), seen("coinbase", "80"), pin=Pin(Decimal("1.5"), pinned_at))
    assert price == Price(Decimal("1.5"), "manual", pinned_at)


def test_a_pin_wins_over_the_par_of_a_stablecoin() -> None:
    assert decided(seen("kraken", "1"), pin=Pin(Decimal("0.9"), NOW), stablecoin=True).price_usd == Decimal("0.9")


@pytest.mark.parametrize("market", ["0.98", "0.9997", "1", "1.02"])
def test_a_stablecoin_inside_its_band_is_worth_exactly_one_dollar(market: str) -> None:
    assert decided(seen("kraken", market, age=5), stablecoin=True) == Price(
        Decimal(1), "par", NOW - timedelta(seconds=5)
    )


@pytest.mark.parametrize("market", ["0.979999", "1.020001", "0.12"])
def test_a_stablecoin_off_its_peg_is_worth_what_the_market_says(market: str) -> None:
    price = decided(seen("kraken", market), stablecoin=True)
    assert (price.price_usd, price.source) == (Decimal(market), "kraken")


def test_par_is_never_assumed_when_no_market_was_seen() -> None:
    assert refusal(seen("kraken", "1", age=301), stablecoin=True).startswith("no source has answered")
    assert refusal(stablecoin=True) == "no source has ever answered for LTC"


def test_a_coin_at_one_dollar_that_promises_nothing_keeps_its_market_price() -> None:
    assert decided(seen("kraken", "1.01")).price_usd == Decimal("1.01")


# --- properties -------------------------------------------------------------------------------------------------

prices = st.decimals(min_value="1e-18", max_value="999999999999", allow_nan=False, allow_infinity=False)
ages = st.floats(min_value=-120, max_value=600)


@st.composite
def observations(draw: st.DrawFn, *, min_size: int = 0, max_size: int = 7) -> list[SourcePrice]:
    drawn = draw(st.lists(st.tuples(prices, ages), min_size=min_size, max_size=max_size))
    near = draw(st.booleans())  # prices drawn apart hardly ever agree: half of the time draw them together
    base = drawn[0][0] if drawn and near else None
    return [
        seen(f"s{number}", base * (1 + Decimal(number) / 100) if base else price, age=age)
        for number, (price, age) in enumerate(drawn)
    ]


def outcome(found: Sequence[SourcePrice]) -> Price | str:
    try:
        return decided(*found)
    except NoPrice as error:
        return error.reason


@settings(deadline=None)
@given(observations(), st.randoms(use_true_random=False))
def test_the_order_of_the_sources_does_not_matter(found: list[SourcePrice], random: Random) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)
    assert outcome(shuffled) == outcome(found)


@settings(deadline=None)
@given(observations(min_size=1))
def test_the_price_lies_among_the_fresh_ones_and_only_the_stale_and_lonely_are_refused(
    found: list[SourcePrice],
) -> None:
    fresh = [o.price_usd for o in found if timedelta(seconds=-60) <= NOW - o.observed_at <= POLICY.max_age]
    result = outcome(found)
    if not fresh:
        assert isinstance(result, str)
    if len(fresh) == 1:
        assert isinstance(result, Price)
    if isinstance(result, Price):
        assert min(fresh) <= result.price_usd <= max(fresh)


@settings(deadline=None)
@given(prices, st.decimals(min_value=0, max_value="0.05", places=6), prices)
def test_no_third_source_moves_the_price_outside_two_that_agree(low: Decimal, apart: Decimal, third: Decimal) -> None:
    with localcontext(prec=100):  # no rounding: the two differ by what was drawn
        high = low * (1 + apart)
    result = decided(seen("a", low), seen("b", high), seen("c", third))
    assert low <= result.price_usd <= high


@settings(deadline=None)
@given(st.lists(st.tuples(prices, st.floats(min_value=300.01, max_value=1e6)), max_size=5), st.booleans())
def test_nothing_fresh_is_never_a_price(stale: list[tuple[Decimal, float]], stablecoin: bool) -> None:
    refusal(*(seen(f"s{n}", price, age=age) for n, (price, age) in enumerate(stale)), stablecoin=stablecoin)


@settings(deadline=None)
@given(st.lists(prices, min_size=1, max_size=8))
def test_the_median_has_as_many_above_it_as_below(drawn: list[Decimal]) -> None:
    middle = median(drawn)
    assert sum(price < middle for price in drawn) <= len(drawn) / 2
    assert sum(price > middle for price in drawn) <= len(drawn) / 2
