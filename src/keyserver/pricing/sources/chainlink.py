"""Chainlink's price feeds, read over the chain's own node: AggregatorV3Interface by hand-encoded `eth_call`.

    latestRoundData() → (uint80 roundId, int256 answer, uint256 startedAt, uint256 updatedAt, uint80 answeredInRound)
    decimals()        → uint8

A feed writes when its price has moved by its threshold or its heartbeat is over (an hour, on the larger ones), and
`updatedAt` is what counts as observed: between writes it may be older than the age limit allows.
https://docs.chain.link/data-feeds/api-reference
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from keyserver.pricing.ports import Asset, Observation, SourceFailed
from keyserver.pricing.quotes import instant_of, price_of

#: `eth_call` at the latest block: contract address and call data in, returned data out, all `0x…` hex.
#: May raise anything; it is bounded in time by the caller.
EthCall = Callable[[str, str], Awaitable[str]]

#: First four bytes of the Keccak-256 of each signature.
LATEST_ROUND_DATA = "0xfeaf968c"
DECIMALS = "0x313ce567"

_WORD = 64
_MAX_DECIMALS = 36
TIME_LIMIT = 10.0


@dataclass(frozen=True, slots=True)
class ChainlinkFeed:
    """One contract that tells US dollars for one whole `token`."""

    token: str
    address: str
    call: EthCall

    async def read(self) -> Observation:
        """Raises SourceFailed for an answer that is not a price, and whatever `call` raises."""
        round_id, answer, _, updated_at, answered_in = _words(await self.call(self.address, LATEST_ROUND_DATA), 5)
        (decimals,) = _words(await self.call(self.address, DECIMALS), 1)
        if answered_in < round_id:
            raise SourceFailed(f"The {self.token} feed carries over the answer of an earlier round")
        observed_at = instant_of(updated_at)
        price = price_of(_scaled(answer, decimals)) if decimals <= _MAX_DECIMALS else None
        if price is None or observed_at is None:
            raise SourceFailed(f"The {self.token} feed answered something that is not a price")
        return Observation(token=self.token, price_usd=price, observed_at=observed_at)


class Chainlink:
    """All feeds as one source. `feeds` is asked at every tick, so that new payment methods join without a restart."""

    name = "chainlink"

    def __init__(
        self, feeds: Callable[[], Awaitable[Sequence[ChainlinkFeed]]], *, time_limit: float = TIME_LIMIT
    ) -> None:
        self._feeds = feeds
        self._time_limit = time_limit

    async def fetch(self, assets: Sequence[Asset]) -> Mapping[str, Observation]:
        """The newest answer for each token. A feed that fails is left out; SourceFailed when all of them do."""
        wanted = {asset.token for asset in assets}
        feeds = [feed for feed in await self._feeds() if feed.token in wanted]
        outcomes = await asyncio.gather(*(self._read(feed) for feed in feeds))
        found: dict[str, Observation] = {}
        for seen in (outcome for outcome in outcomes if isinstance(outcome, Observation)):
            if seen.token not in found or found[seen.token].observed_at < seen.observed_at:
                found[seen.token] = seen
        failures = [outcome for outcome in outcomes if isinstance(outcome, SourceFailed)]
        if failures and not found:
            raise failures[0]
        return found

    async def _read(self, feed: ChainlinkFeed) -> Observation | SourceFailed:
        try:
            async with asyncio.timeout(self._time_limit):
                return await feed.read()
        except SourceFailed as error:
            return error
        except TimeoutError:
            return SourceFailed(f"The node did not answer for the {feed.token} feed within {self._time_limit:g} s")
        except Exception as error:  # noqa: BLE001 - the call is plugged in: one node's trouble is not the others'
            return SourceFailed(f"The node cannot be asked for the {feed.token} feed ({type(error).__name__})")


def _words(data: str, count: int) -> list[int]:
    """The first `count` words of 32 bytes, unsigned. SourceFailed when there are fewer."""
    if not re.fullmatch(rf"0x([0-9a-fA-F]{{{_WORD}}}){{{count},}}", data):
        raise SourceFailed("The contract does not answer as a price feed does")
    return [int(data[2 + _WORD * at : 2 + _WORD * (at + 1)], 16) for at in range(count)]


def _scaled(answer: int, decimals: int) -> Decimal | None:
    """`answer` is an int256: from 2^255 on it is negative, and no price."""
    if answer >= 2**255:
        return None
    return Decimal((0, tuple(int(digit) for digit in str(answer)), -decimals))
