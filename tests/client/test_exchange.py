"""The clients' shared core, told what came of each step: no socket, no clock."""

import json
import uuid
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyserver.client import (
    ApiError,
    BadRequest,
    Conflict,
    KeyserverError,
    NotConfigured,
    NotReached,
    NotUnderstood,
    Unauthorized,
    Unavailable,
    calls,
)
from keyserver.client.exchange import Access, Lost, Pause, Reply, Send, Told, conduct, read_access

ACCESS = Access("http://keyserver:3100", "ks_key", "acme")
CREATED = {
    "chargeId": "ch_1",
    "address": "bcrt1q",
    "chain": "LTC",
    "token": "LTC",
    "amountUsd": 0.1,
    "derivationIndex": 7,
    "expiresAt": "2026-03-01T12:30:00.000Z",
    "status": "New",
    "type": "native",
    "network": "regtest",
    "decimals": 8,
    "contractAddress": None,
    "expectedAmount": "100000000000000000000001",
    "displayAmount": "0.1",
    "priceUsd": "100",
    "paymentUri": "litecoin:x",
    "createdAt": "2026-03-01T12:00:00.000Z",
    "aMemberOfTomorrow": 1,
}
LOST = Lost("did not answer in time")


def reply(status: int, document: Any = None, **headers: str) -> Reply:
    return Reply(status, headers, b"" if document is None else json.dumps(document).encode())


def problem(status: int, code: str, **members: Any) -> Reply:
    return reply(status, {"error": "A sentence", "code": code, **members})


def charge_call(**changes: Any) -> calls.Call[Any]:
    given: dict[str, Any] = {"callback_url": None, "metadata": None, "expires_in": None, "idempotency_key": None}
    return calls.create_charge("LTC", Decimal("0.1"), **(given | changes))


def play(call: calls.Call[Any], *answers: Told, retries: int = 2) -> tuple[Any, list[Send], list[float]]:
    """Runs the conversation with these answers; gives its result or error, the requests, and the pauses."""
    steps = conduct(ACCESS, call, retries=retries, jitter=lambda: 0.0)
    waiting, sent, pauses = list(answers), [], []
    told: Told = None
    try:
        while True:
            step = steps.send(told)
            if isinstance(step, Pause):
                pauses.append(step.seconds)
                told = None
            else:
                sent.append(step)
                told = waiting.pop(0)
    except StopIteration as done:
        assert not waiting
        return done.value, sent, pauses
    except KeyserverError as error:
        assert not waiting
        return error, sent, pauses


def test_a_charge_is_asked_for_in_the_words_of_the_contract() -> None:
    call = charge_call(callback_url="https://shop.example/x", metadata={"order": 7}, expires_in=600)
    created, (request,), pauses = play(call, reply(201, CREATED))
    assert (request.method, request.url, pauses) == ("POST", "http://keyserver:3100/charges", [])
    assert json.loads(request.body or b"") == {
        "chain": "LTC",
        "amountUsd": "0.1",
        "callbackUrl": "https://shop.example/x",
        "metadata": {"order": 7},
        "expiresInSeconds": 600,
    }
    assert request.headers["authorization"] == "Bearer ks_key"
    assert request.headers["x-tenant-id"] == "acme"
    assert created.amount_usd == Decimal("0.1")
    assert created.expected_amount == 100000000000000000000001


def test_every_try_carries_the_one_idempotency_key() -> None:
    created, sent, pauses = play(charge_call(), LOST, problem(503, "database_unavailable"), reply(201, CREATED))
    assert created.charge_id == "ch_1"
    keys = {request.headers["idempotency-key"] for request in sent}
    assert len(sent) == 3 and len(keys) == 1
    uuid.UUID(keys.pop())
    assert pauses == [0.2, 0.4]


def test_two_calls_have_two_keys_and_the_callers_own_key_is_kept() -> None:
    first, second = (play(charge_call(), reply(201, CREATED))[1][0].headers["idempotency-key"] for _ in range(2))
    assert first != second
    _, (request,), _ = play(charge_call(idempotency_key="order-7"), reply(201, CREATED))
    assert request.headers["idempotency-key"] == "order-7"


def test_a_question_carries_no_idempotency_key() -> None:
    _, (request,), _ = play(calls.balance(), problem(404, "not_found"))
    assert "idempotency-key" not in request.headers


def test_a_twin_that_is_still_running_is_waited_for() -> None:
    created, sent, _ = play(charge_call(), LOST, problem(409, "request_in_progress"), reply(201, CREATED))
    assert created.charge_id == "ch_1"
    assert len(sent) == 3


def test_after_the_last_try_the_last_error_is_raised() -> None:
    error, sent, _ = play(charge_call(), LOST, LOST, problem(503, "price_unavailable"))
    assert isinstance(error, Unavailable)
    assert error.code == "price_unavailable"
    assert len(sent) == 3
    assert isinstance(play(charge_call(), LOST, retries=0)[0], NotReached)


@pytest.mark.parametrize(("status", "kind"), [(400, BadRequest), (401, Unauthorized), (409, Conflict), (418, ApiError)])
def test_a_refusal_is_not_sent_again(status: int, kind: type[ApiError]) -> None:
    refused = Reply(
        status,
        {"x-request-id": "req_9"},
        b'{"error": "A sentence", "code": "a_code", "errors": [{"pointer": "/amountUsd", "detail": "Mend it"}]}',
    )
    error, sent, _ = play(charge_call(), refused)
    assert type(error) is kind
    assert (error.status, error.code, error.error, error.request_id) == (status, "a_code", "A sentence", "req_9")
    assert [(each.pointer, each.detail) for each in error.errors] == [("/amountUsd", "Mend it")]
    assert len(sent) == 1


def test_the_servers_wish_to_be_left_alone_is_heard_up_to_five_seconds() -> None:
    busy = {"error": "x", "code": "y"}
    _, _, pauses = play(
        charge_call(),
        reply(503, busy, **{"retry-after": "3"}),
        reply(503, busy, **{"retry-after": "600"}),
        reply(201, CREATED),
    )
    assert pauses == [3.0, 5.0]


def test_a_load_balancers_503_is_tried_again_and_its_404_is_not_understood() -> None:
    page = Reply(503, {}, b"<html>no upstream</html>")
    created, sent, _ = play(charge_call(), page, reply(201, CREATED))
    assert created.charge_id == "ch_1" and len(sent) == 2
    error, _, _ = play(charge_call(), Reply(404, {}, b"<html>nothing here</html>"))
    assert isinstance(error, NotUnderstood)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"chargeId": 7}', b"\xff"])
def test_a_success_in_other_words_is_not_understood(body: bytes) -> None:
    error, _, _ = play(charge_call(), Reply(201, {}, body))
    assert isinstance(error, NotUnderstood)


@given(st.binary(), st.integers(300, 599))
def test_no_answer_whatever_raises_anything_but_errors_of_this_client(body: bytes, status: int) -> None:
    error, _, _ = play(charge_call(), Reply(status, {}, body), retries=0)
    assert isinstance(error, ApiError | NotUnderstood)


@pytest.mark.parametrize("amount", [0.1, True, None])
def test_a_float_is_no_amount(amount: Any) -> None:
    with pytest.raises(TypeError, match="amount_usd"):
        calls.create_charge("LTC", amount, callback_url=None, metadata=None, expires_in=None, idempotency_key=None)


def test_a_large_decimal_is_written_without_an_exponent() -> None:
    call = calls.create_charge(
        "LTC", Decimal("1E+6"), callback_url=None, metadata=None, expires_in=None, idempotency_key=None
    )
    assert call.body is not None
    assert call.body["amountUsd"] == "1000000"


def test_an_id_with_a_slash_stays_one_segment_of_the_path() -> None:
    assert calls.charge("../ledger/balance").path == "/charges/..%2Fledger%2Fbalance"


def test_arguments_win_over_the_environment() -> None:
    environ = {"CRYPTO_SERVICE_URL": "http://a:1/", "CRYPTO_SERVICE_KEY": "ks_a", "TENANT_ID": "a"}
    assert read_access(None, None, None, environ=environ) == Access("http://a:1", "ks_a", "a")
    assert read_access("http://b:2", "ks_b", "b", environ=environ) == Access("http://b:2", "ks_b", "b")


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({}, "CRYPTO_SERVICE_URL"),
        ({"CRYPTO_SERVICE_URL": "http://a"}, "CRYPTO_SERVICE_KEY"),
        ({"CRYPTO_SERVICE_URL": "keyserver:3100", "CRYPTO_SERVICE_KEY": "k"}, "CRYPTO_SERVICE_URL"),
        ({"CRYPTO_SERVICE_URL": "http://a:x", "CRYPTO_SERVICE_KEY": "k"}, "CRYPTO_SERVICE_URL"),
        ({"CRYPTO_SERVICE_URL": "http://a", "CRYPTO_SERVICE_KEY": "k\n"}, "CRYPTO_SERVICE_KEY"),
    ],
)
def test_what_is_missing_or_wrong_is_named(environ: dict[str, str], named: str) -> None:
    with pytest.raises(NotConfigured, match=named):
        read_access(None, None, None, environ=environ)


def test_the_key_is_in_no_representation() -> None:
    assert "ks_key" not in repr(ACCESS)


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:3100", True),
        ("http://[::1]:3100", True),
        ("http://localhost", True),
        ("http://10.0.0.1", False),
        ("https://keyserver.internal", False),
    ],
)
def test_proxies_are_for_other_hosts_than_this_one(url: str, loopback: bool) -> None:
    assert Access(url, "k").is_loopback is loopback
