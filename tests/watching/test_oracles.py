"""Chainlink feeds of payment methods: what they say when the database is away."""

import pytest
from tests.ports import free_port

from keyserver.kit.db import Database
from keyserver.kit.secrets import MasterKey
from keyserver.pricing.ports import SourceFailed
from keyserver.watching.oracles import OracleFeeds


async def test_a_database_that_is_away_is_no_mistake_of_the_source() -> None:
    database = Database(f"postgresql://nobody@127.0.0.1:{free_port()}/nothing")
    feeds = OracleFeeds(database, MasterKey("master-key-for-tests"))
    with pytest.raises(SourceFailed, match="database"):
        await feeds.feeds()
    await database.dispose()
