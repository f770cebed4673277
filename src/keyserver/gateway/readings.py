"""What an upstream's answer says of its call: the cost, the quantities, how much text came (pure).

What an upstream says is believed only while it is possible: counts are whole and not negative, costs are less than a
million dollars. Otherwise it has said nothing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from keyserver.gateway.capabilities import Capability
from keyserver.gateway.tariff import Quantities
from keyserver.gateway.tokens import weight_of

COST_HEADER = "x-openrouter-cost"
_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")
_MOST_COST_USD = Decimal(1_000_000)
_MOST = 1_000_000_000
_TEXTS = ("content", "reasoning", "reasoning_content", "refusal", "text")
#: Where an answer's own words are, and what it took.
_ANSWERED = frozenset({"choices", "data", "text", "usage"})
_LLM = frozenset({Capability.CHAT, Capability.COMPLETIONS, Capability.EMBEDDINGS})

#: Where a usage object has each count: paths of alternatives, the first that is there counts. OpenAI's chat and
#: audio forms, OpenRouter's and DeepSeek's additions.
_COUNTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "input_tokens": (("prompt_tokens",), ("input_tokens",)),
    "output_tokens": (("completion_tokens",), ("output_tokens",)),
    "cached_input_tokens": (
        ("prompt_tokens_details", "cached_tokens"),
        ("input_tokens_details", "cached_tokens"),
        ("prompt_cache_hit_tokens",),
    ),
    "cache_write_tokens": (("prompt_tokens_details", "cache_write_tokens"),),
    "input_audio_tokens": (
        ("prompt_tokens_details", "audio_tokens"),
        ("input_token_details", "audio_tokens"),
        ("input_tokens_details", "audio_tokens"),
    ),
    "input_image_tokens": (("prompt_tokens_details", "image_tokens"), ("input_tokens_details", "image_tokens")),
    "output_audio_tokens": (("completion_tokens_details", "audio_tokens"),),
    "output_image_tokens": (("completion_tokens_details", "image_tokens"), ("output_tokens_details", "image_tokens")),
}

_TOTALS = frozenset({"input_tokens", "output_tokens"})
#: What the output of a capability consists of, where an upstream does not tell its kinds apart.
_MAIN_OUTPUT = {Capability.IMAGES: "output_image_tokens", Capability.SPEECH: "output_audio_tokens"}


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer says. `stated_cost_usd` is the upstream's own word for the cost.

    `counted` and `seen` hold members of `Quantities`: those that the upstream counted, and those that we did, in what
    came.
    """

    stated_cost_usd: Decimal | None = None
    counted: Mapping[str, Any] = field(default_factory=dict)
    seen: Mapping[str, Any] = field(default_factory=dict)

    def taken(self, sent: Quantities) -> Quantities:
        """What the call took: as the upstream counted, else as we saw it, else as it was expected of what was sent."""
        return replace(sent, **{**self.seen, **self.counted})

    def taken_by_count(self) -> Quantities:
        """What the call took by the upstream's count alone."""
        return Quantities(**self.counted)

    def with_output(self, tokens: int) -> "Reading":
        """The same with the output that we saw. An upstream that counts none of it has not counted (yet)."""
        silent = tokens > 0 and not self.counted.get("output_tokens")
        counted = {name: value for name, value in self.counted.items() if not (silent and name == "output_tokens")}
        return Reading(self.stated_cost_usd, counted, {"output_tokens": tokens})

    def merged(self, later: "Reading") -> "Reading":
        """Both readings of one answer; of what both say, the later."""
        stated = self.stated_cost_usd if later.stated_cost_usd is None else later.stated_cost_usd
        return Reading(stated, {**self.counted, **later.counted}, {**self.seen, **later.seen})


def read_headers(headers: Mapping[str, str]) -> Reading:
    """The cost in an answer's headers, whatever the case of their names."""
    found = next((value for name, value in headers.items() if name.lower() == COST_HEADER), None)
    return Reading(None if found is None else _cost(found))


def read_document(capability: Capability, document: Mapping[str, Any]) -> Reading:
    """What an answer's JSON says, or one event of a stream."""
    usage = document.get("usage")
    stated = _stated_cost(usage) if isinstance(usage, Mapping) else None
    counted = _counted(capability, usage) if isinstance(usage, Mapping) else {}
    if capability is Capability.IMAGES and isinstance(document.get("data"), list):
        counted["images"] = len(document["data"])
    if capability is Capability.TRANSCRIPTIONS and "seconds" not in counted:
        seconds = _seconds(document.get("duration"))
        counted |= {} if seconds is None else {"seconds": seconds}
    tier = document.get("service_tier")
    if isinstance(tier, str):
        counted["service_tier"] = tier
    return Reading(stated, counted)


def is_error(document: Mapping[str, Any]) -> bool:
    """Whether a document is an error and nothing else. Some upstreams answer with one under the status 200."""
    return bool(document.get("error")) and not document.keys() & _ANSWERED


def weight_of_answer(document: Mapping[str, Any]) -> int:
    """The weight (gateway/tokens.py) of the text in an answer's choices, or in one event of a stream."""
    choices = document.get("choices")
    if not isinstance(choices, list):
        return 0
    return sum(_weight_of_choice(choice) for choice in choices if isinstance(choice, dict))


def _weight_of_choice(choice: Mapping[str, Any]) -> int:
    weight = 0
    for part in (choice, choice.get("delta"), choice.get("message")):
        if not isinstance(part, dict):
            continue
        weight += sum(weight_of(part[name]) for name in _TEXTS if isinstance(part.get(name), str))
        calls = part.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict):
                weight += sum(weight_of(text) for text in function.values() if isinstance(text, str))
    return weight


def _counted(capability: Capability, usage: Mapping[str, Any]) -> dict[str, Any]:
    """Members of Quantities; empty when a count is impossible, or when nothing was counted."""
    counted: dict[str, Any] = _token_counts(usage)
    if capability in _LLM and not counted.get("input_tokens") and not counted.get("output_tokens"):
        return {}  # every such call takes tokens: an upstream that counts none does not count
    main_output = _MAIN_OUTPUT.get(capability)
    if main_output is not None and counted and not counted[main_output]:
        counted[main_output] = counted["output_tokens"]
    seconds = _seconds(usage.get("seconds"))
    return counted if seconds is None else {**counted, "seconds": seconds}


def _token_counts(usage: Mapping[str, Any]) -> dict[str, int]:
    """All of `_COUNTS`, nought where a usage that has tokens leaves one out; else empty."""
    counts: dict[str, int] = {}
    for name, paths in _COUNTS.items():
        value = next((found for path in paths if (found := _at(usage, path)) is not None), None)
        if value is None:
            continue
        count = _whole(value)
        if count is None:
            return {}
        counts[name] = count
    return {**dict.fromkeys(_COUNTS, 0), **counts} if counts.keys() & _TOTALS else {}


def _at(document: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        document = document.get(name) if isinstance(document, Mapping) else None
    return document


def _number(value: Any, *, most: Decimal | int) -> Decimal | None:
    """A JSON number, or its text, from 0 to `most`. A float is read as the digits it is written with."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = value.strip() if isinstance(value, str) else repr(value)
    if not _NUMBER.fullmatch(text):
        return None
    number = Decimal(text)
    return number if 0 <= number <= most else None


def _whole(value: Any) -> int | None:
    number = None if isinstance(value, str) else _number(value, most=_MOST)
    return int(number) if number is not None and number == int(number) else None


def _seconds(value: Any) -> Decimal | None:
    return _number(value, most=_MOST)


def _cost(value: Any) -> Decimal | None:
    return _number(value, most=_MOST_COST_USD)


def _stated_cost(usage: Mapping[str, Any]) -> Decimal | None:
    """`usage.cost`; with a provider's key of one's own (OpenRouter's BYOK), what that provider takes as well."""
    cost = _cost(usage.get("cost"))
    if cost is not None and usage.get("is_byok") is True:
        cost += _cost(_at(usage, ("cost_details", "upstream_inference_cost"))) or 0
    return cost
