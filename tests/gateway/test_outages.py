"""The database goes away, or the server is stopped, in the middle of calls: each is charged all the same, once."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text
from tests.api.proxy import Proxy
from tests.builders import MASTER_KEY
from tests.gateway.gateway_world import CHARGE_OF_A_COMPLETION, CHAT, World, furnish, gateway
from tests.gateway.scripted_upstream import KEY, USAGE_CHUNK, ScriptedUpstream, Stream, chunk
from tests.server import ServerProcess

from keyserver.gateway.payer import Payer
from keyserver.gateway.settling import Settler
from keyserver.gateway.unsettled import Journal, database_id
from keyserver.kit.clock import utc_now
from keyserver.kit.db import Database


def files(directory: Path) -> list[Path]:
    """Calls that are kept on disk."""
    return list(directory.rglob("*.json"))


@asynccontextmanager
async def cuttable(
    upstream: ScriptedUpstream, database: Database, database_url: str, directory: Path
) -> AsyncIterator[tuple[World, Proxy]]:
    """A gateway whose way to the database can be cut."""
    async with Proxy(database_url) as proxy, gateway(upstream, database, proxy.url, directory) as world:
        yield world, proxy


async def outlived(world: World, upstream: ScriptedUpstream, proxy: Proxy, *, while_away: float) -> httpx.Response:
    """A stream's answer; the database is away from its first event until `while_away` seconds after its last."""
    stream = Stream(chunk("one"), chunk("two"), USAGE_CHUNK, held_before=1)
    upstream.plays(stream)
    running = asyncio.create_task(world.chat(stream=True))
    await upstream.is_asked()
    await proxy.cut()
    stream.go_on.set()
    if while_away == float("inf"):
        return await running
    await asyncio.sleep(while_away)
    await proxy.mend()
    return await running


async def test_a_database_that_is_away_for_a_moment_delays_the_charge(
    upstream: ScriptedUpstream, database: Database, database_url: str, tmp_path: Path
) -> None:
    async with cuttable(upstream, database, database_url, tmp_path) as (world, proxy):
        answer = await outlived(world, upstream, proxy, while_away=0.5)

        assert b"x-credits-charged: 0.065000000, x-credits-remaining: 99.935000000" in answer.content
        assert b"[DONE]" in answer.content
        assert await world.charged_nanos() == CHARGE_OF_A_COMPLETION
        assert files(tmp_path) == []


async def test_a_call_that_the_database_cannot_be_told_of_is_kept_on_disk_and_charged_when_it_is_back(
    upstream: ScriptedUpstream, database: Database, database_url: str, tmp_path: Path
) -> None:
    async with cuttable(upstream, database, database_url, tmp_path) as (world, proxy):
        answer = await outlived(world, upstream, proxy, while_away=float("inf"))

        assert b": x-credits-charged: 0.065000000\n" in answer.content
        assert b"[DONE]" in answer.content
        assert await world.charged_nanos() == 0
        (kept,) = files(tmp_path)
        assert KEY not in kept.read_text() and world.key not in kept.read_text()
        await proxy.mend()
        (record,) = await world.is_billed()
        assert (record["outcome"], record["charge_nanos"]) == ("completed", CHARGE_OF_A_COMPLETION)
        async with asyncio.timeout(30):
            while files(tmp_path):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)
        assert await world.charged_nanos() == CHARGE_OF_A_COMPLETION
        assert await world.held_nanos() == 0


async def left_over(upstream: ScriptedUpstream, database: Database, database_url: str, tmp_path: Path) -> None:
    async with cuttable(upstream, database, database_url, tmp_path) as (world, proxy):
        await outlived(world, upstream, proxy, while_away=float("inf"))
        assert await world.charged_nanos() == 0


async def test_what_a_stopped_server_left_on_disk_is_charged_once_by_those_that_start(
    upstream: ScriptedUpstream, database: Database, database_url: str, tmp_path: Path
) -> None:
    await left_over(upstream, database, database_url, tmp_path)
    world = World("", httpx.AsyncClient(), database, "", "")
    settlers = [Settler(database, tmp_path / "unsettled", clock=utc_now, patience=3.0) for _ in range(4)]
    await asyncio.gather(*(settler.replay() for settler in settlers))

    assert await world.charged_nanos() == CHARGE_OF_A_COMPLETION
    assert len(await world.records()) == 1
    assert files(tmp_path) == []


async def test_a_call_is_never_settled_in_another_database(
    upstream: ScriptedUpstream, database: Database, database_url: str, tmp_path: Path
) -> None:
    """Two services on one machine share a data directory by default."""
    await left_over(upstream, database, database_url, tmp_path)
    async with database.transaction() as session:
        await session.execute(text("UPDATE system_secrets SET value = 'db_other' WHERE name = 'database_id'"))
    await Settler(database, tmp_path / "unsettled", clock=utc_now, patience=3.0).replay()

    assert len(files(tmp_path)) == 1
    assert await World("", httpx.AsyncClient(), database, "", "").records() == []


async def test_a_file_that_cannot_be_read_stops_no_other(database: Database, tmp_path: Path) -> None:
    directory = tmp_path / await database_id(database.connection)
    directory.mkdir()
    (directory / "hold_broken.json").write_text("{")

    assert await Journal(directory).waiting() == []
    assert (directory / "hold_broken.json").exists()


async def test_a_database_has_one_id_for_all_its_processes(database: Database) -> None:
    ids = await asyncio.gather(*(database_id(database.connection) for _ in range(8)))

    assert len(set(ids)) == 1


def test_a_payer_is_written_and_read_back_whole() -> None:
    """`Payer(**asdict(payer))` is how the journal reads one."""
    payer = Payer("acme", False, "key_1", "web", "other")
    assert Payer(**asdict(payer)) == payer


@pytest.mark.process
class TestRealProcesses:
    @asynccontextmanager
    async def world(
        self, upstream: ScriptedUpstream, database: Database, database_url: str, directory: Path, **env: str
    ) -> AsyncIterator[tuple[World, ServerProcess]]:
        server = ServerProcess(
            database_url,
            directory,
            KEYSERVER_UPSTREAM_URL=upstream.url,
            KEYSERVER_UPSTREAM_API_KEY=KEY,
            KEYSERVER_DATA_DIR=str(directory),
            KEYSERVER_SECRET_KEY=MASTER_KEY,
            **env,
        )
        try:
            await server.start()
            async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60.0) as api:
                key = await furnish(api)
                yield World(server.url, api, database, key["key"], key["id"]), server
        finally:
            server.end()

    async def test_sigterm_lets_a_stream_finish(
        self, upstream: ScriptedUpstream, database: Database, database_url: str, tmp_path: Path
    ) -> None:
        async with self.world(upstream, database, database_url, tmp_path) as (world, server):
            stream = Stream(chunk("one"), chunk("two"), USAGE_CHUNK, held_before=1)
            upstream.plays(stream)
            async with world.api.stream(
                "POST", "/v1/chat/completions", json=CHAT | {"stream": True}, headers=world.as_acme
            ) as answer:
                pieces = answer.aiter_bytes()
                assert b"one" in await anext(pieces)
                server.signal(signal.SIGTERM)
                stream.go_on.set()
                rest = b"".join([piece async for piece in pieces])

            assert b"two" in rest and b"[DONE]" in rest
            assert await asyncio.to_thread(server.wait) == 0
            assert await world.charged_nanos() == CHARGE_OF_A_COMPLETION

    async def test_a_stream_that_outlasts_the_deadline_is_cut_in_order_and_charged(
        self, upstream: ScriptedUpstream, database: Database, database_url: str, tmp_path: Path
    ) -> None:
        async with self.world(upstream, database, database_url, tmp_path, KEYSERVER_SHUTDOWN_SECONDS="3") as (
            world,
            server,
        ):
            upstream.plays(Stream(chunk("one"), chunk("never"), held_before=1))
            async with world.api.stream(
                "POST", "/v1/chat/completions", json=CHAT | {"stream": True}, headers=world.as_acme
            ) as answer:
                pieces = answer.aiter_bytes()
                assert b"one" in await anext(pieces)
                server.signal(signal.SIGTERM)
                rest = b"".join([piece async for piece in pieces])

            assert b'"code":"shutting_down"' in rest and b"x-credits-charged" in rest
            assert await asyncio.to_thread(server.wait) == 0
            (record,) = await world.records()
            assert (record["outcome"], record["cost_source"]) == ("shutdown", "estimate")
            assert await world.charged_nanos() == record["charge_nanos"] > 0
            assert await world.held_nanos() == 0
