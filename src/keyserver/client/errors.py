"""What can go wrong for a caller of the key server.

KeyserverError
├── NotConfigured             no URL, no key, or one that cannot be used; raised before any request
├── NotReached                no answer: refused, timed out, cut off
├── NotUnderstood             an answer that is none of the key server's: a proxy's page, another program
├── WebhookNotVerified        a webhook that was not signed with this secret, or is too old
└── ApiError                  the key server's own refusal: `status`, `code`, `error`, `errors`, `request_id`
    ├── BadRequest            400   `errors` names what to mend
    ├── Unauthorized          401   the key is wrong, expired or revoked
    ├── PaymentRequired       402   no credit, or a spending cap
    ├── Forbidden             403
    ├── NotFound              404
    ├── Conflict              409
    ├── Unprocessable         422   an idempotency key was used for another request
    ├── TooManyRequests       429
    └── Unavailable           503   `price_unavailable`, `database_unavailable`, …: trying later can help
"""

from collections.abc import Sequence
from dataclasses import dataclass


class KeyserverError(Exception):
    """Anything below. Its text is one sentence, and never holds a key."""


class NotConfigured(KeyserverError):
    pass


class NotReached(KeyserverError):
    """Whether the request took effect is unknown; asked again with the same idempotency key it has one effect."""


class NotUnderstood(KeyserverError):
    pass


class WebhookNotVerified(KeyserverError):
    pass


@dataclass(frozen=True, slots=True)
class Detail:
    """One wrong member of a request: its JSON pointer (RFC 6901), and what to mend."""

    pointer: str
    detail: str


class ApiError(KeyserverError):
    """An answer with an error status. `code` is a stable word for programs, `error` one sentence for people."""

    def __init__(
        self, *, status: int, code: str, error: str, errors: Sequence[Detail] = (), request_id: str | None = None
    ) -> None:
        super().__init__(f"{error} ({status} {code})")
        self.status = status
        self.code = code
        self.error = error
        self.errors = tuple(errors)
        self.request_id = request_id


class BadRequest(ApiError):
    pass


class Unauthorized(ApiError):
    pass


class PaymentRequired(ApiError):
    pass


class Forbidden(ApiError):
    pass


class NotFound(ApiError):
    pass


class Conflict(ApiError):
    pass


class Unprocessable(ApiError):
    pass


class TooManyRequests(ApiError):
    pass


class Unavailable(ApiError):
    pass


BY_STATUS: dict[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthorized,
    402: PaymentRequired,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    422: Unprocessable,
    429: TooManyRequests,
    503: Unavailable,
}
