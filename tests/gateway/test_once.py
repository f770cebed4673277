"""`Idempotency-Key` on `/v1`: a plain call that is sent again is answered again, and charged once."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from tests.api.proxy import Proxy
from tests.api.support import a_key, a_tenant, acting_for
from tests.gateway.gateway_world import CHARGE_OF_A_COMPLETION, CHAT, World, gateway
from tests.gateway.scripted_upstream import (
    USAGE_CHUNK,
    ScriptedUpstream,
    Stream,
    answers,
    chunk,
    completion,
    hang_up,
    silence,
)
from tests.gateway.test_outages import files
from tests.gateway.test_upstream_faults import error_of

from keyserver.kit.db import Database

SPEECH = {"model": "m", "input": "x" * 500, "voice": "alloy"}


async def send(
    world: World, body: Any = CHAT, *, key: str = "order-7", path: str = "chat/completions"
) -> httpx.Response:
    return await world.api.post(f"/v1/{path}", json=body, headers={**world.as_acme, "idempotency-key": key})


def is_the_same(again: httpx.Response, first: httpx.Response) -> None:
    assert (again.status_code, again.content) == (first.status_code, first.content)
    for name in ("content-type", "x-credits-charged", "openai-processing-ms"):
        assert again.headers.get(name) == first.headers.get(name)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"


async def test_a_call_sent_again_is_answered_again_and_charged_once(world: World, upstream: ScriptedUpstream) -> None:
    upstream.plays(answers(completion(), headers={"openai-processing-ms": "7"}), answers({"other": 1}))
    first = await send(world)
    again = await send(world, dict(reversed(CHAT.items())))

    is_the_same(again, first)
    assert len(upstream.received) == 1
    assert await world.charged_nanos() == CHARGE_OF_A_COMPLETION
    assert len(await world.records()) == 1


async def test_sound_and_forms_are_answered_again_as_well(world: World, upstream: ScriptedUpstream) -> None:
    upstream.plays(answers(b"ID3" + bytes(range(256)) + b"\n", headers={"content-type": "audio/mpeg"}))
    first, again = [await send(world, SPEECH, key="sound", path="audio/speech") for _ in range(2)]
    is_the_same(again, first)
    upstream.plays(answers(b"hello", headers={"content-type": "text/plain"}))

    async def transcribe(sound: bytes) -> httpx.Response:
        headers = {**world.as_acme, "idempotency-key": "form"}  # httpx draws another boundary each time
        files = {"file": ("a.mp3", sound)}
        return await world.api.post("/v1/audio/transcriptions", data={"model": "m"}, files=files, headers=headers)

    first, again, other = [await transcribe(sound) for sound in (b"one", b"one", b"two")]
    is_the_same(again, first)
    assert error_of(other, 422)["code"] == "idempotency_key_reused"
    assert len(await world.records()) == 2


async def test_another_body_or_path_under_one_key_is_422(world: World, upstream: ScriptedUpstream) -> None:
    await send(world)

    assert error_of(await send(world, CHAT | {"max_tokens": 51}), 422)["code"] == "idempotency_key_reused"
    assert error_of(await send(world, CHAT, path="completions"), 422)["code"] == "idempotency_key_reused"
    assert len(upstream.received) == 1


async def test_a_twin_of_a_running_call_is_409(world: World, upstream: ScriptedUpstream) -> None:
    upstream.plays(silence)
    running = asyncio.create_task(send(world))
    await upstream.is_asked()

    assert error_of(await send(world), 409)["code"] == "request_in_progress"
    assert len(upstream.received) == 1
    running.cancel()
    await upstream.stop()
    await asyncio.gather(running, return_exceptions=True)


async def test_many_twins_at_once_are_one_call(world: World, upstream: ScriptedUpstream) -> None:
    statuses = [each.status_code for each in await asyncio.gather(*(send(world) for _ in range(8)))]

    assert set(statuses) <= {200, 409} and 200 in statuses
    assert len(upstream.received) == 1
    assert await world.charged_nanos() == CHARGE_OF_A_COMPLETION


async def test_what_failed_or_was_refused_is_judged_anew(world: World, upstream: ScriptedUpstream) -> None:
    upstream.plays(
        answers({"error": {"message": "no"}}, status=500), answers(b"not json"), hang_up, answers(completion())
    )
    assert [(await send(world)).status_code for _ in range(4)] == [500, 502, 502, 200]
    poor = acting_for("poor", **{"idempotency-key": "order-7"})
    for _ in range(2):
        assert (await world.api.post("/v1/chat/completions", json=CHAT, headers=poor)).status_code == 402
    assert await world.charged_nanos() == CHARGE_OF_A_COMPLETION


async def test_an_answer_is_kept_although_the_caller_has_gone(world: World, upstream: ScriptedUpstream) -> None:
    """The case that the header is for."""
    go_on = asyncio.Event()

    async def slow(request: Any) -> Any:
        await go_on.wait()
        return await answers(completion())(request)

    upstream.plays(slow)
    headers = {**world.as_acme, "idempotency-key": "order-7"}
    async with httpx.AsyncClient(base_url=world.url, headers=headers, trust_env=False, timeout=2.0) as impatient:
        with pytest.raises(httpx.ReadTimeout):
            await impatient.post("/v1/chat/completions", json=CHAT)
    go_on.set()
    await world.is_billed()
    again = await send(world)

    assert (again.status_code, again.headers["idempotency-replayed"]) == (200, "true")
    assert await world.charged_nanos() == CHARGE_OF_A_COMPLETION


async def test_keys_are_each_tenants_own_and_never_go_up(world: World, upstream: ScriptedUpstream) -> None:
    """All tenants share one account at the upstream, which may answer one key once."""
    await a_tenant(world.api, id="other", name="Other")
    other = await a_key(world.api, "other")
    await send(world)
    headers = {"authorization": f"Bearer {other['key']}", "idempotency-key": "order-7"}
    answer = await world.api.post("/v1/chat/completions", json=CHAT, headers=headers)

    assert "idempotency-replayed" not in answer.headers
    assert all("idempotency-key" not in each.headers for each in upstream.received)


async def test_a_stream_is_a_call_of_its_own_each_time(world: World, upstream: ScriptedUpstream) -> None:
    upstream.plays(Stream(chunk("a"), USAGE_CHUNK))
    for _ in range(2):
        assert (await send(world, CHAT | {"stream": True})).status_code == 200

    assert await world.charged_nanos() == 2 * CHARGE_OF_A_COMPLETION
    assert all("idempotency-key" not in each.headers for each in upstream.received)


async def test_a_key_that_cannot_be_one_is_400(world: World, upstream: ScriptedUpstream) -> None:
    for key in ["", "k" * 256]:
        assert error_of(await send(world, key=key), 400)["code"] == "invalid_idempotency_key"
    assert upstream.received == []


async def test_the_claim_of_a_killed_process_ends_with_its_hold(world: World, upstream: ScriptedUpstream) -> None:
    await send(world)
    abandoned = (
        "UPDATE idempotent_answers SET status = 102, body_encrypted = '', created_at = now() - CAST(:age AS interval)"
    )
    for age, status in ((timedelta(minutes=15), 409), (timedelta(minutes=17), 200)):
        async with world.database.transaction() as session:
            await session.execute(text(abandoned), {"age": age})
        assert (await send(world)).status_code == status


async def test_an_answer_is_kept_on_disk_with_its_charge_while_the_database_is_away(
    upstream: ScriptedUpstream, database: Database, database_url: str, tmp_path: Path
) -> None:
    async with Proxy(database_url) as proxy, gateway(upstream, database, proxy.url, tmp_path) as world:

        async def cutting(request: Any) -> Any:
            await proxy.cut()
            return await answers(completion())(request)

        upstream.plays(cutting)
        first = await send(world)
        assert (first.status_code, first.headers["x-credits-charged"]) == (200, "0.065000000")
        (kept,) = files(tmp_path)
        assert "Hello there" not in kept.read_text()
        await proxy.mend()
        await world.is_billed()

        is_the_same(await send(world), first)
        assert await world.charged_nanos() == CHARGE_OF_A_COMPLETION
