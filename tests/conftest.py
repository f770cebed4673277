"""A real PostgreSQL for every test: one server a run, one template migrated once, one fresh copy a test.

KEYSERVER_TEST_DATABASE_URL names another server to use (CI runs the tests on several versions); its user must be
allowed to create databases.
"""

import asyncio
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import make_url
from tests.builders import ADMIN_TOKEN, MASTER_KEY, SERVICE_KEY, ManualClock

from keyserver.app import create_app
from keyserver.kit import embedded
from keyserver.kit.db import Database
from keyserver.kit.migrations import migrate
from keyserver.kit.secrets import MasterKey
from keyserver.settings import Settings

_SERVER = "KEYSERVER_TEST_DATABASE_URL"
_TEMPLATE = "KEYSERVER_TEST_TEMPLATE"
_scratch: Path | None = None


def _on_database(url: str, name: str) -> str:
    return make_url(url).set(database=name).render_as_string(hide_password=False)


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def _prepare(url: str, template: str, *, throw_away: bool) -> None:
    if throw_away:  # nothing here outlives the run: don't wait for the disk
        await _execute(
            url,
            "ALTER SYSTEM SET fsync = off",
            "ALTER SYSTEM SET synchronous_commit = off",
            "ALTER SYSTEM SET full_page_writes = off",
            "SELECT pg_reload_conf()",
        )
    await _execute(url, f'DROP DATABASE IF EXISTS "{template}"', f'CREATE DATABASE "{template}"')
    database = Database(_on_database(url, template))
    await migrate(database)
    await database.dispose()


def pytest_configure(config: pytest.Config) -> None:
    """Runs in the controller before xdist starts its workers, which inherit the environment."""
    global _scratch
    if hasattr(config, "workerinput") or config.option.collectonly:
        return
    throw_away = _SERVER not in os.environ
    if throw_away:
        _scratch = Path(tempfile.mkdtemp(prefix="keyserver-test-"))
        _scratch.chmod(0o755)
        os.environ[_SERVER] = embedded.start(_scratch)
    os.environ[_TEMPLATE] = f"keyserver_template_{os.getpid()}"
    asyncio.run(_prepare(os.environ[_SERVER], os.environ[_TEMPLATE], throw_away=throw_away))


def pytest_unconfigure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") or _TEMPLATE not in os.environ:
        return
    if _scratch is None:
        asyncio.run(_execute(os.environ[_SERVER], f'DROP DATABASE IF EXISTS "{os.environ[_TEMPLATE]}"'))
    else:
        embedded.stop(_scratch)
        shutil.rmtree(_scratch, ignore_errors=True)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine's own reaches a test."""
    for name in (
        "DATABASE_URL",
        "SERVICE_KEY",
        "ADMIN_TOKEN",
        "PORT",
        "HOST",
        "CRYPTO_SERVICE_URL",
        "TENANT_ID",
        "KEYSERVER_URL",
        "CRYPTO_SERVICE_KEY",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server_url() -> str:
    """URL of the PostgreSQL server's maintenance database."""
    return os.environ[_SERVER]


@pytest.fixture
async def database_url(server_url: str) -> AsyncIterator[str]:
    """URL of a fresh, migrated database of this test's own."""
    name = f"test_{uuid.uuid4().hex}"
    await _execute(server_url, f'CREATE DATABASE "{name}" TEMPLATE "{os.environ[_TEMPLATE]}"')
    try:
        yield _on_database(server_url, name)
    finally:
        await _execute(server_url, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, pool_size=20)
    try:
        yield database
    finally:
        await database.dispose()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def settings() -> Settings:
    return Settings(
        service_key=SecretStr(SERVICE_KEY),
        admin_token=SecretStr(ADMIN_TOKEN),
        webhook_allow=("127.0.0.0/8",),
        demo=True,
    )


@pytest.fixture
async def app(settings: Settings, database_url: str, clock: ManualClock) -> AsyncIterator[FastAPI]:
    """The API in this process over the test's database, with nothing cached and time standing still."""
    app = create_app(
        settings,
        database_url=database_url,
        master=MasterKey(MASTER_KEY),
        clock=clock,
        cache_lifetime=0.0,
    )
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def api(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://keyserver") as client:
        yield client
