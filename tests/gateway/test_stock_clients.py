"""The `openai` SDK, unchanged, through the gateway, in front of an upstream that is not ours either (aimock)."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.gateway.gateway_world import World, gateway, nanos
from tests.nodes.aimock import Aimock

from keyserver.kit.db import Database

pytestmark = pytest.mark.node
SOUND = b"ID3" + bytes(range(200))
TOOL: Any = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


def _on(what: str, response: dict[str, Any], *, by: str = "userMessage", **fixture: Any) -> dict[str, Any]:
    return {"match": {by: what}, "response": response, **fixture}


FIXTURES = [
    _on("Say hello", {"content": "Hello, this is a longer answer."}),
    _on("weather", {"toolCalls": [{"name": "get_weather", "arguments": {"city": "Rome"}}]}),
    _on("fail", {"error": {"message": "Boom", "type": "server_error"}, "status": 500}),
    _on("slow down", {"error": {"message": "Slow", "type": "rate_limit_error"}, "status": 429}),
    _on("garble", {"content": "x"}, chaos={"malformedRate": 1.0}),
    _on("cut", {"content": "This will be cut short"}, truncateAfterChunks=3, latency=100),
    _on("wait", {"content": "At last"}, latency=500),
    _on("embed me", {"embedding": [0.25, -0.5]}, by="inputText"),
    _on("image", {"image": {"url": "https://example.com/cat.png"}}, by="endpoint"),
    _on("speech", {"audio": base64.b64encode(SOUND).decode()}, by="endpoint"),
    _on("transcription", {"transcription": {"text": "Hello world"}}, by="endpoint"),
]


@pytest.fixture
async def aimock_world(database: Database, database_url: str, tmp_path: Path) -> AsyncIterator[World]:
    async with (
        Aimock(tmp_path, FIXTURES) as upstream,
        gateway(None, database, database_url, tmp_path, upstream_url=upstream.url) as world,
    ):
        yield world


@pytest.fixture
async def client(aimock_world: World) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{aimock_world.url}/v1", api_key=aimock_world.key, max_retries=0) as client:
        yield client


def says(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


async def test_a_plain_chat(aimock_world: World, client: openai.AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(model="m", messages=says("Say hello"))
    completion = raw.parse()

    assert completion.choices[0].message.content == "Hello, this is a longer answer."
    assert completion.usage is not None
    (record,) = await aimock_world.records()
    counted = (completion.usage.prompt_tokens, completion.usage.completion_tokens)
    assert (record["input_tokens"], record["output_tokens"]) == counted
    assert nanos(raw.headers["x-credits-charged"]) == await aimock_world.charged_nanos() > 0


async def test_a_streamed_chat(aimock_world: World, client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="m", messages=says("Say hello"), stream=True)
    chunks = [chunk async for chunk in stream]

    assert "".join(each.choices[0].delta.content or "" for each in chunks) == "Hello, this is a longer answer."
    assert all(each.usage is None for each in chunks)
    (record,) = await aimock_world.records()
    assert (record["cost_source"], record["streamed"]) == ("usage", True)
    assert record["charge_nanos"] == await aimock_world.charged_nanos() > 0


async def test_a_stream_with_the_usage_that_was_asked_for(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="m", messages=says("Say hello"), stream=True, stream_options={"include_usage": True}
    )
    *_, last = [chunk async for chunk in stream]

    assert last.choices == [] and last.usage is not None


@pytest.mark.parametrize("streamed", [False, True])
async def test_tools(client: openai.AsyncOpenAI, streamed: bool) -> None:
    messages = says("weather in Rome?")
    if streamed:
        async with client.chat.completions.stream(model="m", messages=messages, tools=[TOOL]) as stream:
            completion: Any = await stream.get_final_completion()
    else:
        completion = await client.chat.completions.create(model="m", messages=messages, tools=[TOOL])

    (call,) = completion.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Rome"})


async def test_embeddings_images_speech_and_transcriptions(aimock_world: World, client: openai.AsyncOpenAI) -> None:
    embedding = await client.embeddings.create(model="m", input="embed me", encoding_format="float")
    image = await client.images.generate(model="m", prompt="a cat")
    speech = await client.audio.speech.create(model="m", input="Hello", voice="alloy")
    transcription = await client.audio.transcriptions.create(model="m", file=("a.mp3", SOUND))

    assert embedding.data[0].embedding == [0.25, -0.5]
    assert image.data is not None and image.data[0].url == "https://example.com/cat.png"
    assert speech.content == SOUND
    assert transcription.text == "Hello world"
    records = await aimock_world.records()
    assert {each["capability"] for each in records} >= {"images", "speech", "transcriptions"}
    assert await aimock_world.charged_nanos() == sum(each["charge_nanos"] for each in records)
    assert await aimock_world.held_nanos() == 0


async def test_models_can_be_listed_and_looked_up(client: openai.AsyncOpenAI) -> None:
    listed = [model.id async for model in client.models.list()]

    assert listed == sorted(listed) and "gpt-4o" in listed
    assert (await client.models.retrieve("gpt-4o")).id == "gpt-4o"


async def test_faults_are_the_sdks_own_errors_and_cost_nothing(aimock_world: World, client: openai.AsyncOpenAI) -> None:
    for what, error in (
        ("fail", openai.InternalServerError),
        ("slow down", openai.RateLimitError),
        ("garble", openai.InternalServerError),
    ):
        with pytest.raises(error) as raised:
            await client.chat.completions.create(model="m", messages=says(what))

        assert (raised.value.code == "upstream_rate_limited") == (what == "slow down")
    assert (await aimock_world.charged_nanos(), await aimock_world.held_nanos()) == (0, 0)


async def test_a_cut_stream_is_an_error_of_the_sdk_and_what_came_is_charged(
    aimock_world: World, client: openai.AsyncOpenAI
) -> None:
    stream = await client.chat.completions.create(model="m", messages=says("cut"), stream=True)
    with pytest.raises(openai.APIError, match="stopped in the middle"):
        async for _ in stream:
            pass

    (record,) = await aimock_world.records()
    assert (record["outcome"], record["charge_nanos"]) == ("upstream_cut", await aimock_world.charged_nanos())


async def test_a_slow_first_byte_is_waited_for(client: openai.AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(model="m", messages=says("wait"))

    assert completion.choices[0].message.content == "At last"


async def test_a_wrong_key_and_no_credit_are_the_sdks_own_errors(aimock_world: World) -> None:
    stranger = openai.AsyncOpenAI(base_url=f"{aimock_world.url}/v1", api_key="ks_unknown", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        await stranger.chat.completions.create(model="m", messages=says("Say hello"))
    await stranger.close()


def _blocking(url: str, key: str) -> tuple[str, str]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
        plain = client.chat.completions.create(model="m", messages=says("Say hello")).choices[0].message.content
        stream = client.chat.completions.create(model="m", messages=says("Say hello"), stream=True)
        return plain or "", "".join(each.choices[0].delta.content or "" for each in stream)


async def test_the_blocking_client_as_well(aimock_world: World) -> None:
    plain, streamed = await asyncio.to_thread(_blocking, aimock_world.url, aimock_world.key)

    assert plain == streamed == "Hello, this is a longer answer."
