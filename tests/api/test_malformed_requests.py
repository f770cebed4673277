"""Bodies and URLs that are not what they should be: each is a problem document that says what to mend, never a 500."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
from tests.api.support import next_index, problem
from tests.builders import AS_ADMIN, AS_PLATFORM, charge, litecoin, register

JSON = {"content-type": "application/json"}
POSTS = [
    ("/address", AS_PLATFORM),
    ("/charges", AS_PLATFORM),
    ("/admin/chains", AS_ADMIN),
    ("/admin/tenants", AS_ADMIN),
    ("/admin/tenants/platform/keys", AS_ADMIN),
    ("/admin/ledger/entries", AS_ADMIN),
]
MIB = 1024 * 1024
MALFORMED = [
    b"{",
    b"{'chain': 'LTC'}",
    b'{"chain": "LTC",}',
    b'{"chain": "LTC"} trailing',
    b'{"chain": NaN}',
    b'{"chain": Infinity}',
    b'{"chain": -Infinity}',
    b'{"amountUsd": 1e400}',
    b'{"chain": "\x00"}',
    b'{"chain": "LTC\\u0000"}',
    b'{"\\u0000": 1}',
    b'{"chain": "\\ud800"}',
    b'{"metadata": {"half": "\\udfff"}}',
    b'{"chain": "\xff\xfe"}',
    b"\xff\xfe{\x00}\x00",
    b"[" * 100_000,
    b'{"metadata":' * 1000 + b"1" + b"}" * 1000,
    b"[" * 65 + b"]" * 65,
    b"1" * 5000,
]


async def test_malformed_json_is_400_on_every_route(api: httpx.AsyncClient) -> None:
    for body in MALFORMED:
        for path, headers in POSTS:
            answer = await api.post(path, content=body, headers={**headers, **JSON})
            document = problem(answer, 400, "malformed_json")
            assert document["errors"][0]["pointer"] == "", (path, body[:30])


async def test_a_body_that_is_no_object_is_400(api: httpx.AsyncClient) -> None:
    for body in (None, [], "text", "malformed", 1, True, [{"chain": "LTC"}]):
        for path, headers in POSTS[:4]:
            answer = await api.post(path, content=json.dumps(body).encode(), headers={**headers, **JSON})
            assert problem(answer, 400, "bad_request")["errors"], (path, body)


async def test_no_body_at_all_is_400_where_one_is_needed(api: httpx.AsyncClient) -> None:
    for path, headers in POSTS:
        if not path.endswith("/keys"):
            assert problem(await api.post(path, headers=headers), 400)["errors"]


async def test_a_body_is_read_as_json_whatever_its_content_type_says(api: httpx.AsyncClient) -> None:
    await register(api, litecoin())
    tenant = b'{"name":"Ann","type":"org"}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/xml", ""):
        address = await api.post("/address", content=b'{"chain":"LTC"}', headers={**AS_PLATFORM, "content-type": kind})
        created = await api.post("/admin/tenants", content=tenant, headers={**AS_ADMIN, "content-type": kind})
        assert (address.status_code, created.status_code) == (201, 201), kind
        form = await api.post("/address", content=b"chain=LTC", headers={**AS_PLATFORM, "content-type": kind})
        problem(form, 400, "malformed_json")


async def test_json_with_a_charset_or_a_suffix_is_json(api: httpx.AsyncClient) -> None:
    await register(api, litecoin())
    for kind in ("application/json; charset=utf-8", "application/vnd.shop+json", "APPLICATION/JSON"):
        answer = await api.post("/address", content=b'{"chain":"LTC"}', headers={**AS_PLATFORM, "content-type": kind})
        assert answer.status_code == 201, kind


async def test_wrong_types_name_the_member(api: httpx.AsyncClient) -> None:
    await register(api, litecoin())
    good = {"chain": "LTC", "amountUsd": 5}
    wrong: dict[str, list[Any]] = {
        "chain": [None, 1, True, [], {}, "", " ", "x" * 129],
        "amountUsd": [None, True, False, [], {}, "", "five"],
        "callbackUrl": [1, True, [], {}],
        "metadata": [1, "text", True, []],
        "expiresInSeconds": ["60", 60.5, True, [], {}, 59, 604801, -1, 0, 10**30],
    }
    for member, values in wrong.items():
        for value in values:
            answer = await api.post("/charges", json={**good, member: value}, headers=AS_PLATFORM)
            document = problem(answer, 400, "bad_request")
            assert [error["pointer"] for error in document["errors"]] == [f"/{member}"], (member, value)
            assert member in document["error"]
    assert await next_index(api) == 0


async def test_every_wrong_member_is_named_at_once(api: httpx.AsyncClient) -> None:
    body = {"amountUsd": True, "expiresInSeconds": 1}
    document = problem(await api.post("/charges", json=body, headers=AS_PLATFORM), 400)
    pointers = {error["pointer"] for error in document["errors"]}
    assert pointers == {"/chain", "/amountUsd", "/expiresInSeconds"}


async def test_members_nobody_knows_are_passed_over(api: httpx.AsyncClient) -> None:
    await register(api, litecoin())
    await charge(api, tip=5, nested={"a": [1]})


async def test_an_error_never_repeats_what_was_sent(api: httpx.AsyncClient) -> None:
    for member in ("chain", "amountUsd", "callbackUrl"):
        body = {"chain": "LTC", "amountUsd": 5, member: ["a-very-private-value"]}
        answer = await api.post("/charges", json=body, headers=AS_PLATFORM)
        assert answer.status_code == 400 and "a-very-private-value" not in answer.text


# --- size -------------------------------------------------------------------------------------------------------


def _padded(size: int) -> bytes:
    start = b'{"chain": "LTC", "amountUsd": 5, "padding": "'
    return start + b"x" * (size - len(start) - 2) + b'"}'


async def _in_chunks(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 64 * 1024):
        yield body[start : start + 64 * 1024]


async def test_a_body_of_one_mebibyte_is_taken_and_one_byte_more_is_not(api: httpx.AsyncClient) -> None:
    await register(api, litecoin())
    headers = {**AS_PLATFORM, **JSON}
    assert (await api.post("/charges", content=_padded(MIB), headers=headers)).status_code == 201
    assert (await api.post("/charges", content=_in_chunks(_padded(MIB)), headers=headers)).status_code == 201
    problem(await api.post("/charges", content=_padded(MIB + 1), headers=headers), 413, "payload_too_large")
    chunked = await api.post("/charges", content=_in_chunks(_padded(MIB + 1)), headers=headers)
    problem(chunked, 413, "payload_too_large")
    assert await next_index(api) == 2


async def test_a_large_body_is_refused_on_routes_that_read_none(api: httpx.AsyncClient) -> None:
    answer = await api.request("GET", "/chains", content=_padded(MIB + 1))
    problem(answer, 413, "payload_too_large")


# --- URLs and headers -------------------------------------------------------------------------------------------


async def test_a_nul_in_the_url_is_400(api: httpx.AsyncClient) -> None:
    for path in ("/charges/ch_%00", "/charges?chain=%00", "/charges?status=New&cursor=a%00", "/%00", "/chains%00"):
        problem(await api.get(path, headers=AS_PLATFORM), 400, "bad_request")


async def test_ids_nobody_gave_out_are_404(api: httpx.AsyncClient) -> None:
    for name in ("ch_", "0", "-1", "ch_" + "0" * 32, "x" * 5000, "%F0%9F%92%A9", "%FF%FE", "' OR 1=1 --", "null"):
        problem(await api.get(f"/charges/{name}", headers=AS_PLATFORM), 404, "charge_not_found")
        problem(await api.get(f"/admin/tenants/{name}", headers=AS_ADMIN), 404, "tenant_not_found")
        problem(await api.patch(f"/admin/chains/{name}", json={}, headers=AS_ADMIN), 404, "chain_not_found")
        problem(await api.delete(f"/admin/chains/{name}", headers=AS_ADMIN), 404, "chain_not_found")
        deliveries = "/admin/webhooks/deliveries"
        problem(await api.get(f"{deliveries}/{name}", headers=AS_ADMIN), 404, "delivery_not_found")


async def test_query_parameters_of_the_wrong_type_are_400_and_named(api: httpx.AsyncClient) -> None:
    for query in (
        "limit=0",
        "limit=201",
        "limit=ten",
        "limit=1e2",
        "limit=-1",
        "limit=99999999999999999999",
        "status=Paid",
        "status=new",
        "createdAfter=yesterday",
        "createdAfter=2026-01-01T00:00:00",
        "createdBefore=99999-01-01T00:00:00Z",
        "cursor=!!!",
        "cursor=%C3%A9",
        "cursor=AA",
        "cursor=" + "A" * 600,
    ):
        document = problem(await api.get(f"/charges?{query}", headers=AS_PLATFORM), 400)
        assert document["errors"][0]["pointer"] == f"#query/{query.partition('=')[0]}", query


async def test_instants_at_the_ends_of_time_are_no_error(api: httpx.AsyncClient) -> None:
    for instant in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"):
        for name in ("createdAfter", "createdBefore"):
            assert (await api.get("/charges", params={name: instant}, headers=AS_PLATFORM)).status_code == 200
    for instant in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"):
        problem(await api.get("/charges", params={"createdAfter": instant}, headers=AS_PLATFORM), 400)


async def test_an_idempotency_key_that_cannot_be_one_is_400(api: httpx.AsyncClient) -> None:
    await register(api, litecoin())
    for key in (b"", b"k" * 256, b"\xc3\xa9", b"tab\tbed"):
        headers = [(b"authorization", AS_PLATFORM["authorization"].encode()), (b"idempotency-key", key)]
        answer = await api.post("/address", json={"chain": "LTC"}, headers=headers)
        problem(answer, 400, "invalid_idempotency_key")
    assert await next_index(api) == 0
