"""The server as real processes, for tests marked `process`: started, killed, stopped, asked over real HTTP."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from tests.builders import ADMIN_TOKEN, MASTER_KEY, SERVICE_KEY
from tests.ports import free_port

_SOURCE = Path(__file__).resolve().parents[1] / "src"


class ServerProcess:
    """One `keyserver serve` (or another command) over a database; `log` holds its standard error."""

    def __init__(self, database_url: str, directory: Path, *, command: Sequence[str] = ("serve",), **env: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = directory / f"server-{self.port}.log"
        self._command = [sys.executable, "-m", "keyserver", *command]
        self._env = {
            name: value for name, value in os.environ.items() if not name.startswith(("KEYSERVER_", "COV_"))
        } | {
            "PYTHONPATH": str(_SOURCE),
            "DATABASE_URL": database_url,
            "PORT": str(self.port),
            "SERVICE_KEY": SERVICE_KEY,
            "ADMIN_TOKEN": ADMIN_TOKEN,
            "KEYSERVER_SECRET_KEY": MASTER_KEY,
            "KEYSERVER_WORKERS": "1",
            "KEYSERVER_POLL_SECONDS": "0.2",
            "KEYSERVER_PRICE_SOURCES": "none",
            "KEYSERVER_AUDIT_SECONDS": "0",
            "KEYSERVER_WEBHOOK_ALLOW": "127.0.0.0/8",
            **env,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; the signal's number below zero when one ended it."""
        return None if self._process is None else self._process.poll()

    async def start(self, *, within: float = 90.0) -> None:
        """Starts it and waits until `/chains` answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._env, stdout=log, stderr=log)
        deadline = asyncio.get_running_loop().time() + within
        async with httpx.AsyncClient(trust_env=False) as client:
            while True:
                try:
                    if (await client.get(f"{self.url}/chains")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                code = self._process.poll()
                late = asyncio.get_running_loop().time() > deadline
                assert code is None and not late, f"exit code {code}\n{self.log.read_text()[-4000:]}"
                await asyncio.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL, as a machine that loses power."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def stop(self, *, within: float = 20.0) -> int:
        """SIGTERM; returns the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(within=within)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, *, within: float = 20.0) -> int:
        """The exit code, once it has ended."""
        assert self._process is not None
        return self._process.wait(within)

    def end(self) -> None:
        """In order when that goes quickly: a killed process leaves no coverage."""
        if self._process is None or self._process.poll() is not None:
            return
        try:
            self.stop(within=5.0)
        except subprocess.TimeoutExpired:
            self.kill()


@asynccontextmanager
async def running_server(database_url: str, directory: Path, **env: str) -> AsyncIterator[ServerProcess]:
    """A server that answers, ended when the test ends. Keyword arguments are environment variables."""
    server = ServerProcess(database_url, directory, command=("serve",), **env)
    try:
        await server.start()
        yield server
    finally:
        server.end()
