"""The default price list: the bundled data alone, and the same sums as the library that brings it."""

import socket
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, NoReturn

import pytest
from genai_prices import Usage, calc_price
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from keyserver.gateway import price_list
from keyserver.gateway.capabilities import Capability
from keyserver.gateway.price_list import listed_price
from keyserver.gateway.tariff import Quantities

OPENAI = "https://api.openai.com/v1"
ELSEWHERE = "http://127.0.0.1:8080/v1"
NOW = datetime(2026, 11, 20, 12, 34, 56, tzinfo=UTC)


def cost(capability: str, model: str, taken: Quantities, *, base_url: str = OPENAI) -> Fraction:
    price = listed_price(capability, model, base_url=base_url, now=NOW)
    assert price is not None
    return price.cost_usd(taken)


def test_no_byte_leaves_for_a_price(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("the price list wants to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    price_list._looked_up.cache_clear()
    assert cost("chat", "gpt-4o-mini", Quantities(input_tokens=1_000_000)) > 0
    assert listed_price("chat", "nobody-knows-this", base_url=ELSEWHERE, now=NOW) is None


def test_a_model_is_found_by_its_upstream_its_name_or_its_maker() -> None:
    million = Quantities(input_tokens=1_000_000)
    of_openai = cost("chat", "gpt-4o", million)
    assert cost("chat", "gpt-4o", million, base_url=ELSEWHERE) == of_openai
    assert cost("chat", "openai/gpt-4o", million, base_url=ELSEWHERE) == of_openai
    assert cost("embeddings", "text-embedding-3-small", million, base_url=ELSEWHERE) == Fraction("0.02")
    assert cost("chat", "claude-sonnet-4-20250514", million, base_url=ELSEWHERE) == 3


def test_seconds_and_characters_are_priced_where_models_are_sold_by_them() -> None:
    assert cost("transcriptions", "whisper-1", Quantities(seconds=Decimal(90))) == Fraction("0.009")
    assert cost("speech", "tts-1", Quantities(characters=2_000)) == Fraction("0.03")


@pytest.mark.parametrize(
    ("capability", "model"), [("chat", "whisper-1"), ("chat", "tts-1"), ("speech", "whisper-1"), ("sms", "gpt-4o")]
)
def test_a_model_that_is_not_sold_for_a_capability_has_no_price_there(capability: str, model: str) -> None:
    assert listed_price(capability, model, base_url=OPENAI, now=NOW) is None


def test_a_dearer_service_tier_costs_more() -> None:
    standard = cost("chat", "o3", Quantities(input_tokens=1_000_000, output_tokens=1_000_000))
    for tier, dearer in (("priority", True), ("flex", False)):
        taken = Quantities(input_tokens=1_000_000, output_tokens=1_000_000, service_tier=tier)
        assert (cost("chat", "o3", taken) > standard) is dearer
    assert cost("chat", "o3", Quantities(input_tokens=1_000_000, output_tokens=1_000_000, service_tier="?")) == standard


def _token_priced() -> list[str]:
    """Models of a few makers whose prices are all of kinds that both sides know how to fill in."""
    found = []
    for provider in get_snapshot().providers:
        if provider.id in {"openai", "anthropic", "google", "groq", "deepseek"}:
            found += [f"{provider.id}:{model.id}" for model in provider.models]
    return found


@settings(deadline=None)
@given(
    named=st.sampled_from(_token_priced()),
    inputs=st.integers(0, 1_000_000),
    outputs=st.integers(0, 1_000_000),
    cached=st.floats(0, 1),
    written=st.floats(0, 1),
)
def test_our_sums_are_the_library_s(named: str, inputs: int, outputs: int, cached: float, written: float) -> None:
    provider_id, _, model_id = named.partition(":")
    provider = next(each for each in get_snapshot().providers if each.id == provider_id)
    model = next(each for each in provider.models if each.id == model_id)
    if "input_mtok" not in vars(model.get_prices(NOW)):
        return
    cached_tokens = int(inputs * cached)
    cache_write_tokens = int((inputs - cached_tokens) * written)
    ours = price_list._prices(model.get_prices(NOW)).cost_usd(
        Quantities(
            input_tokens=inputs,
            output_tokens=outputs,
            cached_input_tokens=cached_tokens,
            cache_write_tokens=cache_write_tokens,
        )
    )
    usage = Usage(
        input_tokens=inputs,
        output_tokens=outputs,
        cache_read_tokens=cached_tokens,
        cache_write_tokens=cache_write_tokens,
    )
    theirs = model.calc_price(usage, provider, genai_request_timestamp=NOW).total_price
    assert abs(ours - Fraction(theirs)) < Fraction(1, 10**20)


def test_a_price_is_looked_up_by_the_library_once_a_minute_and_not_at_every_call() -> None:
    price_list._looked_up.cache_clear()
    for second in range(60):
        listed_price(Capability.CHAT, "gpt-4o", base_url=OPENAI, now=NOW.replace(second=second))
    assert price_list._looked_up.cache_info().misses == 1


def test_the_library_s_own_example_costs_the_same_here() -> None:
    theirs = calc_price(Usage(input_tokens=1000, output_tokens=100), model_ref="gpt-4o", provider_id="openai")
    assert cost("chat", "gpt-4o", Quantities(input_tokens=1000, output_tokens=100)) == Fraction(theirs.total_price)
