"""Behind PgBouncer 1.18 (Debian's) in transaction mode: no statement finds the server that the one before it had."""

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import httpx
import pytest
from sqlalchemy import make_url, text
from tests.builders import AS_ADMIN, AS_PLATFORM, litecoin, register
from tests.nodes.required import require
from tests.ports import free_port
from tests.server import running_server

from keyserver.kit.db import Database
from keyserver.kit.migrations import migrate

pytestmark = pytest.mark.process
CHARGES = 200
TRANSACTION_MODE = {"KEYSERVER_DATABASE_PREPARED_STATEMENTS": "false"}


@pytest.fixture
async def pooled_url(database_url: str) -> AsyncIterator[str]:
    """The database's URL through a PgBouncer with three server connections."""
    program = require("pgbouncer")
    target = make_url(database_url)
    port = free_port()
    host = str(target.host or target.query["host"])
    credentials = f"user={target.username or 'postgres'}" + (f" password={target.password}" if target.password else "")
    directory = _readable_directory()
    configuration = directory / "pgbouncer.ini"
    configuration.write_text(
        f"""
[databases]
{target.database} = host={host} port={target.port or 5432} {credentials}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
max_client_conn = 200
server_round_robin = 1
"""
    )
    process = subprocess.Popen(
        [*_as_owner_of(host), program, str(configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        await _answers(port, process)
        yield target.set(host="127.0.0.1", port=port, query={}).render_as_string(hide_password=False)
    finally:
        process.kill()
        process.wait(10)
        shutil.rmtree(directory, ignore_errors=True)


def _readable_directory() -> Path:
    """PgBouncer refuses to run as root, and reads its configuration as somebody else."""
    directory = Path(tempfile.mkdtemp(prefix="keyserver-pgbouncer-"))
    directory.chmod(0o755)
    return directory


def _as_owner_of(host: str) -> list[str]:
    """A socket's directory may be open to its owner alone."""
    if os.geteuid() != 0:
        return []
    owner = Path(host).stat().st_uid if host.startswith("/") else 0
    return ["setpriv", f"--reuid={owner or 65534}", "--clear-groups"]


async def _answers(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, "pgbouncer did not start"
            await asyncio.sleep(0.05)
        else:
            writer.close()
            await writer.wait_closed()
            return


async def test_the_server_migrates_and_takes_charges_at_once_through_a_pooler(
    pooled_url: str, database: Database, tmp_path: Path
) -> None:
    await migrate(database, "base", down=True)
    async with (
        running_server(pooled_url, tmp_path, **TRANSACTION_MODE) as server,
        aiohttp.ClientSession(headers=AS_PLATFORM, connector=aiohttp.TCPConnector(limit=32)) as session,
        httpx.AsyncClient(base_url=server.url, trust_env=False) as api,
    ):
        await register(api, litecoin())

        async def make(number: int) -> int:
            headers = {"idempotency-key": f"order {number}"} if number % 2 else {}
            body = {"chain": "LTC", "amountUsd": 5, "metadata": {"n": number}}
            async with session.post(f"{server.url}/charges", json=body, headers=headers) as answer:
                assert answer.status == 201, await answer.text()
                return int((await answer.json())["derivationIndex"])

        async def read(path: str) -> None:
            headers = AS_ADMIN if path.startswith("/admin") else AS_PLATFORM
            async with session.get(f"{server.url}{path}", headers=headers) as answer:
                assert answer.status == 200, await answer.text()

        paths = ["/charges", "/chains", "/ledger/balance", "/admin/chains", "/health/ready", "/metrics"]
        indexes, _ = await asyncio.gather(
            asyncio.gather(*(make(number) for number in range(CHARGES))),
            asyncio.gather(*(read(paths[number % len(paths)]) for number in range(CHARGES // 2))),
        )
        assert sorted(indexes) == list(range(CHARGES))
        grant = {"tenant_id": "platform", "type": "grant", "amount_usd": 5, "reference_id": "g"}
        for status in (201, 200):
            posted = await api.post("/admin/ledger/entries", json=grant, headers=AS_ADMIN)
            assert posted.status_code == status, posted.text
    async with database.transaction() as transaction:
        assert await transaction.scalar(text("SELECT count(*) FROM charges")) == CHARGES
    log = server.log.read_text()
    assert "unhandled_error" not in log and "task_failed" not in log, log[-3000:]
