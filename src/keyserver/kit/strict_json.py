"""JSON as RFC 8259 has it, and as PostgreSQL can keep it (pure)."""

import json
import math
from typing import Any

from keyserver.kit.problems import BadRequest

#: Deeper than any request of ours, and less than what any encoder that writes the document again can follow.
MAX_JSON_DEPTH = 64


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is more than a number can be")
    return number


def parse_json(body: bytes, *, stored: bool = True) -> Any:
    """JSON as RFC 8259 has it, no NaN among it, and no deeper than we follow. Raises BadRequest.

    `stored`: and as PostgreSQL can keep it, without NUL or lone surrogates.
    """
    too_deep = BadRequest.at("", f"The body is nested deeper than {MAX_JSON_DEPTH} levels", code="malformed_json")
    try:
        # Decoded here: json.loads takes UTF-16 and UTF-32 as well, which RFC 8259 does not.
        document = json.loads(body.decode(), parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        raise too_deep from None
    except ValueError as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "not valid JSON"
        raise BadRequest.at("", f"The body is not valid JSON: {reason}", code="malformed_json") from None
    if stored and b"\\u" in body and _has_unstorable_text(document):
        raise BadRequest.at(
            "", "The body has a NUL character or half a surrogate pair in a string", code="malformed_json"
        )
    if body.count(b"[") + body.count(b"{") > MAX_JSON_DEPTH and _is_deeper(document, MAX_JSON_DEPTH):
        raise too_deep
    return document


def _is_deeper(document: Any, levels: int) -> bool:
    """Whether arrays and objects stand more than so many levels inside each other; level by level, not by recursion."""
    level = [document]
    for _ in range(levels + 1):
        level = [value for value in level if isinstance(value, dict | list)]
        if not level:
            return False
        level = [inner for value in level for inner in (value.values() if isinstance(value, dict) else value)]
    return True


def _has_unstorable_text(document: Any) -> bool:
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
                return True
        elif isinstance(value, dict):
            waiting += value.keys()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return False
