"""Calls through the gateway over real HTTP: passed on as they are, and billed to the nanodollar."""

import json

import httpx
import pytest
from tests.api.support import acting_for
from tests.builders import AS_PLATFORM, SERVICE_KEY
from tests.gateway.gateway_world import CHARGE_OF_A_COMPLETION, CHAT, World, nanos
from tests.gateway.scripted_upstream import KEY, USAGE, ScriptedUpstream, answers, completion


async def test_an_answer_is_the_upstreams_very_bytes_with_what_it_cost(
    world: World, upstream: ScriptedUpstream
) -> None:
    body = b'{ "usage": ' + json.dumps(USAGE).encode() + b',\n "unheard_of": [1e2, "\\u00e9"] , "choices": []}'
    upstream.plays(answers(body, headers={"openai-processing-ms": "7"}))
    answer = await world.chat()

    assert (answer.status_code, answer.content) == (200, body)
    assert answer.headers["openai-processing-ms"] == "7"
    assert answer.headers["x-credits-charged"] == "0.065000000"
    assert answer.headers["x-credits-remaining"] == "99.935000000"
    assert await world.charged_nanos() == CHARGE_OF_A_COMPLETION
    assert await world.held_nanos() == 0


async def test_the_upstream_gets_the_very_bytes_the_caller_sent(world: World, upstream: ScriptedUpstream) -> None:
    body = b'{"messages" : [{"role":"user","content":"\\ud83d \\u0000"}],\n"unheard_of": 1234567890123456789012.5, '
    body += b'"model":"m"}'
    headers = {**world.as_acme, "content-type": "application/json; charset=utf-8", "openai-beta": "x=1"}
    answer = await world.api.post("/v1/chat/completions?api-version=3", content=body, headers=headers)

    assert answer.status_code == 200, answer.text
    (received,) = upstream.received
    assert (received.path, received.query, received.body) == ("/v1/chat/completions", "api-version=3", body)
    assert received.headers["openai-beta"] == "x=1"


async def test_a_members_own_model_deeper_inside_is_nobodys_business(world: World, upstream: ScriptedUpstream) -> None:
    body = b'{"tools": [{"model": "a"}], "n\\u0061me": {"model": "b"}, "messages": [], "model": "m"}'
    headers = {**world.as_acme, "content-type": "application/json"}
    answer = await world.api.post("/v1/chat/completions", content=body, headers=headers)

    assert answer.status_code == 200, answer.text
    assert upstream.received[0].body == body


async def test_no_key_goes_where_it_does_not_belong(world: World, upstream: ScriptedUpstream) -> None:
    echo = {"x-echo": f"Bearer {KEY}", "set-cookie": "upstream=1"}
    upstream.plays(answers(completion(), headers=echo))
    headers = {**world.as_acme, "x-api-key": world.key, "cookie": "session=1"}
    answer = await world.api.post("/v1/chat/completions", json=CHAT, headers=headers)

    (received,) = upstream.received
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert world.key not in str(received) and "session" not in str(received)
    assert KEY not in str(answer.headers) + answer.text and "set-cookie" not in answer.headers


async def test_the_record_says_what_the_ledger_took(world: World) -> None:
    answer = await world.chat()
    (record,) = await world.records()

    assert record["charge_nanos"] == nanos(answer.headers["x-credits-charged"]) == await world.charged_nanos()
    assert record["cost_nanos"] == 50_000_000
    assert (record["input_tokens"], record["output_tokens"], record["cost_source"]) == (10, 20, "usage")
    assert (record["tenant_id"], record["key_id"], record["capability"]) == ("acme", world.key_id, "chat")
    assert (record["model"], record["upstream_status"], record["outcome"]) == ("m", 200, "completed")
    assert record["request_id"] == answer.headers["x-request-id"]


async def test_every_call_under_one_request_id_is_charged(world: World) -> None:
    """A caller names its requests as it likes: a name used twice is no free call."""
    for _ in range(2):
        answer = await world.api.post(
            "/v1/chat/completions", json=CHAT, headers={**world.as_acme, "x-request-id": "same"}
        )
        assert answer.headers["x-request-id"] == "same"

    assert await world.charged_nanos() == 2 * CHARGE_OF_A_COMPLETION


async def test_the_upstreams_own_cost_goes_before_our_rates(world: World, upstream: ScriptedUpstream) -> None:
    upstream.plays(answers(completion(), headers={"x-openrouter-cost": "0.0000001"}))
    answer = await world.chat()

    assert answer.headers["x-credits-charged"] == "0.000000130"
    assert (await world.records())[0]["cost_source"] == "upstream"


async def test_an_answer_without_usage_is_charged_by_what_was_sent(world: World, upstream: ScriptedUpstream) -> None:
    upstream.plays(answers(completion(usage=None)))
    answer = await world.chat()
    (record,) = await world.records()

    assert record["cost_source"] == "estimate"
    assert 0 < record["output_tokens"] < 50
    assert nanos(answer.headers["x-credits-charged"]) == await world.charged_nanos() > 0


async def test_the_state_of_the_rate_limit_is_told(world: World) -> None:
    first, second = [await world.chat() for _ in range(2)]

    assert [each.headers["x-ratelimit-remaining"] for each in (first, second)] == ["59", "58"]
    assert first.headers["x-ratelimit-limit"] == "60"
    assert 0 < int(first.headers["x-ratelimit-reset"]) <= 60


async def test_a_call_over_the_limit_is_refused_by_us_and_never_reaches_the_upstream(
    world: World, upstream: ScriptedUpstream
) -> None:
    answers_ = [await world.chat() for _ in range(61)]

    assert [each.status_code for each in answers_] == [200] * 60 + [429]
    assert (
        answers_[-1].json()["error"] | {"type": "rate_limit_error", "code": "rate_limit_exceeded"}
        == answers_[-1].json()["error"]
    )
    assert len(upstream.received) == 60


async def test_a_tenant_without_credit_never_reaches_the_upstream(world: World, upstream: ScriptedUpstream) -> None:
    answer = await world.api.post("/v1/chat/completions", json=CHAT, headers=acting_for("poor"))

    assert answer.status_code == 402
    assert answer.json()["error"]["type"] == "billing_error"
    assert upstream.received == []


async def test_a_platform_service_is_billed_itself_and_may_name_for_whom(world: World) -> None:
    headers = {**AS_PLATFORM, "x-attribute-to": "acme"}
    answer = await world.api.post("/v1/chat/completions", json=CHAT, headers=headers)

    assert answer.status_code == 200, answer.text
    (record,) = await world.records()
    assert (record["tenant_id"], record["attributed_tenant_id"]) == ("platform", "acme")
    assert await world.charged_nanos() == 0


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/embeddings"])
async def test_the_other_llm_paths_are_passed_on_and_billed(
    world: World, upstream: ScriptedUpstream, path: str
) -> None:
    answer = await world.api.post(path, json={"model": "m", "input": "a", "prompt": "a"}, headers=world.as_acme)

    assert answer.status_code == 200, answer.text
    assert upstream.received[0].path == path
    assert nanos(answer.headers["x-credits-charged"]) == await world.charged_nanos() == CHARGE_OF_A_COMPLETION


async def test_images_are_charged_by_the_image(world: World, upstream: ScriptedUpstream) -> None:
    upstream.plays(answers({"created": 1, "data": [{"b64_json": "aGk="}, {"b64_json": "aGk="}]}))
    body = {"model": "m", "prompt": "a cat", "n": 2}
    answer = await world.api.post("/v1/images/generations", json=body, headers=world.as_acme)

    assert answer.headers["x-credits-charged"] == "0.026000000"
    (record,) = await world.records()
    assert (record["units"], record["unit_type"]) == (2, "image")


async def test_speech_is_passed_on_as_it_comes_and_charged_by_the_character(
    world: World, upstream: ScriptedUpstream
) -> None:
    sound = bytes(range(256)) * 4096
    upstream.plays(answers(sound, headers={"content-type": "audio/mpeg"}))
    body = {"model": "m", "input": "x" * 500, "voice": "alloy"}
    answer = await world.api.post("/v1/audio/speech", json=body, headers=world.as_acme)

    assert (answer.content, answer.headers["content-type"]) == (sound, "audio/mpeg")
    assert answer.headers["x-credits-charged"] == "0.006500000"
    assert await world.charged_nanos() == 6_500_000


async def test_a_transcriptions_form_goes_up_as_it_came(world: World, upstream: ScriptedUpstream) -> None:
    upstream.plays(answers({"text": "hello", "duration": 2.5}))
    form = httpx.Request(
        "POST", "http://x", data={"model": "m"}, files={"file": ("a.wav", bytes(2_000_000), "audio/wav")}
    )
    body, content_type = form.read(), form.headers["content-type"]
    answer = await world.api.post(
        "/v1/audio/transcriptions", content=body, headers={**world.as_acme, "content-type": content_type}
    )

    assert answer.json()["text"] == "hello"
    assert upstream.received[0].body == body
    assert upstream.received[0].headers["content-type"] == content_type
    assert answer.headers["x-credits-charged"] == "0.032500000"


async def test_models_are_those_that_an_upstream_lists_and_somebody_priced(
    world: World, upstream: ScriptedUpstream
) -> None:
    listed = await world.api.get("/v1/models", headers=world.as_acme)
    one = await world.api.get("/v1/models/m", headers=world.as_acme)

    assert listed.json() == {
        "object": "list",
        "data": [{"id": "m", "object": "model", "created": 0, "owned_by": "upstream"}],
    }
    assert one.json() == listed.json()["data"][0]
    other = await world.api.get("/v1/models/other/model", headers=world.as_acme)
    assert (other.status_code, other.json()["error"]["code"]) == (404, "model_not_found")
    assert (await world.api.get("/v1/models")).status_code == 401
    assert upstream.received[0].headers["authorization"] == f"Bearer {KEY}"


async def test_a_key_of_the_environment_is_no_secret_of_the_upstreams(world: World, upstream: ScriptedUpstream) -> None:
    await world.api.post("/v1/chat/completions", json=CHAT, headers=AS_PLATFORM)

    assert SERVICE_KEY not in str(upstream.received)
