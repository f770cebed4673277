"""An OpenAI-compatible upstream that is not ours: `@copilotkit/aimock` from npm, its faults among it.

    async with Aimock(tmp_path, fixtures) as upstream:
        upstream.url    # …/v1

Found by KEYSERVER_AIMOCK, else where `scripts/nodes` installs it, else on PATH.
"""

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import httpx
from tests.nodes.required import require
from tests.ports import free_port

_INSTALLED = Path(__file__).parents[2] / ".nodes/node_modules/.bin/aimock"
_START_SECONDS = 30.0


class Aimock:
    """One aimock process that answers by `fixtures` (its own format: `match` and `response`)."""

    def __init__(self, directory: Path, fixtures: Sequence[dict[str, Any]], **llm: Any) -> None:
        self._directory = directory
        self._fixtures = fixtures
        self._llm = llm
        self._port = free_port()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    async def __aenter__(self) -> Self:
        program = require("aimock", os.environ.get("KEYSERVER_AIMOCK") or str(_INSTALLED))
        fixtures = self._directory / "fixtures.json"
        fixtures.write_text(json.dumps({"fixtures": list(self._fixtures)}))
        config = self._directory / "aimock.json"
        config.write_text(json.dumps({"llm": {"fixtures": str(fixtures), "chunkSize": 4, **self._llm}}))
        with (self._directory / "aimock.log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                program, "--config", str(config), "--port", str(self._port), stdout=log, stderr=log
            )
        try:
            await self._answering()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def _answering(self) -> None:
        assert self._process is not None
        async with asyncio.timeout(_START_SECONDS), httpx.AsyncClient(trust_env=False) as client:
            while self._process.returncode is None:
                try:
                    await client.get(f"{self.url}/models")
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
                else:
                    return
        raise AssertionError((self._directory / "aimock.log").read_text())

    async def _end(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
