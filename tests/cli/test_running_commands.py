"""`serve`, `migrate` and `demo`: they start, or say in one line why not."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.cli.commands import environment, keyserver, refusal
from tests.ports import free_port

from keyserver.kit import embedded
from keyserver.kit.db import Database
from keyserver.kit.migrations import migrate

pytestmark = pytest.mark.process


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"PORT": "99999"}, ["PORT: "]),
        (
            {"KEYSERVER_WORKERS": "many", "KEYSERVER_PRICE_SECONDS": "0"},
            ["KEYSERVER_WORKERS: ", "KEYSERVER_PRICE_SECONDS: "],
        ),
        ({"KEYSERVER_LOG_LEVEL": "loud"}, ["KEYSERVER_LOG_LEVEL: must be DEBUG"]),
        ({"KEYSERVER_PRICE_SOURCES": "a-friend"}, ["KEYSERVER_PRICE_SOURCES names a-friend"]),
        ({"KEYSERVER_WEBHOOK_ALLOW": "10.0.0.0/99"}, ["KEYSERVER_WEBHOOK_ALLOW: "]),
        ({"DATABASE_URL": "mysql://u:hunter2@h/d"}, ["DATABASE_URL must start with postgresql://"]),
    ],
)
async def test_a_wrong_setting_is_named_and_its_value_kept_quiet(env: dict[str, str], told: list[str]) -> None:
    done = await keyserver("serve", **env)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == len(told)
    assert all(any(line.startswith(f"keyserver: {each}") for line in lines) for each in told), lines
    assert "hunter2" not in done.stderr


async def test_a_port_in_use_is_said_before_the_database_is_looked_for_and_leaves_nothing(directory: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = await keyserver(
            "serve", PORT=str(port), DATABASE_URL="postgresql://nobody@127.0.0.1:1/none", TMPDIR=str(directory)
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"keyserver: Port {port} on 127.0.0.1 is in use: stop what listens there, or set PORT to another"
    ]
    assert os.listdir(directory) == []  # noqa: PTH208 - a look, from a coroutine


async def test_a_host_that_is_not_here_is_one_line() -> None:
    assert "HOST 192.0.2.1" in refusal(await keyserver("serve", HOST="192.0.2.1", PORT="0"))


async def test_a_database_that_is_not_there_is_one_line(server_url: str) -> None:
    nowhere = await keyserver("migrate", DATABASE_URL="postgresql://u:hunter2@127.0.0.1:1/none")
    assert "cannot be reached" in refusal(nowhere)
    assert "hunter2" not in nowhere.stderr
    missing = server_url.replace("/postgres?", "/no_such_database?")
    assert 'database "no_such_database" does not exist' in refusal(await keyserver("migrate", DATABASE_URL=missing))


async def test_migrate_tells_whether_the_schema_is_current(database: Database, database_url: str) -> None:
    assert (await keyserver("migrate", "--check", DATABASE_URL=database_url)).returncode == 0
    await migrate(database, "base", down=True)
    assert "run `keyserver migrate`" in refusal(await keyserver("migrate", "--check", DATABASE_URL=database_url))
    assert "is current" in (await keyserver("migrate", DATABASE_URL=database_url)).stdout
    assert (await keyserver("migrate", "--check", DATABASE_URL=database_url)).returncode == 0


async def test_help_and_version_need_nothing() -> None:
    assert "demo" in (await keyserver("--help")).stdout
    assert re.fullmatch(r"keyserver \d+\.\d+\.\d+\n", (await keyserver("--version")).stdout)
    assert (await keyserver("nonsense")).returncode == 2


class Demo:
    """`keyserver demo` with its output, on a database of the test's or the embedded one."""

    def __init__(self, directory: Path, **env: str) -> None:
        self.port = free_port()
        self._log = directory / "demo.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "keyserver", "demo"],
                env=environment(PORT=str(self.port), KEYSERVER_PRICE_SOURCES="none", **env),
                stdout=log,
                stderr=log,
            )

    async def banner(self) -> str:
        async with asyncio.timeout(90):
            while "To receive" not in (text := self._log.read_text()):
                assert self.process.poll() is None, text
                await asyncio.sleep(0.1)
            async with httpx.AsyncClient(trust_env=False, timeout=60) as api:  # the port is open: this waits for it
                assert (await api.get(f"http://127.0.0.1:{self.port}/health/live")).status_code == 200
        return text

    async def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return await asyncio.to_thread(self.process.wait, 30)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)


async def test_the_lines_of_the_banner_settle_a_charge_as_they_are(database_url: str, tmp_path: Path) -> None:
    demo = Demo(tmp_path, DATABASE_URL=database_url)
    try:
        shown = await demo.banner()
        assert "WORTHLESS" in shown
        assert re.match(r"\d\d:\d\d:\d\d warning master_key_in_database why=KEYSERVER_SECRET_KEY is not set", shown)
        assert re.search(r"SERVICE_KEY +ks_\S{20,}", shown)
        assert re.search(r"Webhook secret of tenant platform: whsec_\S{40,}", shown)
        lines = [line for line in shown.splitlines() if line.startswith(("CHARGE=", "curl"))]
        assert len(lines) == 3
        done = await asyncio.to_thread(
            subprocess.run, ["bash", "-c", "\n".join(lines)], capture_output=True, text=True, timeout=60, check=True
        )
        assert '"status":"Settled"' in done.stdout
        assert '"balanceUsd":"25.000200000"' in done.stdout
        assert await demo.interrupt() == 0
    finally:
        demo.end()


async def test_the_keys_of_the_environment_are_kept(database_url: str, tmp_path: Path) -> None:
    demo = Demo(tmp_path, DATABASE_URL=database_url, SERVICE_KEY="ks_my-own-0123456789", ADMIN_TOKEN="my-own-token")
    try:
        shown = await demo.banner()
        assert "ks_my-own-0123456789" in shown
        assert "my-own-token" in shown
    finally:
        demo.end()


@pytest.fixture
def directory() -> Iterator[Path]:
    """Not under pytest's own directory, which is closed to the user that PostgreSQL runs as when root tests."""
    with tempfile.TemporaryDirectory(prefix="keyserver-demo-", ignore_cleanup_errors=True) as name:
        yield Path(name)


async def test_the_embedded_postgresql_ends_with_the_last_server_even_after_one_was_killed(
    tmp_path: Path, directory: Path
) -> None:
    first = Demo(tmp_path, KEYSERVER_DATA_DIR=str(directory))
    try:
        await first.banner()
    finally:
        first.end()  # SIGKILL: PostgreSQL stays behind
    second = Demo(tmp_path, KEYSERVER_DATA_DIR=str(directory))
    try:
        await second.banner()
        assert (directory / "postgres" / "postmaster.pid").exists()
        assert await second.interrupt() == 0
        assert not (directory / "postgres" / "postmaster.pid").exists()
    finally:
        second.end()


def test_a_data_directory_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(embedded.EmbeddedPostgresFailedError, match=r"did not start in .*file"):
        embedded.start(tmp_path / "file")
