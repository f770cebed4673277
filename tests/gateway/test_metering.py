"""Reading what an upstream says of a call, whole or in a stream that comes in any pieces."""

import json
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyserver.gateway.capabilities import Capability
from keyserver.gateway.metering import CostSource, Reading, StreamMeter, cost_of, read_answer
from keyserver.gateway.tariff import Quantities, Quote, Rate, RatesPrice, Unit

CHAT = Capability.CHAT
SENT = Quantities(input_tokens=100, output_tokens=2048)
QUOTE = Quote(
    RatesPrice(
        (
            Rate("chat", "*", Unit.INPUT_TOKENS, Decimal("0.001")),
            Rate("chat", "*", Unit.OUTPUT_TOKENS, Decimal("0.002")),
        )
    ),
    Decimal("1.3"),
)
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def read(document: dict[str, Any], capability: Capability = CHAT, **headers: str) -> Reading:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_answer(capability, document, named)


def cost(reading: Reading, sent: Quantities = SENT) -> tuple[int, CostSource]:
    return cost_of(reading, quote=QUOTE, sent=sent)


# --- whole answers ----------------------------------------------------------------------------------------------


def test_the_upstream_s_own_cost_goes_before_its_usage() -> None:
    assert cost(read({"usage": USAGE | {"cost": 0.0000125}})) == (12_500, CostSource.UPSTREAM)
    assert cost(read({"usage": USAGE}, X_OpenRouter_Cost="0.00002")) == (20_000, CostSource.UPSTREAM)
    both = read({"usage": USAGE | {"cost": 0.5}}, x_openrouter_cost="0.00002")
    assert cost(both) == (20_000, CostSource.UPSTREAM)


def test_a_cost_of_nothing_is_a_cost_and_a_fraction_of_a_nanodollar_is_rounded_up() -> None:
    assert cost(read({"usage": USAGE | {"cost": 0}})) == (0, CostSource.UPSTREAM)
    assert cost(read({"usage": USAGE | {"cost": 1.00000000001e-05}})) == (10_001, CostSource.UPSTREAM)


def test_with_a_provider_s_key_of_one_s_own_that_provider_s_share_is_added() -> None:
    usage = USAGE | {"cost": 0.001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.02}}
    assert cost(read({"usage": usage})) == (21_000_000, CostSource.UPSTREAM)
    assert cost(read({"usage": usage | {"is_byok": False}})) == (1_000_000, CostSource.UPSTREAM)


def test_without_a_cost_the_usage_is_priced() -> None:
    assert cost(read({"usage": USAGE})) == (20_000, CostSource.USAGE)


def test_without_a_usage_what_was_sent_and_seen_is_priced_and_marked_as_an_estimate() -> None:
    answer = {"choices": [{"message": {"role": "assistant", "content": "All human beings are born free and equal."}}]}
    nanos, source = cost(read(answer))
    assert source is CostSource.ESTIMATE
    assert 100_000 + 6 * 2_000 <= nanos <= 100_000 + 12 * 2_000


@pytest.mark.parametrize("value", ["NaN", "-1", "1e99", "Infinity", "", "a lot", "1_0", "\u0661"])
def test_an_impossible_cost_is_none(value: str) -> None:
    assert cost(read({"usage": USAGE}, x_openrouter_cost=value)) == (20_000, CostSource.USAGE)


@pytest.mark.parametrize("wrong", [-1, True, "10", 1.5, 10**12, float("nan"), [], {}])
def test_an_impossible_count_makes_the_whole_usage_none(wrong: Any) -> None:
    assert cost(read({"usage": USAGE | {"completion_tokens": wrong}}))[1] is CostSource.ESTIMATE


@pytest.mark.parametrize("usage", [None, {}, [], 7, {"prompt_tokens": 0, "completion_tokens": 0}, {"total_tokens": 3}])
def test_a_usage_that_counts_nothing_is_none(usage: Any) -> None:
    assert cost(read({"usage": usage}))[1] is CostSource.ESTIMATE


def test_a_count_of_nothing_needs_no_estimate_where_only_requests_have_a_price() -> None:
    by_request = Quote(RatesPrice((Rate("chat", "*", Unit.REQUEST, Decimal("0.01")),)), Decimal(1))
    assert cost_of(read({}), quote=by_request, sent=SENT) == (10_000_000, CostSource.USAGE)


def test_parts_of_the_tokens_are_told_apart() -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 7},
        "completion_tokens_details": {"reasoning_tokens": 20, "audio_tokens": 3},
    }
    taken = read({"usage": usage, "service_tier": "flex"}).taken(SENT)
    assert (taken.input_tokens, taken.cached_input_tokens, taken.input_audio_tokens) == (100, 60, 7)
    assert (taken.output_tokens, taken.output_audio_tokens, taken.service_tier) == (50, 3, "flex")


def test_images_are_counted_even_by_an_upstream_that_counts_no_tokens() -> None:
    by_image = Quote(RatesPrice((Rate("images", "*", Unit.IMAGE, Decimal("0.04")),)), Decimal(1))
    sent = Quantities(images=4, output_tokens=6240)
    two = read({"data": [{"b64_json": ""}, {"b64_json": ""}]}, Capability.IMAGES)
    assert cost_of(two, quote=by_image, sent=sent) == (80_000_000, CostSource.USAGE)
    assert cost_of(two, quote=QUOTE, sent=sent)[1] is CostSource.ESTIMATE
    usage = {"input_tokens": 10, "output_tokens": 5, "input_tokens_details": {"image_tokens": 4, "text_tokens": 6}}
    taken = read({"data": [{}], "usage": usage}, Capability.IMAGES).taken(sent)
    assert (taken.images, taken.input_image_tokens, taken.output_image_tokens) == (1, 4, 5)


@pytest.mark.parametrize(
    "answer",
    [{"text": "", "usage": {"type": "duration", "seconds": 12}}, {"text": "", "duration": 12.0}, {"duration": "12"}],
)
def test_a_transcription_is_counted_in_seconds(answer: dict[str, Any]) -> None:
    by_second = Quote(RatesPrice((Rate("transcriptions", "*", Unit.SECOND, Decimal("0.0001")),)), Decimal(1))
    reading = read(answer, Capability.TRANSCRIPTIONS)
    assert cost_of(reading, quote=by_second, sent=Quantities(seconds=Decimal(99))) == (1_200_000, CostSource.USAGE)


def test_embeddings_have_no_output() -> None:
    taken = read({"usage": {"prompt_tokens": 8, "total_tokens": 8}}, Capability.EMBEDDINGS).taken(SENT)
    assert (taken.input_tokens, taken.output_tokens) == (8, 0)


# --- streams ----------------------------------------------------------------------------------------------------


def event(document: Any, *, end: str = "\n\n") -> bytes:
    return f"data: {json.dumps(document)}{end}".encode()


def delta(text: str, **members: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": {"content": text}}], **members}


HELLO = event(delta("Hello")) + event(delta(" there"))
USAGE_CHUNK = event({"id": "c", "choices": [], "usage": USAGE})
DONE = b"data: [DONE]\n\n"


def run(meter: StreamMeter, *chunks: bytes) -> bytes:
    return b"".join(meter.feed(chunk) for chunk in chunks) + meter.finish()


def meter(*, usage_asked: bool = False, capability: Capability = CHAT, stated: str | None = None) -> StreamMeter:
    headers = {} if stated is None else {"X-OpenRouter-Cost": stated}
    return StreamMeter(capability, usage_asked=usage_asked, headers=headers)


def test_the_usage_chunk_is_read_and_kept_from_a_client_that_did_not_ask() -> None:
    metered = meter()
    assert run(metered, HELLO + USAGE_CHUNK + DONE) == HELLO + DONE
    assert metered.done
    assert cost(metered.reading) == (20_000, CostSource.USAGE)


def test_a_client_that_asked_gets_every_byte() -> None:
    stream = event(delta("Hello", usage=None)) + USAGE_CHUNK + DONE
    metered = meter(usage_asked=True)
    assert run(metered, stream) == stream
    assert cost(metered.reading) == (20_000, CostSource.USAGE)


def test_the_null_usage_that_asking_adds_is_taken_out_again() -> None:
    asked = delta('say ,"usage":null} twice', usage=None)
    plain = delta('say ,"usage":null} twice')
    assert run(meter(), event(asked) + DONE) == event(plain) + DONE
    compact = b'data: {"choices":[{"delta":{"content":"x"}}],"usage":null,"id":"c"}\n\n'
    assert run(meter(), compact) == b'data: {"choices":[{"delta":{"content":"x"}}],"id":"c"}\n\n'


def test_a_usage_beside_choices_is_the_upstream_s_own_habit_and_stays() -> None:
    last = event(delta("", usage=USAGE))
    metered = meter()
    assert run(metered, HELLO + last + DONE) == HELLO + last + DONE
    assert cost(metered.reading) == (20_000, CostSource.USAGE)


def test_a_chunk_without_choices_and_without_usage_stays() -> None:
    filtered = event({"choices": [], "prompt_filter_results": []})
    assert run(meter(), filtered + DONE) == filtered + DONE


def test_the_end_is_kept_back_so_that_the_cost_can_be_told_before_it() -> None:
    metered = meter()
    assert metered.feed(HELLO + DONE) == HELLO
    assert metered.done
    assert metered.feed(b": late\n\n") == b""
    assert metered.finish() == DONE + b": late\n\n"


def test_a_cost_in_the_stream_or_its_headers_is_the_upstream_s_word() -> None:
    metered = meter()
    run(metered, event({"choices": [], "usage": USAGE | {"cost": 0.25}}))
    assert cost(metered.reading) == (250_000_000, CostSource.UPSTREAM)
    by_header = meter(stated="0.5")
    run(by_header, HELLO)
    assert cost(by_header.reading) == (500_000_000, CostSource.UPSTREAM)


def test_a_stream_that_was_cut_is_charged_for_what_came() -> None:
    metered = meter()
    cut = event(delta("All human beings are born free"))[:-1]
    assert run(metered, HELLO, cut) == HELLO + cut
    taken = metered.reading.taken(SENT)
    assert taken.input_tokens == 100
    assert 6 <= taken.output_tokens <= 12
    assert cost(metered.reading)[1] is CostSource.ESTIMATE


def test_a_usage_sent_before_the_text_it_does_not_count_is_no_word_on_the_text() -> None:
    metered = meter()
    run(metered, event(delta("", usage={"prompt_tokens": 10, "completion_tokens": 0})), HELLO)
    taken = metered.reading.taken(SENT)
    assert taken.input_tokens == 10 and taken.output_tokens >= 2
    assert cost(metered.reading)[1] is CostSource.ESTIMATE
    run(metered, event(delta("", usage=USAGE)))
    assert cost(metered.reading) == (20_000, CostSource.USAGE)


def test_what_is_thought_refused_and_called_counts_as_output() -> None:
    for part in (
        {"reasoning_content": "a long thought"},
        {"refusal": "I would rather not"},
        {"tool_calls": [{"index": 0, "function": {"name": "look_up", "arguments": '{"city": "Bern"}'}}]},
    ):
        metered = meter()
        run(metered, event({"choices": [{"index": 0, "delta": part}]}))
        assert metered.reading.taken(SENT).output_tokens > 2
    completions = meter(capability=Capability.COMPLETIONS)
    run(completions, event({"choices": [{"index": 0, "text": "once upon a time"}]}))
    assert completions.reading.taken(SENT).output_tokens > 2


ODD = [
    b": keep-alive\n\n",
    b"event: message\r\nid: 7\r\nretry: 10\r\n\r\n",
    b'data: {"choices": [{"delta":\ndata: {"content": "over lines"}}]}\n\n',
    b'data:{"choices":[{"delta":{"content":"no space"}}]}\r\r',
    b"data: {broken\n\n",
    b"data: 7\n\ndata\n\n\n\n",
    b"\xef\xbb\xbf",
    b"data: \xff\xfe\n\n",
    HELLO,
    USAGE_CHUNK,
    event({"choices": [], "usage": USAGE}, end="\r\n\r\n"),
    event(delta("x", usage=None), end="\r\r"),
    DONE,
    b"data: [DONE]",
    b"data: cut in the midd",
]


@settings(deadline=None)
@given(
    parts=st.lists(st.sampled_from(ODD), max_size=8), cuts=st.lists(st.integers(0, 600), max_size=12), data=st.data()
)
def test_any_division_into_chunks_gives_the_same_bytes_and_the_same_reading(
    parts: list[bytes], cuts: list[int], data: st.DataObject
) -> None:
    stream = b"".join(parts)
    usage_asked = data.draw(st.booleans())
    whole, divided = meter(usage_asked=usage_asked), meter(usage_asked=usage_asked)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[begin:end] for begin, end in pairwise(edges)]
    passed = run(whole, stream)
    assert run(divided, *chunks) == passed
    assert divided.reading == whole.reading
    assert divided.done == whole.done
    if usage_asked:
        assert passed == stream


def test_an_event_without_an_end_is_not_kept_for_ever() -> None:
    metered = meter()
    piece = b"data: " + b"x" * 1_000_000
    passed = sum(len(metered.feed(piece)) for _ in range(50))
    assert passed > 0
    assert passed + len(metered.finish()) == 50 * len(piece)


@settings(deadline=None)
@given(stream=st.binary(max_size=300))
def test_bytes_that_are_no_events_pass_untouched(stream: bytes) -> None:
    metered = meter()
    assert b"".join(metered.feed(stream[i : i + 1]) for i in range(len(stream))) + metered.finish() == stream
