"""Streams through the gateway: passed on event by event, charged however they end."""

import asyncio
import json
import re
from typing import Any

import httpx
from tests.builders import AS_ADMIN
from tests.gateway.gateway_world import CHARGE_OF_A_COMPLETION, CHAT, World, nanos
from tests.gateway.scripted_upstream import USAGE_CHUNK, ScriptedUpstream, Stream, chunk

_COST = re.compile(rb"^: x-credits-charged: ([\d.]+), x-credits-remaining: ([\d.]+)$", re.MULTILINE)


async def streamed(world: World, **members: Any) -> httpx.Response:
    return await world.chat(stream=True, **members)


def documents(body: bytes) -> list[Any]:
    data = [line.removeprefix(b"data: ") for line in body.split(b"\n") if line.startswith(b"data: ")]
    return [json.loads(each) for each in data if each != b"[DONE]"]


async def test_events_are_passed_on_and_the_cost_comes_before_done(world: World, upstream: ScriptedUpstream) -> None:
    upstream.plays(Stream(chunk("Hel"), chunk("lo"), USAGE_CHUNK))
    answer = await streamed(world)

    assert answer.headers["content-type"] == "text/event-stream"
    assert documents(answer.content) == [chunk("Hel"), chunk("lo")]
    *_, done, end, rest = answer.content.split(b"\n")
    assert (done, end, rest) == (b"data: [DONE]", b"", b"")
    found = _COST.search(answer.content)
    assert found is not None
    assert nanos(found[1].decode()) == await world.charged_nanos() == CHARGE_OF_A_COMPLETION
    assert found[2] == b"99.935000000"
    (record,) = await world.records()
    assert (record["streamed"], record["outcome"], record["cost_source"]) == (True, "completed", "usage")
    assert record["first_byte_ms"] is not None
    assert await world.held_nanos() == 0


async def test_usage_is_asked_for_on_the_way_up_without_touching_another_byte(
    world: World, upstream: ScriptedUpstream
) -> None:
    upstream.plays(Stream(chunk("a"), USAGE_CHUNK))
    body = b' {"model": "m",\t"stream":true, "n_unknown": 1.50, "messages":[]}'
    headers = {**world.as_acme, "content-type": "application/json"}
    await world.api.post("/v1/chat/completions", content=body, headers=headers)

    (received,) = upstream.received
    assert received.document["stream_options"] == {"include_usage": True}
    assert received.body.endswith(body.lstrip()[1:])


async def test_a_caller_that_asks_for_usage_gets_it(world: World, upstream: ScriptedUpstream) -> None:
    upstream.plays(Stream(chunk("a"), USAGE_CHUNK))
    answer = await streamed(world, stream_options={"include_usage": True})

    assert documents(answer.content) == [chunk("a"), USAGE_CHUNK]


async def test_a_callers_other_stream_options_are_kept(world: World, upstream: ScriptedUpstream) -> None:
    upstream.plays(Stream(chunk("a"), USAGE_CHUNK))
    answer = await streamed(world, stream_options={"include_usage": False, "include_obfuscation": False})

    sent = upstream.received[0].document["stream_options"]
    assert sent == {"include_usage": True, "include_obfuscation": False}
    assert documents(answer.content) == [chunk("a")]


async def test_the_first_event_does_not_wait_for_the_second(world: World, upstream: ScriptedUpstream) -> None:
    stream = Stream(chunk("first"), chunk("second"), USAGE_CHUNK, held_before=1)
    upstream.plays(stream)
    request = world.api.build_request(
        "POST", "/v1/chat/completions", json=CHAT | {"stream": True}, headers=world.as_acme
    )
    answer = await world.api.send(request, stream=True)
    pieces = answer.aiter_bytes()

    assert b"first" in await anext(pieces)
    stream.go_on.set()
    assert b"[DONE]" in b"".join([piece async for piece in pieces])


async def leave_after_the_first_event(world: World) -> None:
    async with httpx.AsyncClient(base_url=world.url, trust_env=False, timeout=60.0) as client:
        body = CHAT | {"stream": True}
        async with client.stream("POST", "/v1/chat/completions", json=body, headers=world.as_acme) as answer:
            assert b"one" in await anext(answer.aiter_bytes())


async def test_a_caller_that_leaves_is_charged_what_the_upstream_says_soon_after(
    world: World, upstream: ScriptedUpstream
) -> None:
    stream = Stream(chunk("one"), chunk("two"), USAGE_CHUNK, held_before=1)
    upstream.plays(stream)
    await leave_after_the_first_event(world)
    stream.go_on.set()
    (record,) = await world.is_billed()

    assert (record["outcome"], record["cost_source"]) == ("client_gone", "usage")
    assert await world.charged_nanos() == CHARGE_OF_A_COMPLETION
    assert await world.held_nanos() == 0


async def test_a_caller_that_leaves_a_long_stream_is_charged_for_what_came_and_the_upstream_is_left(
    world: World, upstream: ScriptedUpstream
) -> None:
    stream = Stream(chunk("one"), chunk("two"), USAGE_CHUNK, held_before=1)
    upstream.plays(stream)
    await leave_after_the_first_event(world)
    (record,) = await world.is_billed()

    assert (record["outcome"], record["cost_source"]) == ("client_gone", "estimate")
    assert 0 < await world.charged_nanos() < CHARGE_OF_A_COMPLETION
    async with asyncio.timeout(30):
        await stream.left.wait()


async def test_an_upstream_that_dies_in_the_middle_is_an_error_event_and_what_came_is_charged(
    world: World, upstream: ScriptedUpstream
) -> None:
    upstream.plays(Stream(chunk("Hello"), chunk(" wor"), b'data: {"half', cut=True))
    answer = await streamed(world)

    *came, last = documents(answer.content)
    assert came == [chunk("Hello"), chunk(" wor")]
    assert last["error"]["code"] == "upstream_cut"
    assert b"[DONE]" not in answer.content and b"half" not in answer.content
    found = _COST.search(answer.content)
    assert found is not None and nanos(found[1].decode()) == await world.charged_nanos() > 0
    (record,) = await world.records()
    assert (record["outcome"], record["cost_source"]) == ("upstream_cut", "estimate")


async def test_an_upstream_that_dies_before_its_first_event_costs_nothing(
    world: World, upstream: ScriptedUpstream
) -> None:
    upstream.plays(Stream(cut=True))
    answer = await streamed(world)

    assert documents(answer.content)[-1]["error"]["code"] == "upstream_cut"
    assert (await world.charged_nanos(), await world.held_nanos()) == (0, 0)


async def test_a_key_that_is_revoked_during_a_stream_lets_it_finish_and_opens_no_other(
    world: World, upstream: ScriptedUpstream
) -> None:
    stream = Stream(chunk("first"), chunk("second"), USAGE_CHUNK, held_before=1)
    upstream.plays(stream)
    running = asyncio.create_task(streamed(world))
    await upstream.is_asked()
    assert (await world.api.delete(f"/admin/keys/{world.key_id}", headers=AS_ADMIN)).status_code == 204
    stream.go_on.set()
    answer = await running

    assert b"second" in answer.content and b"[DONE]" in answer.content
    assert await world.charged_nanos() == CHARGE_OF_A_COMPLETION
    refused = await world.chat()
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_many_streams_at_once_are_all_complete_and_all_billed(world: World, upstream: ScriptedUpstream) -> None:
    upstream.plays(Stream(*(chunk(str(number)) for number in range(20)), USAGE_CHUNK))
    answers = await asyncio.gather(*(streamed(world) for _ in range(50)))

    assert all(len(documents(each.content)) == 20 and b"[DONE]" in each.content for each in answers)
    assert len(await world.records()) == 50
    assert await world.charged_nanos() == 50 * CHARGE_OF_A_COMPLETION
    assert await world.held_nanos() == 0
