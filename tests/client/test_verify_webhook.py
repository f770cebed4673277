"""Webhooks are believed when the key server signed them, and in no other case."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyserver.client import NotUnderstood, WebhookEvent, WebhookNotVerified, verify_webhook
from keyserver.webhooks.signing import derive_secret, sign

SECRET = derive_secret(b"m" * 32, "acme", 1)
OTHER = derive_secret(b"m" * 32, "acme", 2)
EVENT = {
    "type": "charge.settled",
    "timestamp": "2026-03-01T12:00:00.000Z",
    "sequence": 3,
    "chargeId": "ch_1",
    "chain": "litecoin",
    "token": "LTC",
    "address": "rltc1q",
    "status": "Settled",
    "additionalStatus": "None",
    "txHash": None,
    "confirmations": 2,
    "confirmationsRequired": 2,
    "amountExpectedCents": 2500,
    "amountReceivedCents": 2500,
    "expectedAmount": "25000000",
    "receivedAmount": "25000000",
    "metadata": {"order": "ünïcode"},
}
BODY = json.dumps(EVENT, ensure_ascii=False).encode()


def signed(body: bytes = BODY, *, age: float = 0, secrets: tuple[str, ...] = (SECRET,)) -> dict[str, str]:
    timestamp = int(time.time() - age)
    return {
        "Webhook-Id": "whd_1",
        "Webhook-Timestamp": str(timestamp),
        "Webhook-Signature": sign(secrets, message_id="whd_1", timestamp=timestamp, body=body),
    }


def test_a_signed_event_is_read() -> None:
    event = verify_webhook(signed(), BODY, SECRET)
    assert isinstance(event, WebhookEvent)
    assert (event.id, event.charge_id, event.sequence, event.status) == ("whd_1", "ch_1", 3, "Settled")
    assert (event.expected_amount, event.metadata) == (25_000_000, {"order": "ünïcode"})
    assert verify_webhook(signed(), BODY.decode(), SECRET) == event


@pytest.mark.parametrize("secrets", [(OTHER, SECRET), (SECRET, OTHER)])
def test_one_of_two_signatures_is_enough_during_a_rotation(secrets: tuple[str, ...]) -> None:
    assert verify_webhook(signed(secrets=secrets), BODY, SECRET).charge_id == "ch_1"


def test_another_tenants_secret_does_not_fit() -> None:
    with pytest.raises(WebhookNotVerified):
        verify_webhook(signed(), BODY, OTHER)


def test_a_changed_body_is_not_believed() -> None:
    with pytest.raises(WebhookNotVerified):
        verify_webhook(signed(), BODY.replace(b"Settled", b"Expired"), SECRET)


@pytest.mark.parametrize("age", [-400, 400])
def test_an_old_or_future_webhook_is_not_believed(age: float) -> None:
    with pytest.raises(WebhookNotVerified):
        verify_webhook(signed(age=age), BODY, SECRET)


@pytest.mark.parametrize("missing", ["Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"])
def test_a_missing_header_is_not_verified(missing: str) -> None:
    headers = {name: value for name, value in signed().items() if name != missing}
    with pytest.raises(WebhookNotVerified):
        verify_webhook(headers, BODY, SECRET)


@given(st.text(), st.binary())
def test_nothing_a_forger_sends_raises_anything_else(signature: str, body: bytes) -> None:
    with pytest.raises(WebhookNotVerified):
        verify_webhook(signed() | {"Webhook-Signature": signature}, body, SECRET)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_é"])
def test_a_secret_that_is_none_is_told_so(secret: str) -> None:
    with pytest.raises(WebhookNotVerified, match="secret"):
        verify_webhook(signed(), BODY, secret)


@pytest.mark.parametrize("body", [b"[]", b"{}", b"7", b"not json"])
def test_a_signed_body_of_another_shape_is_not_understood(body: bytes) -> None:
    with pytest.raises(NotUnderstood):
        verify_webhook(signed(body), body, SECRET)


def test_a_status_of_tomorrow_stays_a_word() -> None:
    document: dict[str, Any] = EVENT | {"status": "Frozen"}
    body = json.dumps(document).encode()
    assert verify_webhook(signed(body), body, SECRET).status == "Frozen"
