"""Changing and disabling payment methods: what is promised goes on, and secrets rest encrypted."""

from typing import Any

import httpx
from tests.api.support import count, next_index, problem
from tests.builders import AS_ADMIN, AS_PLATFORM, MASTER_KEY, charge, ether, litecoin, register

from keyserver.kit.db import Database
from keyserver.kit.secrets import MasterKey


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


async def decrypted_urls(database: Database, method_id: str) -> str:
    async with database.connection() as connection:
        query = "SELECT rpc_url_encrypted FROM payment_methods WHERE id = $1"
        return MasterKey(MASTER_KEY).decrypt(await connection.fetchval(query, method_id)).decode()


async def test_a_method_may_have_several_nodes_each_once(api: httpx.AsyncClient, database: Database) -> None:
    urls = ["http://u:p@a.example:1/", "https://b.example/key", "http://u:p@a.example:1/"]
    await register(api, litecoin(rpc_url=urls))
    assert await decrypted_urls(database, "LTC") == "\n".join(urls[:2])
    for given, kept in (("http://c.example", "http://c.example"), (urls[1:2], urls[1])):
        answer = await api.patch("/admin/chains/LTC", json={"rpc_url": given}, headers=AS_ADMIN)
        assert answer.status_code == 200
        assert await decrypted_urls(database, "LTC") == kept


async def test_finality_is_the_blockchains_and_depth_unless_said(api: httpx.AsyncClient) -> None:
    await register(api, ether())
    usdc = ether(id="USDC", token="USDC", type="erc20", decimals=6, contract="0x" + "ab" * 20)
    answer = await api.post("/admin/chains", json={**usdc, "finality": "safe"}, headers=AS_ADMIN)
    assert "finality depth" in problem(answer, 409, "finality_taken")["error"]
    await register(api, {**usdc, "finality": "depth"})
    changed = await api.patch("/admin/chains/USDC", json={"finality": "finalized"}, headers=AS_ADMIN)
    assert changed.json()["finality"] == "finalized"
    listed = (await api.get("/admin/chains", headers=AS_ADMIN)).json()["chains"]
    assert [each["finality"] for each in listed] == ["finalized", "finalized"]
    await register(api, ether(id="ETH2"))
    (scanner,) = (await api.get("/admin/scanners", headers=AS_ADMIN)).json()["scanners"]
    assert (scanner["finality"], scanner["state"], scanner["nodes"]) == ("finalized", "not started", [])
    problem(await api.patch("/admin/chains/USDC", json={"finality": None}, headers=AS_ADMIN), 400)


async def test_a_chain_without_block_tags_is_final_by_depth_alone(api: httpx.AsyncClient, database: Database) -> None:
    answer = await api.post("/admin/chains", json=litecoin(finality="finalized"), headers=AS_ADMIN)
    assert problem(answer, 400)["errors"][0]["pointer"] == "/finality"
    assert await count(database, "blockchains") == 0
    await register(api, litecoin(finality="depth"))
    body = {"finality": "safe", "confirmations": 9}
    answer = await api.patch("/admin/chains/LTC", json=body, headers=AS_ADMIN)
    assert "litecoin has no safe blocks" in problem(answer, 400)["error"]
    (listed,) = (await api.get("/admin/chains", headers=AS_ADMIN)).json()["chains"]
    assert (listed["finality"], listed["confirmations"]) == ("depth", 2)
