"""`metadata` is the caller's own: any JSON object of up to 16 KiB, returned as given."""

import json
from typing import Any

import httpx
from tests.api.support import count, problem
from tests.builders import AS_PLATFORM, charge, litecoin, register

from keyserver.kit.db import Database

LIMIT = 16 * 1024


async def stored(api: httpx.AsyncClient, metadata: Any) -> str:
    """What GET gives back, as the text that stands in its JSON."""
    made = await charge(api, metadata=metadata)
    answer = await api.get(f"/charges/{made['chargeId']}", headers=AS_PLATFORM)
    assert answer.status_code == 200, answer.text
    return json.dumps(answer.json()["metadata"])


async def test_metadata_comes_back_as_it_was_given(api: httpx.AsyncClient) -> None:
    await register(api, litecoin())
    for metadata in (
        {},
        {"order": "A-1", "b": 1, "a": [1, 2.5, None, True, {"deep": []}]},
        {"z": 1, "a": 2, "m": 3},
        {"": "empty name", " spaced ": " value "},
        {"text": 'quotes " and \\ and \n and \u2028', "emoji": "💸", "rtl": "שלום"},
        {"floats": [0.1, 1e-7, 1.7976931348623157e308, 5e-324, -0.0, 1.0, 123456789.123456789]},
        {"integers": [2**53 + 1, 2**63, -(2**70), 10**40]},
        {"__proto__": 1, "metadata_": 2, "self": 3},
    ):
        assert await stored(api, metadata) == json.dumps(metadata)
    assert await stored(api, None) == "null"


async def test_metadata_is_kept_up_to_16_kib_of_utf_8(api: httpx.AsyncClient) -> None:
    await register(api, litecoin())
    frame = len('{"x":""}')
    assert len(await stored(api, {"x": "y" * (LIMIT - frame)})) > LIMIT
    for letters, fits in (("é" * ((LIMIT - frame) // 2), True), ("é" * (LIMIT // 2), False)):
        body = {"chain": "LTC", "amountUsd": 5, "metadata": {"x": letters}}
        answer = await api.post("/charges", json=body, headers=AS_PLATFORM)
        assert answer.status_code == (201 if fits else 400)
    for metadata in ({"x": "y" * (LIMIT - frame + 1)}, {str(number): number for number in range(5000)}):
        answer = await api.post(
            "/charges", json={"chain": "LTC", "amountUsd": 5, "metadata": metadata}, headers=AS_PLATFORM
        )
        assert problem(answer, 400, "invalid_metadata")["errors"][0]["pointer"] == "/metadata"


async def test_metadata_as_deep_as_a_body_may_be_is_returned_alone_and_in_lists(api: httpx.AsyncClient) -> None:
    await register(api, litecoin())
    deep: Any = 1
    for _ in range(63):
        deep = {"d": deep}
    assert await stored(api, deep) == json.dumps(deep)
    listed = await api.get("/charges", headers=AS_PLATFORM)
    assert listed.json()["charges"][0]["metadata"] == deep
    answer = await api.post(
        "/charges", json={"chain": "LTC", "amountUsd": 5, "metadata": {"d": deep}}, headers=AS_PLATFORM
    )
    problem(answer, 400, "malformed_json")


async def test_metadata_that_postgresql_could_not_keep_is_400(api: httpx.AsyncClient, database: Database) -> None:
    await register(api, litecoin())
    for written in ('{"x": "\\u0000"}', '{"\\u0000": 1}', '{"x": "\\ud83d"}', '{"x": ["\\udcaa"]}', '{"x": 1e999}'):
        body = f'{{"chain": "LTC", "amountUsd": 5, "metadata": {written}}}'
        answer = await api.post("/charges", content=body, headers={**AS_PLATFORM, "content-type": "application/json"})
        problem(answer, 400, "malformed_json")
    assert await stored(api, {"x": "a real pair: \U0001f4b8"}) == json.dumps({"x": "a real pair: \U0001f4b8"})
    assert await count(database, "charges") == 1
