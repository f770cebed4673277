"""One real node and one real server for every test here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.e2e.coins import Coin, Ether, Litecoin, Token
from tests.e2e.world import World, a_world
from tests.nodes.anvil import AnvilNode
from tests.nodes.litecoin import LitecoinNode

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.node)
            item.add_marker(pytest.mark.process)


@asynccontextmanager
async def _coin(name: str, directory: Path) -> AsyncIterator[Coin]:
    if name == "litecoin":
        async with LitecoinNode() as node:
            yield Litecoin(node)
    else:
        async with AnvilNode(directory / "anvil") as node:
            yield Ether(node) if name == "ether" else await Token(node).deploy()


@pytest.fixture(params=["litecoin", "ether"])
async def coin(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Coin]:
    """The test runs once for each chain's own coin."""
    async with _coin(request.param, tmp_path) as coin:
        yield coin


@pytest.fixture(params=["litecoin", "ether", "token"])
async def any_coin(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Coin]:
    """As `coin`, and once for a token."""
    async with _coin(request.param, tmp_path) as coin:
        yield coin


@pytest.fixture
async def litecoin(tmp_path: Path) -> AsyncIterator[Litecoin]:
    async with LitecoinNode() as node:
        yield Litecoin(node)


@pytest.fixture
async def anvil(tmp_path: Path) -> AsyncIterator[AnvilNode]:
    async with AnvilNode(tmp_path / "anvil") as node:
        yield node


@pytest.fixture
async def world(database_url: str, tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(database_url, tmp_path) as world:
        yield world
