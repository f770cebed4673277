"""Which headers pass the gateway, on the way up and on the way down (pure).

Headers that belong to one connection (RFC 9110, 7.6.1) and those that name a caller or a key never pass.
"""

from collections.abc import Iterable, Sequence

RawHeaders = Sequence[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
#: Ours to say, or nobody's business upstream. All tenants share one account there, where two that chose the same
#: idempotency key would get each other's answers. The body is asked for uncompressed, since its usage is read.
_NOT_UP = _HOP_BY_HOP | {
    "accept-encoding",
    "api-key",
    "authorization",
    "content-encoding",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "idempotency-key",
    "openai-organization",
    "openai-project",
    "via",
    "x-api-key",
    "x-attribute-to",
    "x-real-ip",
    "x-request-id",
    "x-tenant-id",
}
_NOT_UP_PREFIXES = ("x-forwarded-", "cf-", "proxy-")
#: Of the upstream's own connection, account or limits; `x-request-id` and `x-credits-*` are ours.
_NOT_DOWN = _HOP_BY_HOP | {
    "alt-svc",
    "content-encoding",
    "content-length",
    "date",
    "openai-organization",
    "openai-project",
    "server",
    "set-cookie",
    "set-cookie2",
    "strict-transport-security",
    "via",
    "www-authenticate",
    "x-request-id",
}
_NOT_DOWN_PREFIXES = ("x-ratelimit-", "x-credits-", "access-control-", "cf-")


def upward(headers: RawHeaders, *, key: str, upstream_key: str | None, request_id: str) -> list[tuple[str, str]]:
    """What the upstream gets. `key` is the caller's: a header that holds it, whatever its name, stays here."""
    sent = _passing(headers, dropped=_NOT_UP, prefixes=_NOT_UP_PREFIXES, secret=key)
    result = [(name, value) for name, value in sent]
    result += [("accept-encoding", "identity"), ("x-request-id", request_id)]
    if upstream_key:
        result.append(("authorization", f"Bearer {upstream_key}"))
    return result


def downward(headers: RawHeaders, *, upstream_key: str | None) -> list[tuple[bytes, bytes]]:
    """What the caller gets of the upstream's headers; none that holds the upstream's key."""
    passed = _passing(headers, dropped=_NOT_DOWN, prefixes=_NOT_DOWN_PREFIXES, secret=upstream_key)
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in passed]


def _passing(
    headers: RawHeaders, *, dropped: frozenset[str], prefixes: tuple[str, ...], secret: str | None
) -> Iterable[tuple[str, str]]:
    decoded = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers]
    named = {option.strip().lower() for name, value in decoded if name == "connection" for option in value.split(",")}
    return [
        (name, value)
        for name, value in decoded
        if name not in dropped
        and name not in named
        and not name.startswith(prefixes)
        and not (secret and secret in value)
    ]
