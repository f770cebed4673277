"""How much a call will take, told from its request in microseconds; nothing is downloaded (pure).

- chat: the text of messages, tools and formats (gateway/tokens.py), names of members included, which is about what
  OpenAI adds a message; an image part 85 tokens at low detail and 1,445 otherwise (eight tiles of 170 and 85, the most
  that OpenAI's scaling gives); audio parts 10 tokens a second; files as text of their size. Completions and embeddings:
  the text, or the number of token ids given.
- answers: `max_completion_tokens`, `max_tokens` or the policy's default, times `n`.
- images: `n`, and tokens by size and quality as OpenAI lists them for gpt-image-1, the largest and best when a request
  does not say.
- speech: characters, and 20 tokens a second at 12 characters a second. Transcriptions: seconds (gateway/audio.py), and
  10 tokens heard and 4 written a second.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any

from keyserver.gateway.audio import seconds_of
from keyserver.gateway.capabilities import Capability
from keyserver.gateway.tariff import Quantities, Quote
from keyserver.gateway.tokens import tokens_of, weight_of

_LOW_DETAIL_TOKENS, _HIGH_DETAIL_TOKENS = 85, 1_445
_MOST_TOKENS = 100_000_000
_MOST_ANSWERS = 1_000
_CHARACTERS_A_SECOND = 12
_HEARD_TOKENS_A_SECOND, _SPOKEN_TOKENS_A_SECOND, _WRITTEN_TOKENS_A_SECOND = 10, 20, 4
#: Base64 has four characters for three bytes.
_BASE64 = Decimal("0.75")
#: By quality: of a square image, and of a larger one.
_IMAGE_TOKENS = {"low": (272, 408), "medium": (1_056, 1_584), "high": (4_160, 6_240)}
_SQUARE = re.compile(r"(\d{1,4})x\1")
_TEXTS = (
    "messages",
    "tools",
    "functions",
    "response_format",
    "prompt",
    "suffix",
    "input",
    "instructions",
    "prediction",
)


@dataclass(frozen=True, slots=True)
class EstimatePolicy:
    """`output_tokens` are expected of a call that names no maximum; floor and cap are of the charge that is held."""

    output_tokens: int = 2_048
    floor_nanos: int = 1_000
    cap_nanos: int = 100_000_000_000


DEFAULT_POLICY = EstimatePolicy()


def expected(
    capability: Capability,
    body: Mapping[str, Any],
    *,
    raw_size: int,
    head: bytes = b"",
    policy: EstimatePolicy = DEFAULT_POLICY,
) -> Quantities:
    """What a call will take. Never raises on a malformed request: refusing it is the upstream's.

    `body` is the request's JSON, or the fields of a form whose file has `raw_size` bytes and begins with `head`.
    """
    tier = body.get("service_tier")
    service_tier = tier if isinstance(tier, str) else None
    match capability:
        case Capability.CHAT | Capability.COMPLETIONS:
            return Quantities(
                input_tokens=_input_tokens(body),
                output_tokens=_output_tokens(body, policy),
                service_tier=service_tier,
            )
        case Capability.EMBEDDINGS:
            return Quantities(input_tokens=_input_tokens(body))
        case Capability.IMAGES:
            return _images(body)
        case Capability.SPEECH:
            return _speech(body)
        case Capability.TRANSCRIPTIONS:
            seconds = seconds_of(raw_size, head=head)
            heard, written = _tokens(seconds, _HEARD_TOKENS_A_SECOND), _tokens(seconds, _WRITTEN_TOKENS_A_SECOND)
            return Quantities(input_tokens=heard, input_audio_tokens=heard, output_tokens=written, seconds=seconds)


def estimate_nanos(quote: Quote, quantities: Quantities, *, policy: EstimatePolicy = DEFAULT_POLICY) -> int:
    """What is held for a call: its expected charge, not less than the floor and not more than the cap."""
    charge = quote.charge_nanos(quote.price_of(quantities))
    return min(max(charge, policy.floor_nanos), policy.cap_nanos)


def _input_tokens(body: Mapping[str, Any]) -> int:
    weight, tokens = _weigh(body[name] for name in _TEXTS if name in body)
    return min(tokens + tokens_of(weight), _MOST_TOKENS)


def _weigh(values: Iterable[Any]) -> tuple[int, int]:
    """The weight of every text inside, and the tokens of what is no text."""
    waiting = list(values)
    weight = tokens = 0
    while waiting:
        value = waiting.pop()
        match value:
            case str():
                weight += weight_of(value)
            case bool() | None:
                weight += 100
            case int():
                tokens += 1
            case list():
                waiting += value
            case dict() if (part := _part_tokens(value)) is not None:
                tokens += part
            case dict():
                waiting += value.keys()
                waiting += value.values()
            case _:
                weight += weight_of(str(value))
    return weight, tokens


def _part_tokens(part: Mapping[str, Any]) -> int | None:
    """Tokens of a part of a message that is no text; None for anything else."""
    inner = part.get(str(part.get("type")))
    if not isinstance(inner, Mapping):
        return None
    match part["type"]:
        case "image_url":
            return _LOW_DETAIL_TOKENS if inner.get("detail") == "low" else _HIGH_DETAIL_TOKENS
        case "input_audio":
            size = _text_length(inner.get("data")) * _BASE64
            return _tokens(seconds_of(int(size)), _HEARD_TOKENS_A_SECOND)
        case "file":
            return _tokens(_text_length(inner.get("file_data")) * _BASE64, Decimal("0.25"))
        case _:
            return None


def _output_tokens(body: Mapping[str, Any], policy: EstimatePolicy) -> int:
    most = _count(body.get("max_completion_tokens"), most=_MOST_TOKENS)
    if most is None:
        most = _count(body.get("max_tokens"), most=_MOST_TOKENS)
    answers = max(_count(body.get(name), most=_MOST_ANSWERS) or 1 for name in ("n", "best_of"))
    return (policy.output_tokens if most is None else most) * answers


def _images(body: Mapping[str, Any]) -> Quantities:
    images = _count(body.get("n"), most=_MOST_ANSWERS) or 1
    square, larger = _IMAGE_TOKENS.get(str(body.get("quality")), _IMAGE_TOKENS["high"])
    tokens = images * (square if _SQUARE.fullmatch(str(body.get("size"))) else larger)
    return Quantities(input_tokens=_input_tokens(body), output_tokens=tokens, output_image_tokens=tokens, images=images)


def _speech(body: Mapping[str, Any]) -> Quantities:
    characters = _text_length(body.get("input"))
    seconds = Decimal(characters) / _CHARACTERS_A_SECOND
    spoken = _tokens(seconds, _SPOKEN_TOKENS_A_SECOND)
    return Quantities(
        input_tokens=_input_tokens(body),
        output_tokens=spoken,
        output_audio_tokens=spoken,
        seconds=seconds.quantize(Decimal("0.001")),
        characters=characters,
    )


def _tokens(amount: Decimal, each: int | Decimal) -> int:
    return int((amount * each).to_integral_value(ROUND_CEILING))


def _text_length(value: Any) -> int:
    return len(value) if isinstance(value, str) else 0


def _count(value: Any, *, most: int) -> int | None:
    """A positive whole number, at most `most`; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 1:
        return None
    return int(min(value, most))
