"""The JSON-RPC client, against real HTTP servers on loopback."""

import asyncio
import base64
import gzip
import json
import socket
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from tests.nodes.rpc_server import Fault, Handler, ScriptedNode, http_server

from keyserver.kit.jsonrpc import AnswerTooLarge, JsonRpc, RpcError, RpcUnavailable, parse_retry_after

NOW = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)

Connect = Callable[..., Awaitable[JsonRpc]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """A client of a new server with this handler; `userinfo` goes into the URL, the rest to the client."""
    async with AsyncExitStack() as stack:

        async def connect(handler: Handler, *, userinfo: str = "", path: str = "/", **arguments: Any) -> JsonRpc:
            url = await stack.enter_async_context(http_server(handler))
            rpc = JsonRpc(url.replace("://", f"://{userinfo}") + path, **arguments)
            stack.push_async_callback(rpc.close)
            return rpc

        yield connect


def answering(text: str | bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        body = text.encode() if isinstance(text, str) else text
        return web.Response(body=body, status=status, headers=headers)

    return handler


def result(value: str) -> str:
    return f'{{"jsonrpc": "2.0", "id": 0, "result": {value}}}'


# --- calls ------------------------------------------------------------------------------------------------------


async def test_a_call_sends_method_and_parameters_and_returns_the_result(connect: Connect) -> None:
    node = ScriptedNode({"getblockhash": '"00ff"'})
    rpc = await connect(node, path="/v3/?network=main")

    assert await rpc.call("getblockhash", 7) == "00ff"
    assert node.requests == [{"jsonrpc": "2.0", "id": 0, "method": "getblockhash", "params": [7]}]
    assert node.paths == ["/v3/?network=main"]


async def test_numbers_with_a_point_are_exact_decimals(connect: Connect) -> None:
    rpc = await connect(answering(result("[0.1, 99999999999.00000001, 1e-8, 3]")))

    values = await rpc.call("any")

    assert values == [Decimal("0.1"), Decimal("99999999999.00000001"), Decimal("1e-8"), 3]
    assert [type(value) for value in values] == [Decimal, Decimal, Decimal, int]


async def test_an_error_the_node_answers_keeps_its_code_words_and_http_status(connect: Connect) -> None:
    rpc = await connect(ScriptedNode({"getblock": Fault(-5, "Block not found")}))

    with pytest.raises(RpcError, match="Block not found") as caught:
        await rpc.call("getblock", "00")

    assert (caught.value.code, caught.value.message, caught.value.status) == (-5, "Block not found", 500)


async def test_an_error_with_status_200_and_data_is_an_error_too(connect: Connect) -> None:
    rpc = await connect(answering('{"id": 0, "error": {"code": 3, "message": "reverted", "data": "0x08c3"}}'))

    with pytest.raises(RpcError) as caught:
        await rpc.call("eth_call")

    assert (caught.value.code, caught.value.status, caught.value.data) == (3, 200, "0x08c3")


async def test_connections_are_kept_for_the_next_call(connect: Connect) -> None:
    peers = set()

    async def handler(request: web.Request) -> web.Response:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return web.Response(text=result("1"))

    rpc = await connect(handler)
    for _ in range(3):
        await rpc.call("any")

    assert len(peers) == 1


# --- batches ----------------------------------------------------------------------------------------------------


async def test_a_batch_is_one_request_whose_answers_are_matched_by_id(connect: Connect) -> None:
    requests = []

    async def handler(request: web.Request) -> web.Response:
        calls = await request.json()
        requests.append(calls)
        return web.json_response([{"id": call["id"], "result": call["params"][0] * 10} for call in reversed(calls)])

    rpc = await connect(handler)

    assert await rpc.batch([("ten", (1,)), ("ten", (2,)), ("ten", (3,))]) == [10, 20, 30]
    assert len(requests) == 1


def _even_only(number: int) -> str | Fault:
    return str(number) if number % 2 == 0 else Fault(-number, f"{number} is odd")


async def test_the_first_failed_call_of_a_batch_is_raised(connect: Connect) -> None:
    rpc = await connect(ScriptedNode({"even": _even_only}))

    with pytest.raises(RpcError, match="3 is odd"):
        await rpc.batch([("even", (2,)), ("even", (3,)), ("even", (5,))])


async def test_a_batch_can_return_errors_in_their_places(connect: Connect) -> None:
    rpc = await connect(ScriptedNode({"even": _even_only}))

    answers = await rpc.batch([("even", (1,)), ("even", (2,)), ("even", (3,))], return_errors=True)

    assert answers[1] == 2
    assert [answer.code for answer in (answers[0], answers[2])] == [-1, -3]


async def test_an_empty_batch_asks_nothing(connect: Connect) -> None:
    node = ScriptedNode({})
    rpc = await connect(node)

    assert await rpc.batch([]) == []
    assert node.requests == []


async def test_a_server_that_refuses_batches_as_a_whole_is_heard(connect: Connect) -> None:
    rpc = await connect(answering('{"id": null, "error": {"code": -32600, "message": "no batches"}}'))

    with pytest.raises(RpcError, match="no batches"):
        await rpc.batch([("any", ())], return_errors=True)


@pytest.mark.parametrize(
    "body",
    [
        '[{"id": 0, "result": 1}]',
        '[{"id": 0, "result": 1}, {"id": 0, "result": 2}]',
        '[{"id": 0, "result": 1}, {"id": 7, "result": 2}]',
        '[{"id": 0, "result": 1}, {"id": 1}]',
        '[{"id": 0, "result": 1}, {"id": 1, "result": 2}, {"id": 1, "result": 3}]',
        '[{"id": 0, "result": 1}, {"id": 1, "result": 2}, {"id": 2, "result": 3}]',
        "[1, 2]",
        '{"id": 0, "result": [1, 2]}',
        "[]",
    ],
)
async def test_a_batch_that_is_not_answered_call_by_call_is_no_answer(connect: Connect, body: str) -> None:
    rpc = await connect(answering(body))

    with pytest.raises(RpcUnavailable):
        await rpc.batch([("any", ()), ("any", ())], return_errors=True)


# --- credentials ------------------------------------------------------------------------------------------------


def _basic(credentials: str) -> str:
    return "Basic " + base64.b64encode(credentials.encode()).decode()


async def test_user_and_password_of_the_url_go_into_basic_authentication_only(connect: Connect) -> None:
    node = ScriptedNode({"any": "1"})
    rpc = await connect(node, userinfo="al%40ice:p%C3%A4%3Ass@", path="/?key=k")

    await rpc.call("any")

    assert node.headers[0]["authorization"] == _basic("al@ice:pä:ss")
    assert node.paths == ["/?key=k"]
    assert "@" not in node.headers[0]["Host"]


async def test_credentials_are_asked_for_before_every_request(connect: Connect) -> None:
    node = ScriptedNode({"any": "1"})
    current = iter([("user", "first"), ("user", "second"), None])
    rpc = await connect(node, userinfo="ignored:ignored@", auth=lambda: next(current))

    for _ in range(3):
        await rpc.call("any")

    assert [headers.get("authorization") for headers in node.headers] == [
        _basic("user:first"),
        _basic("user:second"),
        None,
    ]


async def test_headers_are_sent_with_every_request(connect: Connect) -> None:
    node = ScriptedNode({"any": "1"})
    rpc = await connect(node, headers={"x-api-key": "k", "Content-Type": "text/plain"})

    await rpc.call("any")

    assert node.headers[0]["x-api-key"] == "k"
    assert [value for name, value in node.headers[0].items() if name.lower() == "content-type"] == ["application/json"]


@pytest.mark.parametrize(
    "handler",
    [
        answering("", status=401),
        answering("", status=429),
        answering("<html>"),
        answering("x" * 2000),
        answering("", status=302, headers={"location": "/"}),
        answering('{"id": 0, "error": {"code": -1, "message": "no"}}'),
        answering('{"id": 1, "result": 1}'),
        answering("oops", headers={"content-encoding": "gzip"}),
    ],
)
async def test_no_failure_shows_the_urls_secrets(connect: Connect, handler: Handler) -> None:
    rpc = await connect(handler, userinfo="user:sesame@", path="/v3/topsecretkey?token=t0ken", max_bytes=1000)

    with pytest.raises((RpcError, RpcUnavailable)) as caught:
        await rpc.call("any")

    shown = f"{caught.value} {caught.value!r} {rpc} {rpc!r}"
    assert not [secret for secret in ("sesame", "user:", "topsecretkey", "t0ken") if secret in shown]
    assert caught.value.__cause__ is None


async def test_a_header_that_cannot_be_sent_is_not_quoted(connect: Connect) -> None:
    rpc = await connect(answering(result("1")), headers={"x-api-key": "sesame\n"})

    with pytest.raises(RpcUnavailable) as caught:
        await rpc.call("any")

    assert "sesame" not in f"{caught.value} {caught.value.__cause__}"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "node",
        "user:sesame@node",
        "ftp://user:sesame@node/",
        "http://user:sesame@/",
        "http://user:sesame@node:99999/",
        "http://user:sesame@node:port/",
        "http://user:sesame@no\nde/",
    ],
)
def test_a_url_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="URL") as caught:
        JsonRpc(url)

    assert "sesame" not in f"{caught.value!r} {caught.value.__cause__!r}"


# --- when there is no answer ------------------------------------------------------------------------------------


async def test_a_refused_connection_names_host_and_port() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, and not listening
        port = unused.getsockname()[1]
        rpc = JsonRpc(f"http://user:sesame@127.0.0.1:{port}/path")
        try:
            with pytest.raises(RpcUnavailable, match=f"^cannot connect to 127.0.0.1:{port}: "):
                await rpc.call("any")
        finally:
            await rpc.close()


async def _silent(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    raise AssertionError


async def _dripping(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("handler", [_silent, _dripping])
async def test_the_timeout_bounds_the_whole_answer(connect: Connect, handler: Handler) -> None:
    rpc = await connect(handler, timeout=0.2)

    async with asyncio.timeout(5):
        with pytest.raises(RpcUnavailable, match=r"did not answer within 0\.2 seconds"):
            await rpc.call("any")


async def test_a_cancelled_call_is_cancelled_and_no_timeout(connect: Connect) -> None:
    rpc = await connect(_silent)
    call = asyncio.create_task(rpc.call("any"))
    await asyncio.sleep(0.05)
    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_busy_server_is_unavailable_and_says_when_to_come_back(connect: Connect, status: int) -> None:
    body = '{"id": 0, "error": {"code": -32005, "message": "slow down"}}'
    rpc = await connect(answering(body, status=status, headers={"retry-after": "17"}))

    with pytest.raises(RpcUnavailable, match=f"HTTP {status}") as caught:
        await rpc.call("any")

    assert (caught.value.retry_after, caught.value.status) == (17.0, status)


async def test_a_retry_date_is_counted_from_now(connect: Connect) -> None:
    headers = {"retry-after": "Mon, 04 May 2026 12:01:30 GMT"}
    rpc = await connect(answering("", status=503, headers=headers), clock=lambda: NOW)

    with pytest.raises(RpcUnavailable) as caught:
        await rpc.call("any")

    assert caught.value.retry_after == 90.0


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html>gateway</html>",
        "null",
        "[]",
        '"text"',
        "{}",
        '{"id": 0}',
        '{"id": 0, "error": null}',
        '{"id": 0, "error": "no such key"}',
        '{"id": 0, "error": {"message": "no code"}}',
        '{"id": 0, "result": NaN}',
        '{"id": 0, "result": [1, 2',
        '{"id": 1, "result": "of another request"}',
        '{"result": "of no request"}',
        "[" * 100_000,
        b"\xff\xfe\xff",
        '{"id": 0, "result": ' + "9" * 10_000 + "}",
    ],
)
async def test_what_is_not_json_rpc_is_no_answer(connect: Connect, body: str | bytes) -> None:
    rpc = await connect(answering(body))

    with pytest.raises(RpcUnavailable) as caught:
        await rpc.call("any")

    assert caught.value.status == 200


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_are_told_by_their_status(connect: Connect, status: int) -> None:
    rpc = await connect(answering("", status=status))

    with pytest.raises(RpcUnavailable) as caught:
        await rpc.call("any")

    assert caught.value.status == status


async def test_redirects_are_not_followed(connect: Connect) -> None:
    asked = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=307, headers={"location": "/elsewhere"})

    rpc = await connect(handler)
    with pytest.raises(RpcUnavailable, match="HTTP 307"):
        await rpc.call("any")

    assert asked == ["/"]


async def test_proxies_of_the_environment_are_not_used(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/")
    rpc = await connect(answering(result("1")))

    assert await rpc.call("any") == 1


# --- size -------------------------------------------------------------------------------------------------------


async def test_an_endless_answer_is_stopped_at_the_cap(connect: Connect) -> None:
    sent = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 65536)
            sent += 65536

    rpc = await connect(handler, max_bytes=200_000)

    with pytest.raises(AnswerTooLarge, match="more than 200000 bytes"):
        await rpc.call("any")
    assert sent < 50_000_000


async def test_a_small_answer_that_unpacks_to_a_huge_one_is_stopped_too(connect: Connect) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < 100_000
    rpc = await connect(answering(bomb, headers={"content-encoding": "gzip"}), max_bytes=100_000)

    tracemalloc.start()
    try:
        with pytest.raises(AnswerTooLarge):
            await rpc.call("any")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 5_000_000


async def test_an_answer_of_exactly_the_cap_is_taken(connect: Connect) -> None:
    body = result('"' + "x" * 1000 + '"')
    rpc = await connect(answering(body), max_bytes=len(body))

    assert await rpc.call("any") == "x" * 1000


async def test_packed_answers_are_unpacked(connect: Connect) -> None:
    text = json.dumps({"id": 0, "result": ["some words"] * 10_000})
    rpc = await connect(answering(gzip.compress(text.encode()), headers={"content-encoding": "gzip"}))

    assert await rpc.call("any") == ["some words"] * 10_000


# --- Retry-After ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("Mon, 04 May 2026 12:00:30 GMT", 30.0),
        ("Monday, 04-May-26 12:00:30 GMT", 30.0),
        ("Mon, 04 May 2026 11:59:00 GMT", 0.0),
        ("Mon, 04 May 2026 12:00:30 -0000", 30.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, now=NOW) == seconds


@given(st.text(alphabet="0123456789 :,-+.GMTMonMay²٣") | st.text())
def test_no_retry_after_header_can_break_us(value: str) -> None:
    seconds = parse_retry_after(value, now=NOW)

    assert seconds is None or seconds >= 0
