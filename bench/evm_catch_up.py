"""Catching up on a local anvil: blocks a second, beside what the node alone delivers for the same calls."""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from tests.nodes.anvil import AnvilNode

from keyserver.watching.evm import EvmSource
from keyserver.watching.scanner import MOST_AHEAD

BLOCKS = 128
#: Of each block: payments in the coin, and in a token.
PAYMENTS = 4


def catch_up() -> tuple[float, float]:
    """Blocks per second through our adapter, and of the same requests sent bare, whose answers nobody reads."""
    return asyncio.run(_catch_up())


async def _catch_up() -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as directory:
        async with AnvilNode(Path(directory)) as node:
            token = await _fill(node)
            requests, first = await _recorded(node, token)
            bare = await _bare(node.url, requests)
            ours = await _ours(node, token, first)
    return BLOCKS / ours, BLOCKS / bare


async def _fill(node: AnvilNode) -> str:
    token = await node.deploy_erc20()
    await node.mint(token, node.accounts[0], 10**15)
    await node.mine()
    for height in range(BLOCKS):
        for number in range(PAYMENTS):
            receiver = f"0xaa{height * PAYMENTS + number:038x}"
            await node.send(receiver, 10**9, sender=node.accounts[1])
            await node.transfer_token(token, receiver, 5)
        await node.mine()
    return token


async def _read(source: EvmSource, node: AnvilNode, token: str) -> None:
    last = await node.height()
    height = last - BLOCKS + 1
    while height <= last:
        blocks = await source.blocks(height, min(MOST_AHEAD, last - height + 1), contracts=frozenset({token}))
        assert all(len(block.transfers) == 2 * PAYMENTS for block in blocks)
        height += len(blocks)


async def _recorded(node: AnvilNode, token: str) -> tuple[list[Any], EvmSource]:
    source = EvmSource(node.url, chain_id=None)
    await source.identify()
    requests: list[Any] = []
    post = source._rpc._post  # noqa: SLF001 - what goes over the wire is to be repeated

    async def recording(request: Any) -> tuple[int, Any]:
        requests.append(request)
        return await post(request)

    source._rpc._post = recording  # type: ignore[method-assign]  # noqa: SLF001
    await _read(source, node, token)
    source._rpc._post = post  # type: ignore[method-assign]  # noqa: SLF001
    return requests, source


async def _bare(url: str, requests: list[Any]) -> float:
    async with httpx.AsyncClient(trust_env=False, timeout=30.0) as client:
        started = time.monotonic()
        for request in requests:
            (await client.post(url, json=request)).raise_for_status()
        return time.monotonic() - started


async def _ours(node: AnvilNode, token: str, source: EvmSource) -> float:
    started = time.monotonic()
    await _read(source, node, token)
    seconds = time.monotonic() - started
    await source.close()
    return seconds
