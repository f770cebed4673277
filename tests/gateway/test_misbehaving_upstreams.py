"""Upstreams that answer 200 and say something else, nothing or too much: what it costs, and what the caller gets."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from tests.gateway.gateway_world import CHARGE_OF_A_COMPLETION, World, nanos
from tests.gateway.scripted_upstream import USAGE_CHUNK, ScriptedUpstream, Stream, answers, chunk, completion
from tests.gateway.test_streamed_calls import documents, streamed
from tests.gateway.test_upstream_faults import costs_nothing, error_of


async def test_an_error_within_a_200_is_an_error_of_the_upstream_and_costs_nothing(
    world: World, upstream: ScriptedUpstream
) -> None:
    upstream.plays(answers({"error": {"message": "Provider returned error", "code": "their_code"}}))
    error = error_of(await world.chat(), 502)

    assert (error["message"], error["code"]) == ("Provider returned error", "their_code")
    await costs_nothing(world)


async def test_an_error_within_a_200_that_states_its_cost_is_charged(world: World, upstream: ScriptedUpstream) -> None:
    document = completion(error={"message": "stopped by a filter"})
    upstream.plays(answers(document))
    answer = await world.chat()

    assert answer.json() == document
    assert await world.charged_nanos() == CHARGE_OF_A_COMPLETION


async def test_json_that_is_no_object_is_no_answer(world: World, upstream: ScriptedUpstream) -> None:
    for body in [b"null", b"[]", b'"text"', b"5"]:
        upstream.plays(answers(body))

        assert error_of(await world.chat(), 502)["code"] == "upstream_malformed_answer"
    await costs_nothing(world)


async def test_a_stream_of_nothing_but_an_error_costs_nothing(world: World, upstream: ScriptedUpstream) -> None:
    error = {"error": {"message": "Overloaded", "code": 502}}
    upstream.plays(Stream(b": OPENROUTER PROCESSING\n\n", error))
    answer = await streamed(world)

    assert documents(answer.content) == [error]
    await costs_nothing(world)


async def test_an_error_after_some_text_is_passed_on_and_the_text_is_charged(
    world: World, upstream: ScriptedUpstream
) -> None:
    upstream.plays(Stream(chunk("Hello"), {"error": {"message": "Overloaded"}}))
    answer = await streamed(world)

    assert len(documents(answer.content)) == 2
    (record,) = await world.records()
    assert record["charge_nanos"] == await world.charged_nanos() > 0


async def test_a_stream_that_said_done_is_complete_however_its_connection_ends(
    world: World, upstream: ScriptedUpstream
) -> None:
    upstream.plays(Stream(chunk("Hello"), USAGE_CHUNK, b"data: [DONE]\n\n", cut=True))
    answer = await streamed(world)

    assert documents(answer.content) == [chunk("Hello")]
    assert answer.content.endswith(b"data: [DONE]\n\n")
    (record,) = await world.records()
    assert (record["outcome"], record["charge_nanos"]) == ("completed", CHARGE_OF_A_COMPLETION)


async def test_a_stream_that_said_done_is_not_waited_for(world: World, upstream: ScriptedUpstream) -> None:
    stream = Stream(chunk("Hello"), USAGE_CHUNK, b"data: [DONE]\n\n", held_before=3)
    upstream.plays(stream)
    async with asyncio.timeout(20):
        answer = await streamed(world)

    assert answer.content.endswith(b"data: [DONE]\n\n")
    (record,) = await world.records()
    assert record["outcome"] == "completed"


async def test_a_stream_without_done_is_complete_when_it_ends(world: World, upstream: ScriptedUpstream) -> None:
    body = f"data: {json.dumps(chunk('Hello'))}\n\ndata: {json.dumps(USAGE_CHUNK)}".encode()
    upstream.plays(answers(body, headers={"content-type": "text/event-stream"}))
    answer = await streamed(world)

    assert documents(answer.content) == [chunk("Hello")]
    assert b"x-credits-charged: 0.065000000" in answer.content
    assert await world.charged_nanos() == CHARGE_OF_A_COMPLETION


@pytest.mark.parametrize(
    "document",
    [
        {"usage": {"prompt_tokens": -5, "completion_tokens": 1}},
        {"usage": {"prompt_tokens": 1e300, "completion_tokens": 10**30}},
        {"usage": {"prompt_tokens": "10", "completion_tokens": [1]}},
        {"usage": {"prompt_tokens": True, "cost": -1}},
        {"usage": {"cost": "NaN"}},
        {"usage": {"cost": {"total": 5}}},
        {"usage": {"prompt_tokens_details": [1], "prompt_tokens": 1.5}},
        {"usage": 5, "choices": {"a": 1}},
        {"choices": [None, 5, {"message": [], "delta": 5, "text": {"a": 1}}], "usage": []},
        {"choices": [{"message": {"tool_calls": [5, {"function": 5}], "content": [{"text": "a"}]}}]},
        {"service_tier": {"a": 1}, "id": 5},
    ],
)
async def test_whatever_shape_an_answer_has_it_is_passed_on_and_charged_once(
    world: World, upstream: ScriptedUpstream, document: dict[str, Any]
) -> None:
    upstream.plays(answers(document), Stream(chunk("Hello"), document))
    plain, stream = await world.chat(), await streamed(world)

    assert plain.json() == document
    assert document in documents(stream.content)
    records = await world.records()
    assert [record["streamed"] for record in records] == [False, True]
    assert nanos(plain.headers["x-credits-charged"]) == records[0]["charge_nanos"]
    assert await world.charged_nanos() == sum(record["charge_nanos"] for record in records)


async def test_an_error_whose_body_stops_in_the_middle_keeps_its_status(
    world: World, upstream: ScriptedUpstream
) -> None:
    async def half_an_error(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=418, headers={"content-length": "1000"})
        await response.prepare(request)
        await response.write(b'{"error": {"mess')
        assert request.transport is not None
        request.transport.close()
        return response

    upstream.plays(half_an_error)
    error_of(await world.chat(), 418)
    await costs_nothing(world)


async def test_sound_without_a_byte_costs_nothing(world: World, upstream: ScriptedUpstream) -> None:
    upstream.plays(answers(b"", headers={"content-type": "audio/mpeg"}))
    body = {"model": "m", "input": "x" * 500, "voice": "alloy"}
    answer = await world.api.post("/v1/audio/speech", json=body, headers=world.as_acme)

    assert error_of(answer, 502)["code"] == "upstream_malformed_answer"
    await costs_nothing(world)
