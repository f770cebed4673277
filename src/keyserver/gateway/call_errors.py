"""What goes wrong with a call besides its admission: the request itself, and the upstream.

GatewayError
├── InvalidRequest        400
├── ModelNotFound         404   no upstream serves the model
├── UnknownUrl            404
├── MethodNotAllowed      405
├── PayloadTooLarge       413
├── UnsupportedMediaType  415
├── UpstreamRefused             the upstream answered with an error: its status
├── UpstreamRateLimited   429   not our limit: the upstream's
├── UpstreamUnreachable   502
├── UpstreamMalformed     502   it answered 200 with what is no answer
├── UpstreamCut           502   in the middle of a stream
├── NoUpstream            503   every one is left alone for a while
├── ShuttingDown          503
└── UpstreamTimeout       504

None of these costs the caller anything, but what came of a stream before it ended with one.
"""

from typing import Any

import orjson

from keyserver.gateway.errors import GatewayError

_LONGEST_MESSAGE = 2000


class InvalidRequest(GatewayError):
    status = 400
    error_type = "invalid_request_error"
    code = "invalid_request"
    title = "Bad Request"
    error = "The request is malformed"


class ModelNotFound(InvalidRequest):
    status = 404
    code = "model_not_found"
    title = "Not Found"

    def __init__(self, model: str) -> None:
        super().__init__(f"The model `{model}` does not exist, or nobody serves it here", param="model")


class UnknownUrl(InvalidRequest):
    status = 404
    code = "unknown_url"
    title = "Not Found"


class MethodNotAllowed(InvalidRequest):
    status = 405
    code = "method_not_allowed"
    title = "Method Not Allowed"


class PayloadTooLarge(InvalidRequest):
    status = 413
    code = "payload_too_large"
    title = "Content Too Large"


class UnsupportedMediaType(InvalidRequest):
    status = 415
    code = "unsupported_media_type"
    title = "Unsupported Media Type"


class UpstreamError(GatewayError):
    status = 502
    error_type = "upstream_error"
    code = "upstream_error"
    title = "Bad Gateway"
    error = "The upstream failed"


class UpstreamUnreachable(UpstreamError):
    code = "upstream_unreachable"
    error = "The upstream cannot be reached, or closed the connection without an answer"


class UpstreamMalformed(UpstreamError):
    code = "upstream_malformed_answer"
    error = "The upstream's answer is not JSON, or stops in the middle; nothing is charged for it"


class UpstreamCut(UpstreamError):
    """In the middle of a stream: its status has left, and this is its last event."""

    code = "upstream_cut"
    error = "The upstream's stream stopped in the middle; what came is charged"


class UpstreamTimeout(UpstreamError):
    status = 504
    code = "upstream_timeout"
    title = "Gateway Timeout"
    error = "The upstream did not answer in time"


class NoUpstream(UpstreamError):
    status = 503
    code = "upstream_unavailable"
    title = "Service Unavailable"
    error = "No upstream can take this call right now; try again shortly"

    def __init__(self, *, retry_after: int = 1) -> None:
        super().__init__(headers={"retry-after": str(max(1, retry_after))})


class ShuttingDown(UpstreamError):
    status = 503
    code = "shutting_down"
    title = "Service Unavailable"
    error = "The gateway is restarting; try again"

    def __init__(self) -> None:
        super().__init__(headers={"retry-after": "1"})


class UpstreamRefused(UpstreamError):
    """The upstream's own error. Its words are kept where it speaks OpenAI's language."""


class UpstreamRateLimited(UpstreamRefused):
    """The upstream limits us, or all its callers; the caller's own limit is `rate_limit_exceeded`."""

    error_type = "upstream_rate_limited"
    code = "upstream_rate_limited"
    title = "Too Many Requests"
    error = "The upstream has too many requests; try again later"


def refusal(status: int, body: bytes, *, retry_after: str | None, secret: str | None) -> UpstreamRefused:
    """An upstream's answer of 300 and above as our error with its status; redirects, which nobody follows, are 502.

    `secret` is our key there, which must not come back in whatever words. That the upstream refuses it is not for
    the caller to mend, and not told in the upstream's words.
    """
    headers = {"retry-after": retry_after} if retry_after else {}
    said = {} if status in {401, 403} else _said(body, secret)
    message = said.pop("message", None)
    if status == 429:
        error: UpstreamRefused = UpstreamRateLimited(message, headers=headers)
    else:
        members = {"param": said["param"]} if "param" in said else {}
        error = UpstreamRefused(message or _sentence(status), code=said.get("code"), headers=headers, **members)
        error.error_type = said.get("type", error.error_type)
    error.status = status if status >= 400 else 502
    return error


def _sentence(status: int) -> str:
    if status in {401, 403}:
        return "The upstream refuses the gateway's own credentials; the operator must mend that"
    return f"The upstream answered with status {status}"


def _said(body: bytes, secret: str | None) -> dict[str, str]:
    """`message`, `type`, `code` and `param` of an error in OpenAI's shape, those that are there."""
    try:
        document: Any = orjson.loads(body.replace(secret.encode(), b"[redacted]") if secret else body)
    except orjson.JSONDecodeError:
        return {}
    error = document.get("error") if isinstance(document, dict) else None
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict):
        return {}
    members = ("message", "type", "code", "param")
    return {name: str(error[name])[:_LONGEST_MESSAGE] for name in members if isinstance(error.get(name), str | int)}
