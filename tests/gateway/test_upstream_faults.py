"""Upstreams that fail: what the caller hears, what it costs (nothing), and who is asked instead."""

from pathlib import Path
from typing import Any

import httpx
from tests.builders import AS_ADMIN
from tests.gateway.gateway_world import CHARGE_OF_A_COMPLETION, World, gateway
from tests.gateway.scripted_upstream import KEY, ScriptedUpstream, answers, completion, hang_up, silence
from tests.ports import free_port

from keyserver.kit.db import Database


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    error: dict[str, Any] = answer.json()["error"]
    assert {"message", "type", "code", "param"} <= error.keys()
    return error


async def costs_nothing(world: World) -> None:
    assert (await world.charged_nanos(), await world.held_nanos(), await world.records()) == (0, 0, [])


async def add_upstream(world: World, url: str, **members: Any) -> None:
    """One that is asked before the environment's."""
    body = {"id": "first", "base_url": url, "api_key": "sk-of-the-first-upstream", "models": ["*"], **members}
    answer = await world.api.post("/admin/upstreams", json=body, headers=AS_ADMIN)
    assert answer.is_success, answer.text


async def test_an_upstreams_error_keeps_its_status_and_words_and_costs_nothing(
    world: World, upstream: ScriptedUpstream
) -> None:
    for status in [400, 404, 409, 422, 500, 501, 503]:
        said = {"message": "Too many tokens", "type": "their_type", "code": "their_code", "param": "messages"}
        upstream.plays(answers({"error": said}, status=status))

        assert error_of(await world.chat(), status) == said
        await costs_nothing(world)


async def test_an_error_in_no_known_shape_is_told_in_ours(world: World, upstream: ScriptedUpstream) -> None:
    for body in [b"<html>busy</html>", b"", b"[]", b'{"error": 5}', b'{"detail": "busy"}']:
        upstream.plays(answers(body, status=500))
        error = error_of(await world.chat(), 500)

        assert (error["type"], error["code"]) == ("upstream_error", "upstream_error")
        await costs_nothing(world)


async def test_a_429_of_the_upstream_is_not_ours(world: World, upstream: ScriptedUpstream) -> None:
    upstream.plays(
        answers({"error": {"message": "slow", "code": "rate_limit_exceeded"}}, status=429, headers={"retry-after": "7"})
    )
    answer = await world.chat()

    error = error_of(answer, 429)
    assert (error["type"], error["code"]) == ("upstream_rate_limited", "upstream_rate_limited")
    assert answer.headers["retry-after"] == "7"
    await costs_nothing(world)


async def test_that_the_upstream_refuses_our_key_is_told_without_its_words(
    world: World, upstream: ScriptedUpstream
) -> None:
    for status in [401, 403]:
        upstream.plays(
            answers(
                {"error": {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}}, status=status
            )
        )
        answer = await world.chat()

        assert error_of(answer, status)["code"] == "upstream_error"
        assert KEY not in answer.text


async def test_our_key_in_the_words_of_an_error_is_redacted(world: World, upstream: ScriptedUpstream) -> None:
    upstream.plays(answers({"error": {"message": f"bad header: Bearer {KEY}"}}, status=400))

    assert error_of(await world.chat(), 400)["message"] == "bad header: Bearer [redacted]"


async def test_a_redirect_is_not_followed(world: World, upstream: ScriptedUpstream) -> None:
    upstream.plays(answers(b"", status=307, headers={"location": "http://127.0.0.1:1/"}))

    error_of(await world.chat(), 502)
    assert len(upstream.received) == 1


async def test_an_answer_that_is_no_json_is_an_error_of_the_upstream_and_costs_nothing(
    world: World, upstream: ScriptedUpstream
) -> None:
    for body in [b'{"id": "c1", "choices": [', b"not json", b""]:
        upstream.plays(answers(body))

        assert error_of(await world.chat(), 502)["code"] == "upstream_malformed_answer"
        await costs_nothing(world)


async def test_an_upstream_that_hangs_up_may_have_begun_and_is_not_asked_again(
    world: World, upstream: ScriptedUpstream
) -> None:
    async with ScriptedUpstream() as first:
        first.plays(hang_up)
        await add_upstream(world, first.url)

        assert error_of(await world.chat(), 502)["code"] == "upstream_unreachable"
        assert (len(first.received), len(upstream.received)) == (1, 0)
    await costs_nothing(world)


async def test_an_upstream_that_says_nothing_is_a_timeout(world: World, upstream: ScriptedUpstream) -> None:
    async with ScriptedUpstream() as first:
        first.plays(silence)
        await add_upstream(world, first.url, idle_timeout_seconds=1)

        assert error_of(await world.chat(), 504)["code"] == "upstream_timeout"
        assert upstream.received == []
    await costs_nothing(world)


async def test_an_upstream_that_does_not_serve_now_gives_way_to_the_next(
    world: World, upstream: ScriptedUpstream
) -> None:
    async with ScriptedUpstream() as first:
        await add_upstream(world, first.url)
        for count, status in enumerate((429, 502, 503), start=1):
            first.plays(answers({"error": {"message": "busy"}}, status=status))
            answer = await world.chat()

            assert answer.status_code == 200, answer.text
            assert (len(first.received), len(upstream.received)) == (count, count)
    assert first.received[0].headers["authorization"] == "Bearer sk-of-the-first-upstream"
    assert {each["upstream"] for each in await world.records()} == {"environment"}


async def test_an_error_that_another_upstream_would_not_mend_or_that_may_have_cost_something_is_no_reason_to_ask_it(
    world: World, upstream: ScriptedUpstream
) -> None:
    async with ScriptedUpstream() as first:
        await add_upstream(world, first.url)
        for status in (400, 401, 404, 500, 504):
            first.plays(answers({"error": {"message": "no"}}, status=status))
            error_of(await world.chat(), status)
    assert upstream.received == []


async def test_an_upstream_that_is_not_there_gives_way_and_is_left_alone_after_a_while(
    world: World, upstream: ScriptedUpstream
) -> None:
    await add_upstream(world, f"http://127.0.0.1:{free_port()}/v1")
    answers_ = [await world.chat() for _ in range(8)]

    assert [each.status_code for each in answers_] == [200] * 8
    assert await world.charged_nanos() == 8 * CHARGE_OF_A_COMPLETION


async def test_the_margin_of_the_upstream_that_answered_is_charged(world: World, upstream: ScriptedUpstream) -> None:
    async with ScriptedUpstream() as first:
        first.plays(answers(b"", status=503), answers(completion()))
        await add_upstream(world, first.url, margin="2")
        second_choice, first_choice = await world.chat(), await world.chat()

    assert second_choice.headers["x-credits-charged"] == "0.065000000"
    assert first_choice.headers["x-credits-charged"] == "0.100000000"


async def test_a_dead_upstream_is_502_then_left_alone_with_503_and_found_again(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    upstream = ScriptedUpstream()
    async with gateway(upstream, database, database_url, tmp_path) as world:
        codes = [error_of(await world.chat(), 502)["code"] for _ in range(5)]
        assert codes == ["upstream_unreachable"] * 5
        left_alone = await world.chat()
        assert error_of(left_alone, 503)["code"] == "upstream_unavailable"
        assert 1 <= int(left_alone.headers["retry-after"]) <= 5
        await costs_nothing(world)


async def test_without_any_upstream_no_model_is_there(database: Database, database_url: str, tmp_path: Path) -> None:
    async with gateway(None, database, database_url, tmp_path) as world:
        assert error_of(await world.chat(), 404)["code"] == "model_not_found"
        assert (await world.api.get("/v1/models", headers=world.as_acme)).json() == {"object": "list", "data": []}
