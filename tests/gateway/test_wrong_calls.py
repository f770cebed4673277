"""Calls that are wrong in themselves: refused in OpenAI's shape, before they cost or reach anything."""

import json
from typing import Any

import httpx
import pytest
from tests.api.support import acting_for
from tests.gateway.gateway_world import CHAT, World
from tests.gateway.scripted_upstream import ScriptedUpstream
from tests.gateway.test_upstream_faults import costs_nothing, error_of

MIB = 1024 * 1024


@pytest.fixture(autouse=True)
async def nothing_comes_of_it(world: World, upstream: ScriptedUpstream) -> Any:
    yield
    assert [each for each in upstream.received if each.path != "/v1/models"] == []
    await costs_nothing(world)


async def post(world: World, body: bytes, path: str = "/v1/chat/completions", **headers: str) -> httpx.Response:
    sent = {**world.as_acme, "content-type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
    return await world.api.post(path, content=body, headers=sent)


async def test_a_body_that_is_no_json_object(world: World) -> None:
    for body in [
        b"",
        b"not json",
        b"[1]",
        b'"text"',
        b"null",
        b'{"model": "m"',
        b'{"model": NaN}',
        b"\xff",
        b"[" * 100_000,
        b'{"model":"m","x":' + b"[" * 70 + b"]" * 70 + b"}",
        b'{"model":"m","x":1e999}',
    ]:
        error = error_of(await post(world, body), 400)

        assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_json")


async def test_no_model_or_none_that_could_be_one(world: World) -> None:
    for model in [None, "", 5, ["m"], "m" * 257, "m\u0000", "m\n"]:
        error = error_of(await post(world, json.dumps(CHAT | {"model": model}).encode()), 400)

        assert error["param"] == "model"


async def test_a_model_that_is_named_twice_is_refused_for_an_upstream_may_read_the_other_one(world: World) -> None:
    for body in [
        b'{"model": "m", "messages": [], "model": "dear"}',
        b'{"mod\\u0065l": "dear", "messages": [{"model": "m"}], "model": "m"}',
    ]:
        assert error_of(await post(world, body), 400)["param"] == "model"
    part = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n%s\r\n'
    body = part % b"m" + part % b"dear" + b"--b--"
    form = "multipart/form-data; boundary=b"
    error_of(await post(world, body, "/v1/audio/transcriptions", content_type=form), 400)


async def test_a_model_without_a_price(world: World) -> None:
    error = error_of(await world.chat(model="nobody-has-heard-of-it"), 400)

    assert error["code"] == "model_not_priced"


async def test_stream_options_that_are_no_object(world: World) -> None:
    for options in [5, "yes", [1]]:
        assert error_of(await world.chat(stream=True, stream_options=options), 400)["param"] == "stream_options"


async def test_another_content_type(world: World) -> None:
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]:
        answer = await post(world, json.dumps(CHAT).encode(), content_type=content_type)

        assert error_of(answer, 415)["code"] == "unsupported_media_type"


async def test_a_compressed_body(world: World) -> None:
    error_of(await post(world, json.dumps(CHAT).encode(), content_encoding="gzip"), 415)


async def test_a_form_that_is_none_or_names_no_model(world: World) -> None:
    for body in [b"", b"--b\r\nnot a form", b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b--']:
        path, form = "/v1/audio/transcriptions", "multipart/form-data; boundary=b"

        error_of(await post(world, body, path, content_type=form), 400)


async def test_a_declared_body_over_the_limit_is_refused_unread(world: World) -> None:
    error = error_of(await post(world, b'{"x":"' + bytes(20 * MIB)), 413)

    assert error["code"] == "payload_too_large"


async def test_a_chunked_body_is_read_no_further_than_the_limit(world: World) -> None:
    async def endless() -> Any:
        for _ in range(200):
            yield bytes(MIB // 4)

    headers = {**world.as_acme, "content-type": "application/json"}
    answer = await world.api.post("/v1/chat/completions", content=endless(), headers=headers)

    error_of(answer, 413)


async def test_a_form_has_a_limit_of_its_own(world: World) -> None:
    path, form = "/v1/audio/transcriptions", "multipart/form-data; boundary=b"

    error_of(await post(world, bytes(24 * MIB), path, content_type=form), 400)
    error_of(await post(world, bytes(26 * MIB), path, content_type=form), 413)


async def test_an_unknown_path(world: World) -> None:
    for path in ["/v1/nothing", "/v1/", "/v1/chat", "/v1/audio/translations", "/v1/chat/completions/", "/v1/a%0Ab"]:
        assert error_of(await post(world, b"{}", path), 404)["code"] == "unknown_url"


async def test_a_method_that_a_path_has_not(world: World) -> None:
    for method, path, allowed in [("GET", "/v1/chat/completions", "POST"), ("POST", "/v1/models", "GET, HEAD")]:
        answer = await world.api.request(method, path, headers=world.as_acme)

        assert error_of(answer, 405)["code"] == "method_not_allowed"
        assert answer.headers["allow"] == allowed


async def test_a_wrong_key_is_told_before_a_wrong_body(world: World) -> None:
    for headers, code in [
        ({}, "missing_api_key"),
        ({"authorization": "Basic x"}, "invalid_auth_format"),
        ({"authorization": "Bearer ks_no"}, "invalid_api_key"),
    ]:
        answer = await world.api.post("/v1/chat/completions", content=b"x" * (11 * MIB), headers=headers)

        assert error_of(answer, 401) | {"type": "authentication_error", "code": code} == answer.json()["error"]


async def test_another_tenant_or_one_that_is_not_there_to_attribute_to(world: World) -> None:
    assert error_of(await post(world, b"{}", x_tenant_id="other"), 403)
    assert error_of(await post(world, b"{}", x_attribute_to="acme"), 403)
    nobody = await world.api.post(
        "/v1/chat/completions", json=CHAT, headers=acting_for("platform", **{"x-attribute-to": "nobody"})
    )
    assert error_of(nobody, 400)


async def test_every_answer_has_a_request_id(world: World) -> None:
    for answer in (
        await post(world, b""),
        await post(world, b"{}", "/v1/nothing"),
        await world.api.get("/v1/models"),
    ):
        assert answer.headers["x-request-id"].startswith("req_")
