"""Who may call: bearer keys, the admin token, tenants that are acted for, and what each of them may see."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from tests.api.support import a_key, a_tenant, a_tenant_with_key, acting_for, bearer, count, problem
from tests.builders import (
    ADMIN_TOKEN,
    AS_ADMIN,
    AS_PLATFORM,
    MASTER_KEY,
    SERVICE_KEY,
    ManualClock,
    charge,
    litecoin,
    register,
)

from keyserver.app import create_app
from keyserver.kit.clock import iso_z
from keyserver.kit.db import Database
from keyserver.kit.secrets import MasterKey
from keyserver.settings import Settings

PRODUCT_ROUTES = [
    ("POST", "/address"),
    ("POST", "/charges"),
    ("GET", "/charges"),
    ("GET", "/charges/ch_x"),
    ("GET", "/ledger/balance"),
    ("GET", "/ledger/entries"),
]
ADMIN_ROUTES = [
    ("GET", "/admin/next-path?coin_type=1"),
    ("POST", "/admin/chains"),
    ("GET", "/admin/chains"),
    ("PATCH", "/admin/chains/LTC"),
    ("DELETE", "/admin/chains/LTC"),
    ("GET", "/admin/prices"),
    ("PUT", "/admin/prices/LTC"),
    ("DELETE", "/admin/prices/LTC"),
    ("POST", "/admin/tenants"),
    ("GET", "/admin/tenants"),
    ("GET", "/admin/tenants/platform"),
    ("POST", "/admin/tenants/platform/keys"),
    ("GET", "/admin/tenants/platform/keys"),
    ("POST", "/admin/tenants/platform/webhook-secret"),
    ("DELETE", "/admin/keys/key_x"),
    ("POST", "/admin/keys/key_x/rotate"),
    ("POST", "/admin/ledger/entries"),
    ("GET", "/admin/ledger/trial-balance"),
    ("GET", "/admin/payments"),
    ("GET", "/admin/payments/pay_x"),
    ("POST", "/admin/payments/pay_x/credit"),
    ("POST", "/admin/payments/pay_x/dismiss"),
    ("GET", "/admin/webhooks/deliveries"),
    ("POST", "/admin/webhooks/deliveries/x/redeliver"),
    ("GET", "/admin/scanners"),
    ("GET", "/admin/holds"),
    ("GET", "/admin/tenants/platform/limits"),
    ("PUT", "/admin/tenants/platform/limits"),
]
WRONG_CREDENTIALS: list[dict[str, Any]] = [
    {},
    {"authorization": ""},
    {"authorization": "Bearer"},
    {"authorization": "Bearer "},
    {"authorization": SERVICE_KEY},
    {"authorization": f"Basic {SERVICE_KEY}"},
    {"authorization": f"Bearer {SERVICE_KEY}x"},
    {"authorization": f"Bearer {SERVICE_KEY[:-1]}"},
    {"authorization": f"Bearer {SERVICE_KEY.upper()}"},
    {"authorization": f"Bearer {SERVICE_KEY} {SERVICE_KEY}"},
    {"authorization": "Bearer ks_' OR '1'='1"},
    {"authorization": "Bearer " + "k" * 10_000},
    {"authorization": b"Bearer ks_\xff\xfe\xfd-0123456789"},
]


async def test_every_product_route_refuses_a_missing_or_wrong_key(api: httpx.AsyncClient) -> None:
    for method, path in PRODUCT_ROUTES:
        for headers in WRONG_CREDENTIALS:
            answer = await api.request(method, path, headers=headers, json={})
            document = problem(answer, 401, "unauthorized")
            assert document["error"] == "Unauthorized"
            assert answer.headers["www-authenticate"] == "Bearer"


async def test_the_admin_token_is_no_service_key_and_a_service_key_no_admin_token(api: httpx.AsyncClient) -> None:
    problem(await api.get("/charges", headers=AS_ADMIN), 401, "unauthorized")
    for method, path in ADMIN_ROUTES:
        problem(await api.request(method, path, headers=AS_PLATFORM), 401, "unauthorized")
        problem(await api.request(method, path), 401, "unauthorized")


async def test_who_may_not_call_learns_that_and_nothing_of_the_body(api: httpx.AsyncClient) -> None:
    for path in ("/charges", "/address", "/admin/chains", "/admin/tenants"):
        problem(await api.post(path, content=b"{not json", headers={"content-type": "application/json"}), 401)
        problem(await api.post(path, json={"nothing": "of use"}), 401)


@pytest.mark.parametrize("token", [None, SecretStr("")], ids=["unset", "empty"])
async def test_without_an_admin_token_every_admin_route_is_disabled(
    token: SecretStr | None, settings: Settings, database_url: str
) -> None:
    app = create_app(
        settings.model_copy(update={"admin_token": token}), database_url=database_url, master=MasterKey(MASTER_KEY)
    )
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://keyserver") as api,
    ):
        for method, path in ADMIN_ROUTES:
            for headers in ({}, AS_ADMIN, {"authorization": "Bearer "}, {"authorization": "Bearer None"}):
                answer = await api.request(method, path, headers=headers)
                assert problem(answer, 403, "admin_api_disabled")["error"] == "Admin API disabled"
        malformed = await api.post("/admin/chains", content=b"{", headers={"content-type": "application/json"})
        problem(malformed, 403, "admin_api_disabled")


async def test_the_scheme_of_a_bearer_token_is_written_in_any_case(api: httpx.AsyncClient) -> None:
    for scheme in ("bearer", "BEARER", "Bearer"):
        answer = await api.get("/charges", headers={"authorization": f"{scheme} {SERVICE_KEY}"})
        assert answer.status_code == 200
    assert (await api.get("/admin/tenants", headers={"authorization": f"bearer {ADMIN_TOKEN}"})).status_code == 200


# --- keys -------------------------------------------------------------------------------------------------------


async def test_a_key_is_shown_once_and_kept_as_a_digest(api: httpx.AsyncClient, database: Database) -> None:
    await a_tenant(api)
    made = await a_key(api, instance_id="eu-1", expires_at="2027-01-01T00:00:00Z")
    assert made == {
        "id": made["id"],
        "key": made["key"],
        "prefix": made["key"][:10],
        "tenant_id": "acme",
        "instance_id": "eu-1",
        "expires_at": "2027-01-01T00:00:00.000Z",
    }
    assert made["key"].startswith("ks_") and len(made["key"]) >= 3 + 43
    listed = await api.get("/admin/tenants/acme/keys", headers=AS_ADMIN)
    (shown,) = listed.json()["keys"]
    assert shown.keys() == {"id", "prefix", "tenant_id", "instance_id", "expires_at", "revoked_at", "created_at"}
    assert made["key"] not in listed.text
    async with database.connection() as connection:
        row = str(dict(await connection.fetchrow("SELECT * FROM service_keys")))
    assert made["key"] not in row


async def test_a_key_without_instance_and_end_needs_no_body(api: httpx.AsyncClient) -> None:
    await a_tenant(api)
    answer = await api.post("/admin/tenants/acme/keys", headers=AS_ADMIN)
    assert (answer.status_code, answer.json()["expires_at"], answer.json()["instance_id"]) == (201, None, None)


async def test_a_key_works_until_the_instant_it_expires(api: httpx.AsyncClient, clock: ManualClock) -> None:
    await a_tenant(api)
    expires_at = iso_z(clock() + timedelta(minutes=5))
    key = bearer((await a_key(api, expires_at=expires_at))["key"])
    clock.advance(seconds=299.999)
    assert (await api.get("/charges", headers=key)).status_code == 200
    clock.advance(seconds=0.001)
    problem(await api.get("/charges", headers=key), 401, "unauthorized")


async def test_a_key_that_would_be_expired_already_is_not_made(api: httpx.AsyncClient, clock: ManualClock) -> None:
    await a_tenant(api)
    for expires_at in (iso_z(clock()), "2020-01-01T00:00:00Z", "2099-01-01T00:00:00", "tomorrow", 12.5, "0001-01-01"):
        body = {"expires_at": expires_at}
        answer = await api.post("/admin/tenants/acme/keys", json=body, headers=AS_ADMIN)
        assert problem(answer, 400)["errors"][0]["pointer"] == "/expires_at", expires_at


async def test_a_revoked_key_is_refused_at_once_and_revoking_again_is_no_error(api: httpx.AsyncClient) -> None:
    await a_tenant(api)
    made = await a_key(api)
    key = bearer(made["key"])
    assert (await api.get("/charges", headers=key)).status_code == 200
    for _ in range(2):
        answer = await api.delete(f"/admin/keys/{made['id']}", headers=AS_ADMIN)
        assert (answer.status_code, answer.content) == (204, b"")
        problem(await api.get("/charges", headers=key), 401, "unauthorized")
    (listed,) = (await api.get("/admin/tenants/acme/keys", headers=AS_ADMIN)).json()["keys"]
    assert listed["revoked_at"] == "2026-03-01T12:00:00.000Z"


async def test_revoking_one_key_leaves_the_tenant_s_others(api: httpx.AsyncClient) -> None:
    await a_tenant(api)
    first, second = await a_key(api), await a_key(api)
    await api.delete(f"/admin/keys/{first['id']}", headers=AS_ADMIN)
    assert (await api.get("/charges", headers=bearer(second["key"]))).status_code == 200


async def test_keys_of_nobody_are_404(api: httpx.AsyncClient) -> None:
    problem(await api.post("/admin/tenants/nobody/keys", json={}, headers=AS_ADMIN), 404, "tenant_not_found")
    problem(await api.get("/admin/tenants/nobody/keys", headers=AS_ADMIN), 404, "tenant_not_found")
    problem(await api.delete("/admin/keys/key_none", headers=AS_ADMIN), 404, "key_not_found")


# --- tenants that are acted for ---------------------------------------------------------------------------------


async def test_the_platform_acts_for_a_tenant_that_is_made_on_first_use(api: httpx.AsyncClient) -> None:
    assert (await api.get("/ledger/balance", headers=acting_for("newcomer"))).json()["tenantId"] == "newcomer"
    made = (await api.get("/admin/tenants/newcomer", headers=AS_ADMIN)).json()
    assert (made["id"], made["type"]) == ("newcomer", "org")


async def test_without_a_tenant_named_the_key_s_own_acts(api: httpx.AsyncClient) -> None:
    for headers in (AS_PLATFORM, acting_for(""), acting_for("platform")):
        assert (await api.get("/ledger/balance", headers=headers)).json()["tenantId"] == "platform"


async def test_an_ordinary_key_acts_for_its_own_tenant_alone(api: httpx.AsyncClient) -> None:
    for kind in ("org", "personal"):
        own = await a_tenant_with_key(api, f"a-{kind}", kind=kind)
        for tenant in ("platform", "nobody", "a-" + kind.upper()):
            answer = await api.get("/ledger/balance", headers={**own, "x-tenant-id": tenant})
            problem(answer, 403, "tenant_not_allowed")
        named = {**own, "x-tenant-id": f"a-{kind}"}
        assert (await api.get("/ledger/balance", headers=named)).json()["tenantId"] == f"a-{kind}"
    problem(await api.get("/admin/tenants/nobody", headers=AS_ADMIN), 404)


async def test_any_platform_service_s_key_may_act_for_others(api: httpx.AsyncClient) -> None:
    own = await a_tenant_with_key(api, "shop", kind="platform_service")
    answer = await api.get("/ledger/balance", headers={**own, "x-tenant-id": "its-customer"})
    assert answer.json()["tenantId"] == "its-customer"


async def test_a_tenant_id_that_cannot_be_one_is_refused_and_makes_nobody(
    api: httpx.AsyncClient, database: Database
) -> None:
    before = await count(database, "tenants")
    for name in ("x" * 129, "two words", "tab\tbed"):
        problem(await api.get("/charges", headers=acting_for(name)), 400, "invalid_tenant_id")
    raw = [(b"authorization", AS_PLATFORM["authorization"].encode()), (b"x-tenant-id", b"caf\xc3\xa9")]
    problem(await api.get("/charges", headers=raw), 400, "invalid_tenant_id")
    assert await count(database, "tenants") == before


async def test_a_tenant_sees_its_own_charges_alone(api: httpx.AsyncClient) -> None:
    await register(api, litecoin())
    own = await a_tenant_with_key(api)
    theirs = await charge(api)
    made = await api.post("/charges", json={"chain": "LTC", "amountUsd": 5}, headers=own)
    ours = made.json()["chargeId"]
    answer = await api.get(f"/charges/{theirs['chargeId']}", headers=own)
    assert problem(answer, 404, "charge_not_found")["error"] == "Charge not found"
    problem(await api.get(f"/charges/{ours}", headers=AS_PLATFORM), 404, "charge_not_found")
    assert [each["chargeId"] for each in (await api.get("/charges", headers=own)).json()["charges"]] == [ours]
    assert (await api.get(f"/charges/{ours}", headers=acting_for("acme"))).status_code == 200


async def test_a_tenant_sees_its_own_ledger_alone(api: httpx.AsyncClient) -> None:
    own = await a_tenant_with_key(api)
    grant = {"tenant_id": "platform", "type": "grant", "amount_usd": 5, "reference_id": "g1"}
    assert (await api.post("/admin/ledger/entries", json=grant, headers=AS_ADMIN)).status_code == 201
    assert (await api.get("/ledger/balance", headers=own)).json()["balanceNanodollars"] == "0"
    assert (await api.get("/ledger/entries", headers=own)).json() == {"entries": [], "nextCursor": None}
    assert len((await api.get("/ledger/entries", headers=AS_PLATFORM)).json()["entries"]) == 1
