"""Changing and disabling payment methods: what is promised goes on, and secrets rest encrypted."""

from typing import Any

import httpx
from tests.api.support import count, next_index, problem
from tests.builders import AS_ADMIN, AS_PLATFORM, charge, litecoin, register

from keyserver.kit.db import Database


async def test_members_that_are_left_out_of_a_change_stay_as_they_are(api: httpx.AsyncClient) -> None:
    await register(api, litecoin(icon_url="https://x.example/a.svg"))
    before = (await api.get("/admin/chains", headers=AS_ADMIN)).json()["chains"][0]
    answer = await api.patch("/admin/chains/LTC", json={"confirmations": 6}, headers=AS_ADMIN)
    assert (answer.status_code, answer.json()) == (200, {**before, "confirmations": 6})
    answer = await api.patch("/admin/chains/LTC", json={"icon_url": None, "display_name": "Lite"}, headers=AS_ADMIN)
    assert answer.json() == {**before, "confirmations": 6, "icon_url": None, "display_name": "Lite"}
    assert (await api.patch("/admin/chains/LTC", json={}, headers=AS_ADMIN)).json() == answer.json()
    assert (await charge(api))["chargeId"]


async def test_a_change_of_confirmations_is_for_new_charges(api: httpx.AsyncClient) -> None:
    await register(api, litecoin())
    old = await charge(api)
    await api.patch("/admin/chains/LTC", json={"confirmations": 9}, headers=AS_ADMIN)
    new = await charge(api)
    for made, wanted in ((old, 2), (new, 9)):
        found = (await api.get(f"/charges/{made['chargeId']}", headers=AS_PLATFORM)).json()
        assert found["confirmationsRequired"] == wanted


async def test_a_wrong_change_changes_nothing(api: httpx.AsyncClient) -> None:
    await register(api, litecoin())
    before = (await api.get("/admin/chains", headers=AS_ADMIN)).json()
    wrong: list[dict[str, Any]] = [
        {"confirmations": 0},
        {"confirmations": None},
        {"enabled": None},
        {"enabled": "perhaps"},
        {"display_name": ""},
        {"rpc_url": "node:1"},
        {"rpc_headers": {"a": "b\r\nc: d"}},
        {"display_name": "ok", "display_order": "first"},
    ]
    for body in wrong:
        problem(await api.patch("/admin/chains/LTC", json=body, headers=AS_ADMIN), 400, "bad_request")
    problem(await api.patch("/admin/chains/DOGE", json={}, headers=AS_ADMIN), 404, "chain_not_found")
    assert (await api.get("/admin/chains", headers=AS_ADMIN)).json() == before


async def test_a_disabled_method_is_kept_unlisted_refused_and_can_be_enabled_again(
    api: httpx.AsyncClient, database: Database
) -> None:
    await register(api, litecoin())
    assert await next_index(api) == 0
    for _ in range(2):
        answer = await api.delete("/admin/chains/LTC", headers=AS_ADMIN)
        assert (answer.status_code, answer.content) == (204, b"")
    assert (await api.get("/chains")).json() == []
    assert (await api.get("/admin/chains", headers=AS_ADMIN)).json()["chains"][0]["enabled"] is False
    problem(await api.post("/address", json={"chain": "LTC"}, headers=AS_PLATFORM), 404, "chain_not_found")
    problem(await api.delete("/admin/chains/DOGE", headers=AS_ADMIN), 404, "chain_not_found")
    assert await count(database, "payment_methods") == 1
    assert (await api.patch("/admin/chains/LTC", json={"enabled": True}, headers=AS_ADMIN)).status_code == 200
    assert await next_index(api) == 1


async def test_a_node_s_url_and_headers_rest_encrypted(api: httpx.AsyncClient, database: Database) -> None:
    secret = "node-password-0123456789"
    body = litecoin(rpc_url=f"http://user:{secret}@node.example:9332/", rpc_headers={"x-api-key": secret})
    await register(api, body)
    await api.patch("/admin/chains/LTC", json={"rpc_url": f"http://u:{secret}@n.example/"}, headers=AS_ADMIN)
    async with database.connection() as connection:
        row = dict(await connection.fetchrow("SELECT * FROM payment_methods"))
    assert row["rpc_url_encrypted"] and row["rpc_headers_encrypted"]
    assert secret.encode() not in row["rpc_url_encrypted"] + row["rpc_headers_encrypted"]
    assert secret not in str(row)
    assert secret not in (await api.get("/admin/chains", headers=AS_ADMIN)).text
