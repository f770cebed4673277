"""What a call costs: exact to the nanodollar, and rounded up once where it must be."""

from decimal import Decimal
from fractions import Fraction
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyserver.gateway.tariff import Quantities, Quote, Rate, RateBook, RatesPrice, Unit, matches

prices = st.decimals(min_value=0, max_value=10_000, places=12)
margins = st.decimals(min_value="0.01", max_value=100, places=6)
counts = st.integers(0, 10**9)
quantities = st.builds(
    Quantities,
    input_tokens=counts,
    output_tokens=counts,
    images=counts,
    characters=counts,
    seconds=st.decimals(min_value=0, max_value=10**6, places=3),
)
rates = st.builds(Rate, st.just("chat"), st.just("m"), st.sampled_from(Unit), prices)


def a_rate(unit: Unit, price_usd: str, *, model: str = "*", capability: str = "chat", fallback: bool = False) -> Rate:
    return Rate(capability, model, unit, Decimal(price_usd), fallback)


def quote(*rates: Rate, margin: str = "1") -> Quote:
    return Quote(RatesPrice(rates), Decimal(margin))


@pytest.mark.parametrize(
    ("unit", "taken"),
    [
        (Unit.INPUT_TOKENS, Quantities(input_tokens=1_000, output_tokens=5)),
        (Unit.OUTPUT_TOKENS, Quantities(input_tokens=5, output_tokens=1_000)),
        (Unit.TOKENS, Quantities(input_tokens=400, output_tokens=600)),
        (Unit.REQUEST, Quantities(input_tokens=77)),
        (Unit.IMAGE, Quantities(images=1)),
        (Unit.SECOND, Quantities(seconds=Decimal(1))),
        (Unit.CHARACTERS, Quantities(characters=1_000)),
    ],
)
def test_one_of_each_unit_costs_its_price(unit: Unit, taken: Quantities) -> None:
    assert quote(a_rate(unit, "0.25")).price_of(taken) == 250_000_000


def test_the_units_of_one_pattern_add_up() -> None:
    both = quote(a_rate(Unit.INPUT_TOKENS, "0.001"), a_rate(Unit.OUTPUT_TOKENS, "0.002"), a_rate(Unit.REQUEST, "0.5"))
    assert both.price_of(Quantities(input_tokens=3_000, output_tokens=500)) == 504_000_000


def test_a_fraction_of_a_nanodollar_is_rounded_up_in_the_cost_and_again_in_the_charge() -> None:
    cheap = quote(a_rate(Unit.INPUT_TOKENS, "0.000001"), margin="1.3")
    assert cheap.price_of(Quantities(input_tokens=1)) == 1
    assert cheap.charge_nanos(1) == 2
    assert cheap.charge_nanos(10) == 13


@settings(deadline=None)
@given(rates=st.lists(rates, max_size=5), taken=quantities, margin=margins)
def test_cost_and_charge_are_never_less_than_exact_and_less_than_a_nanodollar_more(
    rates: list[Rate], taken: Quantities, margin: Decimal
) -> None:
    priced = Quote(RatesPrice(tuple(rates)), margin)
    exact = (
        sum(
            (
                Fraction(rate.price_usd) * taken.count(rate.unit) / (1000 if rate.unit.startswith("1K") else 1)
                for rate in rates
            ),
            Fraction(0),
        )
        * 10**9
    )
    cost = priced.price_of(taken)
    assert type(cost) is int
    assert 0 <= cost - exact < 1
    charge = priced.charge_nanos(cost)
    assert type(charge) is int
    assert 0 <= charge - cost * Fraction(margin) < 1


@settings(deadline=None)
@given(rates=st.lists(rates, min_size=1, max_size=4), more=st.integers(0, 10**6), taken=quantities)
def test_more_never_costs_less(rates: list[Rate], more: int, taken: Quantities) -> None:
    priced = quote(*rates)
    longer = Quantities(input_tokens=taken.input_tokens, output_tokens=taken.output_tokens + more)
    shorter = Quantities(input_tokens=taken.input_tokens, output_tokens=taken.output_tokens)
    assert priced.price_of(longer) >= priced.price_of(shorter)


PATTERNS = ["gpt-4o-mini", "gpt-4o-min?", "gpt-4o-*", "gpt-4o*", "*-mini", "gpt-*", "*"]


@pytest.mark.parametrize("order", [PATTERNS, PATTERNS[::-1], PATTERNS[3:] + PATTERNS[:3]])
def test_the_most_specific_pattern_wins_in_whatever_order_they_were_set(order: list[str]) -> None:
    remaining = list(order)
    for winner in PATTERNS:
        book = RateBook([a_rate(Unit.REQUEST, "1", model=pattern) for pattern in remaining])
        price = book.own("chat", "gpt-4o-mini")
        assert price is not None
        assert [rate.model for rate in price.rates] == [winner]
        remaining.remove(winner)


def test_patterns_as_specific_as_each_other_are_decided_by_the_alphabet() -> None:
    for order in permutations(["a*c", "ab*", "*bc"]):
        price = RateBook([a_rate(Unit.REQUEST, "1", model=pattern) for pattern in order]).own("chat", "abc")
        assert price is not None
        assert price.rates[0].model == "*bc"


def test_a_rate_is_of_one_capability_and_a_fallback_stands_apart() -> None:
    book = RateBook([a_rate(Unit.REQUEST, "1"), a_rate(Unit.REQUEST, "2", fallback=True)])
    own, fallback = book.own("chat", "m"), book.fallback("chat", "m")
    assert own is not None and own.rates[0].price_usd == 1
    assert fallback is not None and fallback.rates[0].price_usd == 2
    assert book.own("images", "m") is None
    assert book.fallback("images", "m") is None


@pytest.mark.parametrize(
    ("pattern", "model", "hit"),
    [
        ("gpt-4o", "gpt-4o", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4?", "gpt-4o", True),
        ("*/llama-*", "meta/llama-3", True),
        ("a[b]c", "a[b]c", True),
        ("a[b]c", "abc", False),
        ("GPT-4o", "gpt-4o", False),
        ("*a*a*a*a*a*a*a*a*b", "a" * 256, False),
    ],
)
def test_only_the_star_and_the_question_mark_are_special(pattern: str, model: str, hit: bool) -> None:
    assert matches(pattern, model) is hit
