"""Which headers pass, and which never do."""

import pytest

from keyserver.gateway.headers import downward, upward

KEY, UPSTREAM_KEY = "ks_a-key-of-the-caller", "sk-a-key-of-the-upstream"


def sent_up(*headers: tuple[str, str]) -> dict[str, str]:
    raw = [(name.encode(), value.encode()) for name, value in headers]
    return dict(upward(raw, key=KEY, upstream_key=UPSTREAM_KEY, request_id="req_1"))


def sent_down(*headers: tuple[str, str]) -> dict[bytes, bytes]:
    return dict(downward([(name.encode(), value.encode()) for name, value in headers], upstream_key=UPSTREAM_KEY))


def test_the_upstream_gets_its_own_key_and_our_request_id() -> None:
    sent = sent_up(("Authorization", f"Bearer {KEY}"), ("X-Request-Id", "theirs"), ("Accept-Encoding", "br"))

    assert sent["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert sent["x-request-id"] == "req_1"
    assert sent["accept-encoding"] == "identity"


@pytest.mark.parametrize("name", ["X-Api-Key", "Api-Key", "X-Whatever", "User-Agent"])
def test_the_callers_key_never_passes_whatever_header_it_is_in(name: str) -> None:
    assert KEY not in str(sent_up((name, f"prefix {KEY}")))


@pytest.mark.parametrize(
    "name",
    ["Host", "Content-Length", "Transfer-Encoding", "TE", "Trailer", "Upgrade", "Keep-Alive", "Proxy-Authorization",
     "Cookie", "X-Tenant-Id", "X-Attribute-To", "X-Forwarded-For", "Forwarded", "OpenAI-Organization"],
)  # fmt: skip
def test_what_belongs_to_one_connection_or_names_the_caller_does_not_go_up(name: str) -> None:
    assert name.lower() not in sent_up((name, "something"))


def test_headers_that_connection_names_do_not_pass_either_way() -> None:
    assert "x-hop" not in sent_up(("Connection", "keep-alive, X-Hop"), ("X-Hop", "1"))
    assert b"x-hop" not in sent_down(("Connection", "x-hop"), ("X-Hop", "1"))


def test_everything_else_goes_up_as_it_is() -> None:
    sent = sent_up(
        ("OpenAI-Beta", "assistants=v2"), ("X-Stainless-Lang", "python"), ("Content-Type", "application/json")
    )

    assert sent["openai-beta"] == "assistants=v2"
    assert sent["x-stainless-lang"] == "python"
    assert sent["content-type"] == "application/json"


@pytest.mark.parametrize(
    "name",
    ["Set-Cookie", "Transfer-Encoding", "Connection", "X-Request-Id", "X-RateLimit-Limit-Requests", "X-Credits-Charged",
     "WWW-Authenticate", "OpenAI-Organization", "Server"],
)  # fmt: skip
def test_what_is_of_the_upstreams_own_does_not_come_down(name: str) -> None:
    assert sent_down((name, "something")) == {}


def test_the_upstreams_key_never_comes_down() -> None:
    assert sent_down(("X-Echo", f"Bearer {UPSTREAM_KEY}")) == {}


def test_everything_else_comes_down_as_it_is() -> None:
    assert sent_down(("OpenAI-Processing-Ms", "12"), ("Content-Type", "audio/mpeg")) == {
        b"openai-processing-ms": b"12",
        b"content-type": b"audio/mpeg",
    }
