import pytest
from tests.builders import ManualClock
from tests.watching.world import World, make_world

from keyserver.kit.db import Database


@pytest.fixture
async def world(database: Database, clock: ManualClock) -> World:
    return await make_world(database, clock)
