"""What the gateway refuses, in OpenAI's shape on `/v1/*` and as problem documents elsewhere.

GatewayError
├── KeyRefused            401  missing_api_key | invalid_auth_format | invalid_api_key
├── CreditRefused         402
│   ├── InsufficientCredits    insufficient_credits
│   ├── CreditsExhausted       credits_exhausted
│   └── SpendingCapReached     spending_cap_reached
└── RateLimited           429  rate_limit_exceeded

Any other Problem is written in OpenAI's shape as well when it happens on `/v1/*`.
"""

from typing import Any

import orjson

from keyserver.kit.problems import Conflict, Forbidden, NotFound, Problem

_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    429: "rate_limit_error",
}


class GatewayError(Problem):
    """`error_type` is OpenAI's `type`; None takes the one of the status."""

    error_type: str | None = None
    #: The sentence in OpenAI's shape, where it differs from `error`.
    message: str | None = None


class KeyRefused(GatewayError):
    """Which of the three ways a key can be wrong is told by `code`."""

    status = 401
    code = "invalid_api_key"
    title = "Unauthorized"
    error = "Unauthorized"

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(code=code, headers={"www-authenticate": "Bearer"})
        self.message = message


class CreditRefused(GatewayError):
    """Members: needsCredits, topUpUrl, currentBalanceCents, requiredCents, limit, missingUsd, …"""

    status = 402
    title = "Payment Required"


class InsufficientCredits(CreditRefused):
    code = "insufficient_credits"
    error = "The credit does not cover this call"


class CreditsExhausted(CreditRefused):
    code = "credits_exhausted"
    error = "The credit is used up"


class SpendingCapReached(CreditRefused):
    code = "spending_cap_reached"
    error = "The spending cap does not allow this call"


class RateLimited(GatewayError):
    status = 429
    code = "rate_limit_exceeded"
    title = "Too Many Requests"
    error = "Too many calls within a minute"


class AttributionNotAllowed(Forbidden):
    code = "attribution_not_allowed"
    error = "X-Attribute-To is for keys of platform services"


class HoldClosed(Conflict):
    code = "hold_closed"
    error = "This hold is closed already"


class HoldNotFound(NotFound):
    code = "hold_not_found"
    error = "Hold not found"


class RequestIdUsed(Conflict):
    code = "request_id_used"
    error = "This requestId was settled under another hold"


def openai_body(problem: Problem) -> bytes:
    """`{"error": {message, type, code, param, …}}`, as OpenAI's clients read it."""
    message, kind = problem.error, None
    if isinstance(problem, GatewayError):
        message, kind = problem.message or message, problem.error_type
    fallback = "server_error" if problem.status >= 500 else "invalid_request_error"
    document: dict[str, Any] = {
        "message": message,
        "type": kind or _TYPES.get(problem.status, fallback),
        "param": None,
        "code": problem.code,
        **problem.members,
    }
    return orjson.dumps({"error": document})
