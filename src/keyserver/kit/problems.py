"""Errors on the wire: RFC 9457 problem documents.

Problem
├── BadRequest        400   malformed input; `errors` names what to mend
├── Unauthorized      401
├── Forbidden         403
├── NotFound          404
├── Conflict          409
├── PayloadTooLarge   413
├── Unprocessable     422
├── TooManyRequests   429   `Retry-After` says when
└── Unavailable       503   a part we need is down; trying later can help

The domains subclass these with a `code` and a sentence; kit/http.py writes them.
"""

from typing import Any

import orjson

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """An answer other than success. `error` is one sentence for a person, `code` a stable word for a program."""

    status: int = 500
    code: str = "internal_error"
    title: str = "Internal Server Error"
    error: str = "Something went wrong on our side"

    def __init__(
        self,
        error: str | None = None,
        *,
        code: str | None = None,
        headers: dict[str, str] | None = None,
        **members: Any,
    ) -> None:
        self.error = error or self.error
        self.code = code or self.code
        self.headers = headers or {}
        self.members = members
        super().__init__(self.error)

    def document(self) -> dict[str, Any]:
        return {
            "type": f"urn:keyserver:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.error,
            "error": self.error,
            "code": self.code,
            **self.members,
        }

    def body(self) -> bytes:
        return orjson.dumps(self.document())


class BadRequest(Problem):
    status = 400
    code = "bad_request"
    title = "Bad Request"
    error = "The request is malformed"

    @classmethod
    def at(cls, pointer: str, detail: str, *, code: str | None = None) -> "BadRequest":
        """One wrong member: `pointer` is its JSON pointer (RFC 6901), `detail` says what to mend."""
        return cls(detail, code=code, errors=[{"pointer": pointer, "detail": detail}])


class Unauthorized(Problem):
    status = 401
    code = "unauthorized"
    title = "Unauthorized"
    error = "Unauthorized"

    def __init__(self) -> None:
        super().__init__(headers={"www-authenticate": "Bearer"})


class Forbidden(Problem):
    status = 403
    code = "forbidden"
    title = "Forbidden"
    error = "This key may not do that"


class NotFound(Problem):
    status = 404
    code = "not_found"
    title = "Not Found"
    error = "Not found"


class Conflict(Problem):
    status = 409
    code = "conflict"
    title = "Conflict"
    error = "This contradicts what is there already"


class PayloadTooLarge(Problem):
    status = 413
    code = "payload_too_large"
    title = "Content Too Large"
    error = "The request body is too large"


class Unprocessable(Problem):
    status = 422
    code = "unprocessable"
    title = "Unprocessable Content"
    error = "The request cannot be processed"


class TooManyRequests(Problem):
    status = 429
    code = "too_many_requests"
    title = "Too Many Requests"
    error = "Too many requests"

    def __init__(self, retry_after: int) -> None:
        super().__init__(headers={"retry-after": str(retry_after)})


class Unavailable(Problem):
    status = 503
    code = "unavailable"
    title = "Service Unavailable"
    error = "The service cannot answer right now; try again shortly"

    def __init__(
        self, error: str | None = None, *, code: str | None = None, retry_after: int = 1, **members: Any
    ) -> None:
        super().__init__(error, code=code, headers={"retry-after": str(retry_after)}, **members)
