"""Signatures as receivers check them: with the library of Standard Webhooks."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError
from tests.webhooks.webhook_world import SECRETS, HandClock, a_tenant

from keyserver.kit.db import Database
from keyserver.kit.secrets import MasterKey
from keyserver.webhooks.models import SigningSecret
from keyserver.webhooks.secrets import OVERLAP, Rotation, TenantSecrets, active_versions, rotate
from keyserver.webhooks.sender import signed_headers
from keyserver.webhooks.signing import derive_secret, sign

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)
MASTER = bytes(32)

tenants = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128)


def headers_of(secrets: list[str], body: bytes, *, now: datetime | None = None) -> dict[str, str]:
    return signed_headers(secrets, message_id="whd_1", body=body, now=now or datetime.now(UTC))


def test_the_signature_is_the_one_of_the_specification() -> None:
    # The example of the Standard Webhooks specification's reference libraries.
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    signature = sign(
        [secret], message_id="msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp=1614265330, body=b'{"test": 2432232314}'
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(tenants, st.integers(1, 1000), st.text())
def test_the_library_accepts_what_we_sign(tenant_id: str, version: int, text: str) -> None:
    secret = derive_secret(MASTER, tenant_id, version)
    body = text.encode(errors="ignore")
    Webhook(secret).verify(body, headers_of([secret], body), json_parse=False)


@given(tenants, st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)))  # noqa: DTZ001 - the library wants it naive
def test_we_sign_as_the_library_does(tenant_id: str, moment: datetime) -> None:
    secret = derive_secret(MASTER, tenant_id, 1)
    timestamp = int(moment.replace(tzinfo=UTC).timestamp())
    theirs = Webhook(secret).sign("whd_1", moment, '{"a":"ü"}')
    assert sign([secret], message_id="whd_1", timestamp=timestamp, body='{"a":"ü"}'.encode()) == theirs


@pytest.mark.parametrize("part", ["webhook-id", "webhook-timestamp", "body", "secret"])
def test_nothing_that_is_signed_can_be_changed(part: str) -> None:
    secret = derive_secret(MASTER, "acme", 1)
    body = b'{"status":"Settled"}'
    headers = headers_of([secret], body)
    if part == "body":
        body = b'{"status":"Expired"}'
    elif part == "secret":
        secret = derive_secret(MASTER, "acme", 2)
    else:
        headers[part] = headers[part][:-1] + ("1" if headers[part][-1] != "1" else "2")
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body, headers)


def test_a_secret_is_32_bytes_that_nobody_else_has() -> None:
    secret = derive_secret(MASTER, "acme", 1)
    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    others = [(MASTER, "acme", 2), (MASTER, "acme2", 1), (b"\x01" * 32, "acme", 1), (MASTER, "acme1", 1)]
    assert len({secret, *(derive_secret(*other) for other in others)}) == 5


def test_a_secret_stays_the_same_over_restarts() -> None:
    assert TenantSecrets(MasterKey("one")).secret("acme") == TenantSecrets(MasterKey("one")).secret("acme")
    assert TenantSecrets(MasterKey("one")).secret("acme") != TenantSecrets(MasterKey("two")).secret("acme")


# --- rotation ---------------------------------------------------------------------------------------------------


def row(version: int) -> Rotation:
    return SigningSecret(tenant_id="acme", version=version, rotated_at=NOW)


def test_a_tenant_that_never_rotated_signs_with_version_1() -> None:
    assert active_versions(None, NOW) == (1,)


def test_both_secrets_sign_for_a_day_after_a_rotation_and_then_the_new_one_alone() -> None:
    assert active_versions(row(5), NOW) == (5, 4)
    assert active_versions(row(5), NOW + OVERLAP - timedelta(microseconds=1)) == (5, 4)
    assert active_versions(row(5), NOW + OVERLAP) == (5,)


def test_during_the_overlap_a_receiver_with_either_secret_is_content() -> None:
    now = datetime.now(UTC)
    secrets = SECRETS.active("acme", SigningSecret(tenant_id="acme", version=2, rotated_at=now), now=now)
    headers = headers_of(secrets, b"{}", now=now)
    assert [part[:3] for part in headers["webhook-signature"].split(" ")] == ["v1,", "v1,"]
    assert secrets == [SECRETS.secret("acme", 2), SECRETS.secret("acme", 1)]
    for secret in secrets:
        Webhook(secret).verify(b"{}", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRETS.secret("acme", 3)).verify(b"{}", headers)


async def test_rotating_counts_up_for_this_tenant_alone(database: Database) -> None:
    clock = HandClock(NOW)
    for tenant_id in ("acme", "other"):
        await a_tenant(database, tenant_id)
    async with database.transaction() as session:
        first = await rotate(session, "acme", now=clock())
        assert (first.version, first.rotated_at) == (2, NOW)
        clock.turn(hours=1)
        second = await rotate(session, "acme", now=clock())
        assert (second.version, second.rotated_at) == (3, NOW + timedelta(hours=1))
    async with database.transaction() as session:
        assert (await session.get_one(SigningSecret, "acme")).version == 3
        assert await session.get(SigningSecret, "other") is None
