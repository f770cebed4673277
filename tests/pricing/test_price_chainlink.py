"""Chainlink feeds over a node's `eth_call`, which is plugged in: here it answers words as a contract would."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from Crypto.Hash import keccak

from keyserver.pricing.ports import Asset, Observation, SourceFailed
from keyserver.pricing.sources.chainlink import DECIMALS, LATEST_ROUND_DATA, Chainlink, ChainlinkFeed, EthCall

FEED = "0x5f4ec3df9cbd43714fe2740f5e3616155c5b8419"
UPDATED_AT = 1711356300
ROUND = 110680464442257320247


def words(*values: int) -> str:
    return "0x" + "".join((value % 2**256).to_bytes(32, "big").hex() for value in values)


def contract(
    answer: int = 345678000000,
    *,
    decimals: int = 8,
    updated_at: int = UPDATED_AT,
    round_id: int = ROUND,
    answered_in: int = ROUND,
) -> EthCall:
    return says(words(round_id, answer, updated_at - 12, updated_at, answered_in), words(decimals))


def says(latest_round_data: str, decimals: str) -> EthCall:
    async def call(to: str, data: str) -> str:
        assert to == FEED
        return {LATEST_ROUND_DATA: latest_round_data, DECIMALS: decimals}[data]

    return call


async def unreachable(_: str, __: str) -> str:
    raise ConnectionError("http://user:password@node is down")


async def hanging(_: str, __: str) -> str:
    await asyncio.Event().wait()
    raise AssertionError


async def read(call: EthCall) -> Observation:
    return await ChainlinkFeed("ETH", FEED, call).read()


def chainlink(*feeds: ChainlinkFeed) -> Chainlink:
    async def current() -> list[ChainlinkFeed]:
        return list(feeds)

    return Chainlink(current, time_limit=0.1)


def test_selectors_are_the_hashes_of_the_signatures() -> None:
    for selector, signature in ((LATEST_ROUND_DATA, b"latestRoundData()"), (DECIMALS, b"decimals()")):
        assert selector == "0x" + keccak.new(digest_bits=256, data=signature).hexdigest()[:8]


async def test_a_feed_is_read_as_an_exact_price_with_the_time_it_was_written() -> None:
    assert await read(contract()) == Observation("ETH", Decimal("3456.78"), datetime.fromtimestamp(UPDATED_AT, UTC))


async def test_eighteen_decimals_keep_every_digit() -> None:
    seen = await read(contract(123456789012345678901234567890, decimals=18))
    assert seen.price_usd == Decimal("123456789012.345678901234567890")


@pytest.mark.parametrize("answer", [0, -1, -345678000000, 2**255, 2**255 - 1])
async def test_an_answer_that_is_not_a_sane_positive_number_is_refused(answer: int) -> None:
    with pytest.raises(SourceFailed, match="not a price"):
        await read(contract(answer))


async def test_an_answer_carried_over_from_an_earlier_round_is_refused() -> None:
    with pytest.raises(SourceFailed, match="earlier round"):
        await read(contract(answered_in=ROUND - 1))


@pytest.mark.parametrize("updated_at", [0, 2**64])
async def test_a_feed_that_was_never_written_is_refused(updated_at: int) -> None:
    call = says(words(ROUND, 1, 0, updated_at, ROUND), words(8))
    with pytest.raises(SourceFailed, match="not a price"):
        await read(call)


async def test_absurd_decimals_are_refused() -> None:
    with pytest.raises(SourceFailed, match="not a price"):
        await read(contract(decimals=2**255))


@pytest.mark.parametrize("data", ["0x", "", words(1, 2, 3, 4), words(1, 2, 3, 4, 5) + "0", "0x" + "zz" * 160])
async def test_a_contract_that_is_no_feed_is_refused(data: str) -> None:
    with pytest.raises(SourceFailed, match="does not answer as a price feed"):
        await read(says(data, words(8)))


async def test_of_several_feeds_for_one_token_the_newest_answer_counts() -> None:
    source = chainlink(
        ChainlinkFeed("ETH", FEED, contract(1, updated_at=UPDATED_AT - 1)),
        ChainlinkFeed("ETH", FEED, contract(200000000, updated_at=UPDATED_AT)),
        ChainlinkFeed("ETH", FEED, contract(3, updated_at=UPDATED_AT - 2)),
        ChainlinkFeed("BTC", FEED, unreachable),
    )
    found = await source.fetch([Asset("ETH"), Asset("LTC")])
    assert {token: seen.price_usd for token, seen in found.items()} == {"ETH": Decimal(2)}


async def test_a_feed_that_fails_or_hangs_does_not_take_the_others_with_it() -> None:
    source = chainlink(
        ChainlinkFeed("ETH", FEED, unreachable),
        ChainlinkFeed("BNB", FEED, hanging),
        ChainlinkFeed("POL", FEED, contract(50000000)),
    )
    found = await source.fetch([Asset("ETH"), Asset("BNB"), Asset("POL")])
    assert {token: seen.price_usd for token, seen in found.items()} == {"POL": Decimal("0.5")}


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (unreachable, "The node cannot be asked for the ETH feed (ConnectionError)"),
        (hanging, "The node did not answer for the ETH feed within 0.1 s"),
    ],
)
async def test_when_all_feeds_fail_the_source_fails_without_telling_the_node_s_address(
    call: EthCall, sentence: str
) -> None:
    with pytest.raises(SourceFailed) as raised:
        await chainlink(ChainlinkFeed("ETH", FEED, call)).fetch([Asset("ETH")])
    assert str(raised.value) == sentence


async def test_no_feeds_are_no_failure() -> None:
    assert await chainlink().fetch([Asset("ETH")]) == {}
