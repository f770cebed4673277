"""A scripted upstream, and the gateway in front of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.gateway.gateway_world import World, gateway
from tests.gateway.scripted_upstream import ScriptedUpstream

from keyserver.kit.db import Database


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
async def world(
    upstream: ScriptedUpstream, database: Database, database_url: str, tmp_path: Path
) -> AsyncIterator[World]:
    async with gateway(upstream, database, database_url, tmp_path) as world:
        yield world
