"""Callers that leave, at each stage of a call; and a database that says nothing when it ends."""

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.api.proxy import Proxy
from tests.gateway.gateway_world import CHARGE_OF_A_COMPLETION, CHAT, World, gateway
from tests.gateway.scripted_upstream import USAGE_CHUNK, ScriptedUpstream, Stream, answers, chunk, completion
from tests.gateway.test_upstream_faults import costs_nothing

from keyserver.kit.db import Database


async def connected(world: World, body: Any, *, declared: int | None = None) -> asyncio.StreamWriter:
    """A connection on which a call was sent, whose answer nobody reads. `declared`: the length that it claims."""
    content = json.dumps(body).encode()
    host, port = world.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {world.key}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {declared or len(content)}\r\n\r\n"
    writer.write(head.encode() + content)
    await writer.drain()
    return writer


async def test_a_caller_that_leaves_while_it_sends_its_body_costs_nothing(
    world: World, upstream: ScriptedUpstream
) -> None:
    writer = await connected(world, CHAT, declared=10_000)
    writer.transport.abort()
    await world.chat()
    (record,) = await world.is_billed()

    assert record["outcome"] == "completed"
    assert len(upstream.received) == 1


async def test_a_caller_that_leaves_a_plain_call_is_charged_what_it_came_to(
    world: World, upstream: ScriptedUpstream
) -> None:
    go_on = asyncio.Event()

    async def slow(request: Any) -> Any:
        await go_on.wait()
        return await answers(completion())(request)

    upstream.plays(slow)
    writer = await connected(world, CHAT)
    await upstream.is_asked()
    writer.transport.abort()
    go_on.set()
    (record,) = await world.is_billed()

    assert (record["charge_nanos"], record["cost_source"]) == (CHARGE_OF_A_COMPLETION, "usage")


async def test_a_caller_that_leaves_a_stream_before_its_first_event_is_charged(
    world: World, upstream: ScriptedUpstream
) -> None:
    stream = Stream(chunk("one"), USAGE_CHUNK, held_before=0)
    upstream.plays(stream)
    writer = await connected(world, CHAT | {"stream": True})
    await upstream.is_asked()
    writer.transport.abort()
    (record,) = await world.is_billed()

    assert (record["outcome"], record["cost_source"]) == ("client_gone", "estimate")
    assert await world.charged_nanos() == record["charge_nanos"] > 0


async def test_a_caller_that_leaves_a_call_that_fails_is_not_charged(world: World, upstream: ScriptedUpstream) -> None:
    left = asyncio.Event()

    async def failing(request: Any) -> Any:
        await left.wait()
        return await answers({"error": {"message": "no"}}, status=500)(request)

    upstream.plays(failing, answers(completion()))
    writer = await connected(world, CHAT)
    await upstream.is_asked()
    writer.transport.abort()
    left.set()
    async with asyncio.timeout(30):
        while await world.held_nanos():  # noqa: ASYNC110 - the database tells no event
            await asyncio.sleep(0.02)
    await costs_nothing(world)


async def test_a_database_that_says_nothing_delays_an_answer_by_seconds_and_loses_no_charge(
    upstream: ScriptedUpstream, database: Database, database_url: str, tmp_path: Path
) -> None:
    async with Proxy(database_url) as proxy, gateway(upstream, database, proxy.url, tmp_path) as world:

        async def silencing(request: Any) -> Any:
            proxy.silence()
            return await answers(completion())(request)

        upstream.plays(silencing)
        async with asyncio.timeout(30):
            answer = await world.chat()
        assert (answer.status_code, answer.headers["x-credits-charged"]) == (200, "0.065000000")
        assert "x-credits-remaining" not in answer.headers
        await proxy.mend()
        await world.is_billed()
        assert await world.charged_nanos() == CHARGE_OF_A_COMPLETION
