"""What a call will take, told from its request: close to what a tokenizer would count, and never a crash."""

import struct
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyserver.gateway.audio import seconds_of
from keyserver.gateway.capabilities import Capability
from keyserver.gateway.estimate import EstimatePolicy, estimate_nanos, expected
from keyserver.gateway.tariff import Quantities, Quote, Rate, RatesPrice, Unit
from keyserver.gateway.tokens import tokens_of, weight_of

PYTHON = 'def fibonacci(n: int) -> int:\n    """The n-th number."""\n    a, b = 0, 1\n    for _ in range(n):\n'
PYTHON += "        a, b = b, a + b\n    return a\n"
#: The first article of the Universal Declaration of Human Rights and the like, with what tiktoken counts in the
#: encodings o200k_base and cl100k_base.
COUNTED = {
    "English": (
        "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience "
        "and should act towards one another in a spirit of brotherhood.",
        33,
        33,
    ),
    "German": (
        "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt "
        "und sollen einander im Geist der Brüderlichkeit begegnen.",
        38,
        44,
    ),
    "Russian": (
        "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью и "  # noqa: RUF001
        "должны поступать в отношении друг друга в духе братства.",
        41,
        74,
    ),
    "Chinese": ("人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。", 37, 52),
    "Japanese": ("お誕生日おめでとう", 8, 9),
    "Python": (PYTHON, 49, 49),
    "JSON": (
        '{"id":"je_0199","posted_at":"2026-03-01T12:00:00.000Z","amount_nanos":250000000,"side":"debit",'
        '"account_code":"2000:acme"}',
        49,
        48,
    ),
    "digits": ("31415926535897932384626433832795028841971693993751", 17, 17),
    "hexadecimal": (
        "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913 7b7439a4aed8e59690de06dabf63155a4ad612d6a454161fd8a3cfae62222",
        64,
        65,
    ),
    "word": ("antidisestablishmentarianism", 6, 6),
    "sum": ("2 + 2 = 4", 7, 7),
}


def chat(**members: Any) -> Quantities:
    return expected(Capability.CHAT, {"model": "m", **members}, raw_size=0)


@pytest.mark.parametrize("name", COUNTED)
def test_a_text_has_between_half_and_three_times_the_tokens_that_were_counted(name: str) -> None:
    text, new, old = COUNTED[name]
    estimate = tokens_of(weight_of(text))
    assert min(new, old) * 0.5 <= estimate <= min(new, old) * 3


@pytest.mark.parametrize("name", ["English", "German", "Python", "JSON"])
def test_prose_and_code_are_told_to_within_a_third(name: str) -> None:
    text, new, _ = COUNTED[name]
    assert abs(tokens_of(weight_of(text)) - new) <= new / 3


def test_every_part_of_a_chat_counts() -> None:
    bare = chat(messages=[{"role": "user", "content": "Hello"}]).input_tokens
    assert chat(messages=[{"role": "user", "content": "Hello"}] * 2).input_tokens > bare
    assert chat(messages=[{"role": "user", "content": "Hello"}], tools=[{"type": "function"}]).input_tokens > bare
    parts = [{"type": "text", "text": "Hello"}]
    assert chat(messages=[{"role": "user", "content": parts}]).input_tokens > bare


def test_an_image_counts_as_an_image_and_not_as_the_text_of_its_data() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}}
    assert 1_445 <= chat(messages=[{"role": "user", "content": [image]}]).input_tokens < 1_500
    low = {"type": "image_url", "image_url": {**image["image_url"], "detail": "low"}}  # type: ignore[dict-item]
    assert 85 <= chat(messages=[{"role": "user", "content": [low]}]).input_tokens < 100


def test_sound_in_a_message_counts_by_its_seconds() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 320_000, "format": "mp3"}}
    assert 600 <= chat(messages=[{"role": "user", "content": [sound]}]).input_tokens < 620


@pytest.mark.parametrize(
    ("members", "tokens"),
    [
        ({}, 2048),
        ({"max_tokens": 10}, 10),
        ({"max_completion_tokens": 20, "max_tokens": 10}, 20),
        ({"max_tokens": 10, "n": 3}, 30),
        ({"n": 2}, 4096),
        ({"max_tokens": "many", "n": None}, 2048),
        ({"max_tokens": -5, "n": True}, 2048),
        ({"max_tokens": 10**30}, 100_000_000),
    ],
)
def test_the_answer_is_as_long_as_it_may_be(members: dict[str, Any], tokens: int) -> None:
    assert chat(messages=[], **members).output_tokens == tokens


@pytest.mark.parametrize(
    ("given_input", "tokens"), [([[1, 2, 3], [4]], 4), ([1] * 50, 50), ("word", 1), (["word", "word"], 2)]
)
def test_an_embedding_takes_its_text_or_the_tokens_it_is_given(given_input: Any, tokens: int) -> None:
    taken = expected(Capability.EMBEDDINGS, {"input": given_input}, raw_size=0)
    assert (taken.input_tokens, taken.output_tokens) == (tokens, 0)


def test_images_are_counted_and_the_better_ones_take_more_tokens() -> None:
    def images(**members: Any) -> Quantities:
        return expected(Capability.IMAGES, {"prompt": "a cat", **members}, raw_size=0)

    assert images(n=3).images == 3
    assert images().images == 1
    assert images(quality="low").output_tokens < images(quality="medium").output_tokens < images().output_tokens
    assert images(size="1024x1024").output_tokens < images(size="1536x1024").output_tokens == images().output_tokens
    assert images(n=2, quality="low").output_tokens == 2 * images(quality="low").output_tokens


def test_speech_counts_characters_and_the_time_they_take() -> None:
    taken = expected(Capability.SPEECH, {"input": "ä" * 1200}, raw_size=0)
    assert (taken.characters, taken.seconds, taken.output_tokens) == (1200, Decimal(100), 2000)


def a_wav(seconds: int) -> bytes:
    rate = 32_000
    form = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 0, b"WAVE", b"fmt ", 16, 1, 1, 16_000, rate, 2, 16)
    return form + b"data" + struct.pack("<I", rate * seconds) + bytes(rate * seconds)


def a_flac_head(seconds: int) -> bytes:
    packed = (44_100 << 44) | (1 << 41) | (15 << 36) | (44_100 * seconds)
    return b"fLaC\x80\x00\x00\x22" + bytes(10) + packed.to_bytes(8) + bytes(16)


def test_the_length_of_a_sound_file_is_read_from_its_head() -> None:
    wav = a_wav(7)
    assert Decimal(7) <= seconds_of(len(wav), head=wav[:64]) < Decimal("7.01")
    assert seconds_of(1_000_000, head=a_flac_head(33)) == 33


def test_any_other_sound_file_is_taken_for_compressed_speech() -> None:
    assert seconds_of(40_000, head=b"ID3") == 10
    assert seconds_of(0) == 0
    assert seconds_of(40_000, head=b"RIFF\0\0\0\0WAVEfmt " + bytes(48)) == 10


def test_a_transcription_takes_the_seconds_of_its_file() -> None:
    assert expected(Capability.TRANSCRIPTIONS, {"model": "m"}, raw_size=40_000).seconds == 10


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)
members = st.sampled_from(["messages", "prompt", "input", "tools", "n", "max_tokens", "quality", "service_tier"])
bodies = st.dictionaries(members, json_values, max_size=5)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(capability=st.sampled_from(Capability), body=bodies, raw_size=st.integers(0, 10**8), head=st.binary(max_size=64))
def test_nothing_a_client_sends_breaks_the_estimate(
    capability: Capability, body: dict[str, Any], raw_size: int, head: bytes
) -> None:
    taken = expected(capability, body, raw_size=raw_size, head=head)
    assert min(taken.input_tokens, taken.output_tokens, taken.images, taken.characters) >= 0
    assert taken.seconds >= 0
    assert taken.requests == 1


def test_what_is_held_lies_between_floor_and_cap() -> None:
    policy = EstimatePolicy(floor_nanos=500, cap_nanos=2_000_000_000)

    def held(price_usd: str) -> int:
        rate = Rate("chat", "*", Unit.REQUEST, Decimal(price_usd))
        return estimate_nanos(Quote(RatesPrice((rate,)), Decimal("1.3")), Quantities(), policy=policy)

    assert held("0") == 500
    assert held("0.5") == 650_000_000
    assert held("9") == 2_000_000_000
