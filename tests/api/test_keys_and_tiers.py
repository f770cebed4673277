"""Keys that are rotated, wrong keys that keep coming, and what a platform service is."""

from datetime import timedelta

import httpx
import pytest
from tests.api.support import a_key, a_tenant, bearer, problem
from tests.builders import AS_ADMIN, AS_PLATFORM, ManualClock

from keyserver.access.attempts import WINDOW_SECONDS, FailedAttempts
from keyserver.kit.clock import iso_z


async def status_of(api: httpx.AsyncClient, key: str) -> int:
    return (await api.get("/ledger/balance", headers=bearer(key))).status_code


# --- rotation ---------------------------------------------------------------------------------------------------


async def test_a_rotated_key_and_its_successor_both_work_until_the_overlap_ends(
    api: httpx.AsyncClient, clock: ManualClock
) -> None:
    await a_tenant(api, "shop")
    old = await a_key(api, "shop", instance_id="eu-1")

    answer = await api.post(f"/admin/keys/{old['id']}/rotate", json={"overlap_seconds": 3600}, headers=AS_ADMIN)

    assert answer.status_code == 201, answer.text
    new = answer.json()
    assert (new["tenant_id"], new["instance_id"], new["expires_at"]) == ("shop", "eu-1", None)
    assert (new["replaces"], new["replaces_until"]) == (old["id"], iso_z(clock() + timedelta(hours=1)))
    clock.advance(seconds=3599)
    assert (await status_of(api, old["key"]), await status_of(api, new["key"])) == (200, 200)
    clock.advance(seconds=1)
    assert (await status_of(api, old["key"]), await status_of(api, new["key"])) == (401, 200)


async def test_a_rotation_without_overlap_ends_the_old_key_at_once(api: httpx.AsyncClient) -> None:
    await a_tenant(api, "shop")
    old = await a_key(api, "shop")
    new = (await api.post(f"/admin/keys/{old['id']}/rotate", json={"overlap_seconds": 0}, headers=AS_ADMIN)).json()
    assert (await status_of(api, old["key"]), await status_of(api, new["key"])) == (401, 200)


async def test_a_rotation_never_lengthens_the_old_key_s_life(api: httpx.AsyncClient, clock: ManualClock) -> None:
    await a_tenant(api, "shop")
    ends = iso_z(clock() + timedelta(minutes=5))
    old = await a_key(api, "shop", expires_at=ends)
    new = (await api.post(f"/admin/keys/{old['id']}/rotate", headers=AS_ADMIN)).json()
    assert new["replaces_until"] == ends


async def test_a_key_that_has_ended_or_never_was_is_not_rotated(api: httpx.AsyncClient) -> None:
    await a_tenant(api, "shop")
    old = await a_key(api, "shop")
    await api.delete(f"/admin/keys/{old['id']}", headers=AS_ADMIN)
    problem(await api.post(f"/admin/keys/{old['id']}/rotate", headers=AS_ADMIN), 409, "key_ended")
    problem(await api.post("/admin/keys/key_none/rotate", headers=AS_ADMIN), 404, "key_not_found")


async def test_a_rotation_tried_again_with_its_idempotency_key_makes_no_second_key(api: httpx.AsyncClient) -> None:
    await a_tenant(api, "shop")
    old = await a_key(api, "shop")
    headers = {**AS_ADMIN, "idempotency-key": "rotate-1"}
    first, again = [await api.post(f"/admin/keys/{old['id']}/rotate", headers=headers) for _ in range(2)]
    assert first.json() == again.json()
    listed = (await api.get("/admin/tenants/shop/keys", headers=AS_ADMIN)).json()["keys"]
    assert len(listed) == 2


# --- wrong keys -------------------------------------------------------------------------------------------------


async def wrong_keys(api: httpx.AsyncClient, count: int) -> httpx.Response:
    for number in range(count):
        answer = await api.get("/ledger/balance", headers=bearer(f"ks_guess{number}"))
    return answer


async def test_wrong_keys_from_one_address_are_limited_and_right_ones_go_on(api: httpx.AsyncClient) -> None:
    await a_tenant(api, "shop")
    key: str = (await a_key(api, "shop"))["key"]
    assert await status_of(api, key) == 200
    assert (await wrong_keys(api, 100)).status_code == 401

    refused = await wrong_keys(api, 1)

    problem(refused, 429, "too_many_failed_attempts")
    assert 0 < int(refused.headers["retry-after"]) <= WINDOW_SECONDS
    assert await status_of(api, key) == 200
    assert (await api.get("/ledger/balance", headers=AS_PLATFORM)).status_code == 200


async def test_guesses_of_the_admin_token_are_limited_and_the_right_one_goes_on(api: httpx.AsyncClient) -> None:
    for number in range(101):
        guess = await api.get("/admin/chains", headers=bearer(f"guess{number}"))
    problem(guess, 429, "too_many_failed_attempts")
    assert (await api.get("/admin/chains", headers=AS_ADMIN)).status_code == 200


def test_the_limit_is_by_address_and_passes_with_its_minute() -> None:
    now = 1000.0
    attempts = FailedAttempts(2, monotonic=lambda: now)
    attempts.failed("a")
    now += 30
    attempts.failed("a")
    refusal = attempts.refusal("a")
    assert refusal is not None and refusal.headers["retry-after"] == "30"
    assert attempts.refusal("b") is None
    now += 30
    assert attempts.refusal("a") is None


def test_addresses_beyond_what_is_remembered_push_out_the_oldest() -> None:
    attempts = FailedAttempts(1, monotonic=lambda: 0.0)
    for number in range(10_001):
        attempts.failed(f"10.0.{number // 256}.{number % 256}")
    assert attempts.refusal("10.0.0.0") is None
    assert attempts.refusal("10.0.39.16") is not None


# --- platform services ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", ["internal", "demo", "testing"])
async def test_a_platform_service_has_a_tier(api: httpx.AsyncClient, tier: str) -> None:
    body = {"name": "Assistant", "type": "platform_service", "metadata": {"tier": tier, "team": "growth"}}
    answer = await api.post("/admin/tenants", json=body, headers=AS_ADMIN)
    assert answer.status_code == 201, answer.text
    assert answer.json()["metadata"] == {"tier": tier, "team": "growth"}


async def test_a_platform_service_is_internal_unless_it_says_otherwise(api: httpx.AsyncClient) -> None:
    answer = await api.post("/admin/tenants", json={"name": "A", "type": "platform_service"}, headers=AS_ADMIN)
    assert answer.json()["metadata"] == {"tier": "internal"}
    seeded = (await api.get("/admin/tenants/platform", headers=AS_ADMIN)).json()
    assert (seeded["type"], seeded["metadata"]) == ("platform_service", {"tier": "internal"})


@pytest.mark.parametrize(
    ("member", "value"),
    [("owner_id", "user-1"), ("billing_email", "a@example.com"), ("metadata", {"tier": "gold"})],
)
async def test_a_platform_service_has_no_owner_no_billing_email_and_no_other_tier(
    api: httpx.AsyncClient, member: str, value: object
) -> None:
    body = {"name": "A", "type": "platform_service", member: value}
    refused = problem(await api.post("/admin/tenants", json=body, headers=AS_ADMIN), 400)
    assert refused["errors"][0]["pointer"] == f"/{member}"


async def test_other_tenants_keep_their_metadata_as_given(api: httpx.AsyncClient) -> None:
    body = {"name": "A", "type": "org", "owner_id": "user-1", "billing_email": "a@example.com", "metadata": {"tier": 3}}
    answer = await api.post("/admin/tenants", json=body, headers=AS_ADMIN)
    assert answer.status_code == 201 and answer.json()["metadata"] == {"tier": 3}
