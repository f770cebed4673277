"""`/admin/upstreams`: registered, changed, disabled; the key goes in and never comes out."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr, ValidationError
from sqlalchemy import text
from tests.api.support import problem
from tests.builders import AS_ADMIN, AS_PLATFORM, MASTER_KEY, ManualClock

from keyserver.app import create_app
from keyserver.gateway.upstreams import Upstream, Upstreams
from keyserver.kit.db import Database
from keyserver.kit.secrets import MasterKey
from keyserver.settings import Settings

API_KEY = "sk-upstream-0123456789"


def an_upstream(**changes: Any) -> dict[str, Any]:
    return {
        "id": "main",
        "base_url": "https://api.openai.com/v1",
        "api_key": API_KEY,
        "models": ["gpt-*", "o3"],
        **changes,
    }


async def add(api: httpx.AsyncClient, **changes: Any) -> Any:
    answer = await api.post("/admin/upstreams", json=an_upstream(**changes), headers=AS_ADMIN)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def listed(api: httpx.AsyncClient) -> Any:
    return (await api.get("/admin/upstreams", headers=AS_ADMIN)).json()["upstreams"]


@pytest.fixture
def upstreams(database: Database) -> Upstreams:
    return Upstreams(database, master=MasterKey(MASTER_KEY), cache_lifetime=0.0)


async def names(upstreams: Upstreams, model: str) -> list[str]:
    return [each.id for each in await upstreams.candidates(model)]


async def test_an_upstream_is_registered_and_its_key_is_not_shown(api: httpx.AsyncClient, upstreams: Upstreams) -> None:
    shown = {
        "id": "main",
        "base_url": "https://api.openai.com/v1",
        "has_api_key": True,
        "models": ["gpt-*", "o3"],
        "margin": "1.25",
        "priority": 100,
        "connect_timeout_seconds": 5.0,
        "idle_timeout_seconds": 120.0,
        "enabled": True,
        "configured": False,
        "created_at": "2026-03-01T12:00:00.000Z",
    }
    assert await add(api, margin="1.25") == shown
    assert await listed(api) == [shown]
    (upstream,) = await upstreams.all()
    assert upstream.api_key == API_KEY
    assert API_KEY not in repr(upstream)


async def test_the_key_rests_encrypted_and_is_in_no_log_line(
    api: httpx.AsyncClient, database: Database, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    await add(api)
    await api.post("/admin/upstreams", json=an_upstream(margin=-1), headers=AS_ADMIN)
    await api.patch("/admin/upstreams/main", json={"api_key": API_KEY}, headers=AS_ADMIN)
    async with database.transaction() as session:
        row = (await session.execute(text("SELECT upstreams::text FROM upstreams"))).scalar_one()
    written = capsys.readouterr()
    assert all(API_KEY not in place for place in (row, caplog.text, written.out, written.err))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/v1"),
        ("http://localhost:11434/", "http://localhost:11434/v1"),
        ("https://openrouter.ai/api/v1/", "https://openrouter.ai/api/v1"),
        ("http://[::1]:9/openai", "http://[::1]:9/openai"),
    ],
)
async def test_a_url_is_kept_as_paths_can_be_added_to_it(api: httpx.AsyncClient, given: str, kept: str) -> None:
    assert (await add(api, base_url=given))["base_url"] == kept


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"base_url": "ftp://api.openai.com"}, "/base_url"),
        ({"base_url": "api.openai.com/v1"}, "/base_url"),
        ({"base_url": "https://user:password@api.openai.com/v1"}, "/base_url"),
        ({"base_url": "https://api.openai.com/v1?key=1"}, "/base_url"),
        ({"base_url": "https://api.openai.com/v1#x"}, "/base_url"),
        ({"base_url": "https://api.openai.com:99999/v1"}, "/base_url"),
        ({"base_url": "https:///v1"}, "/base_url"),
        ({"base_url": "https://a b/v1"}, "/base_url"),
        ({"base_url": None}, "/base_url"),
        ({"api_key": "with space"}, "/api_key"),
        ({"api_key": "two\nlines"}, "/api_key"),
        ({"models": []}, "/models"),
        ({"models": "*"}, "/models"),
        ({"models": [""]}, "/models/0"),
        ({"margin": 0}, "/margin"),
        ({"margin": -1.3}, "/margin"),
        ({"margin": 101}, "/margin"),
        ({"margin": "NaN"}, "/margin"),
        ({"priority": 1.5}, "/priority"),
        ({"idle_timeout_seconds": 0}, "/idle_timeout_seconds"),
        ({"id": "a/b"}, "/id"),
    ],
)
async def test_an_upstream_that_makes_no_sense_is_refused(
    api: httpx.AsyncClient, changes: dict[str, Any], pointer: str
) -> None:
    answer = await api.post("/admin/upstreams", json=an_upstream(**changes), headers=AS_ADMIN)
    assert problem(answer, 400)["errors"][0]["pointer"] == pointer
    assert API_KEY not in answer.text


async def test_a_second_one_of_the_same_name_is_refused(api: httpx.AsyncClient) -> None:
    await add(api)
    for name in ("main", "environment"):
        answer = await api.post("/admin/upstreams", json=an_upstream(id=name), headers=AS_ADMIN)
        problem(answer, 409, "upstream_exists")


async def test_what_is_left_out_of_a_change_stays(api: httpx.AsyncClient, upstreams: Upstreams) -> None:
    made = await add(api, margin="1.1")
    changed = await api.patch("/admin/upstreams/main", json={"models": ["o3"], "margin": None}, headers=AS_ADMIN)
    assert changed.json() == made | {"models": ["o3"], "margin": None}
    assert (await upstreams.all())[0].api_key == API_KEY
    await api.patch("/admin/upstreams/main", json={"api_key": "sk-other"}, headers=AS_ADMIN)
    assert (await upstreams.all())[0].api_key == "sk-other"
    without = await api.patch("/admin/upstreams/main", json={"api_key": None}, headers=AS_ADMIN)
    assert without.json()["has_api_key"] is False
    problem(await api.patch("/admin/upstreams/main", json={"priority": None}, headers=AS_ADMIN), 400)
    problem(await api.patch("/admin/upstreams/other", json={}, headers=AS_ADMIN), 404, "upstream_not_found")


async def test_a_disabled_one_serves_nothing_and_can_be_enabled_again(
    api: httpx.AsyncClient, upstreams: Upstreams
) -> None:
    await add(api)
    for _ in range(2):
        assert (await api.delete("/admin/upstreams/main", headers=AS_ADMIN)).status_code == 204
    assert await names(upstreams, "gpt-4o") == []
    assert [each["enabled"] for each in await listed(api)] == [False]
    await api.patch("/admin/upstreams/main", json={"enabled": True}, headers=AS_ADMIN)
    assert await names(upstreams, "gpt-4o") == ["main"]
    problem(await api.delete("/admin/upstreams/other", headers=AS_ADMIN), 404, "upstream_not_found")


async def test_only_the_operator_sees_upstreams(api: httpx.AsyncClient) -> None:
    problem(await api.get("/admin/upstreams", headers=AS_PLATFORM), 401)


async def test_the_order_is_priority_then_the_more_specific_pattern_then_the_name(
    api: httpx.AsyncClient, database: Database
) -> None:
    await add(api, id="wide", models=["*"])
    await add(api, id="also-wide", models=["*"])
    await add(api, id="exact", models=["*", "gpt-4o"])
    await add(api, id="first", models=["*"], priority=-1)
    await add(api, id="other", models=["claude-*"])
    configured = Upstream("environment", "http://127.0.0.1/v1", None, ("*",))
    upstreams = Upstreams(database, master=MasterKey(MASTER_KEY), configured=configured, cache_lifetime=0.0)
    assert await names(upstreams, "gpt-4o") == ["first", "exact", "also-wide", "wide", "environment"]
    assert len(await upstreams.all()) == 6


async def test_a_key_of_another_master_key_takes_its_upstream_out_and_no_other(
    api: httpx.AsyncClient, database: Database
) -> None:
    await add(api)
    await add(api, id="keyless", api_key=None)
    upstreams = Upstreams(database, master=MasterKey("another-master-key-0123456789"), cache_lifetime=0.0)
    assert await names(upstreams, "gpt-4o") == ["keyless"]


@pytest.fixture
async def configured_api(database_url: str, settings: Settings, clock: ManualClock) -> AsyncIterator[httpx.AsyncClient]:
    configured = {"upstream_url": "http://127.0.0.1:4000/v1", "upstream_api_key": SecretStr(API_KEY)}
    app: FastAPI = create_app(
        settings.model_copy(update=configured),
        database_url=database_url,
        master=MasterKey(MASTER_KEY),
        clock=clock,
        cache_lifetime=0.0,
    )
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://keyserver") as client:
            yield client


async def test_the_environment_s_upstream_is_listed_last_without_its_key(configured_api: httpx.AsyncClient) -> None:
    await add(configured_api)
    answer = await configured_api.get("/admin/upstreams", headers=AS_ADMIN)
    assert [(each["id"], each["configured"]) for each in answer.json()["upstreams"]] == [
        ("main", False),
        ("environment", True),
    ]
    assert API_KEY not in answer.text


def test_a_wrong_url_in_the_environment_is_named_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYSERVER_UPSTREAM_URL", "https://user:secret@api.openai.com")
    with pytest.raises(ValidationError, match="api_key"):
        Settings()
    monkeypatch.setenv("KEYSERVER_UPSTREAM_URL", "https://api.openai.com")
    assert Settings().upstream_url == "https://api.openai.com/v1"
