"""The web sources, against a real HTTP server on loopback that answers in each API's documented shape."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from aiohttp import web
from tests.pricing.site import Site, a_site

from keyserver.kit.clock import Clock
from keyserver.pricing.ports import Asset, PriceSource, SourceFailed
from keyserver.pricing.sources.coinbase import Coinbase
from keyserver.pricing.sources.coingecko import CoinGecko
from keyserver.pricing.sources.kraken import Kraken

NOW = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)
EPOCH = int(NOW.timestamp())


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with a_site() as site:
        yield site


def frozen_clock() -> datetime:
    return NOW


Make = Callable[..., PriceSource]
every_source = pytest.mark.parametrize("make", [CoinGecko, Kraken, Coinbase])


def assets(*tokens: str) -> list[Asset]:
    return [Asset(token) for token in tokens]


async def prices(source: PriceSource, *asked: str | Asset) -> dict[str, Decimal]:
    wanted = [one if isinstance(one, Asset) else Asset(one) for one in asked]
    return {token: seen.price_usd for token, seen in (await source.fetch(wanted)).items()}


async def failure(source: PriceSource) -> SourceFailed:
    with pytest.raises(SourceFailed) as raised:
        await source.fetch(assets("BTC"))
    return raised.value


# --- CoinGecko --------------------------------------------------------------------------------------------------


def coingecko(site: Site, *, api_key: str | None = None) -> CoinGecko:
    return CoinGecko(clock=frozen_clock, base_url=site.url, api_key=api_key)


async def test_coingecko_prices_are_exact_and_carry_its_own_time(site: Site) -> None:
    site.answers(
        b'{"bitcoin": {"usd": 67187.335893656612345678, "last_updated_at": 1711356300},'
        b' "litecoin": {"usd": 1e-9, "last_updated_at": 1711356299}}'
    )
    found = await coingecko(site).fetch(assets("BTC", "LTC"))
    assert found["BTC"].price_usd == Decimal("67187.335893656612345678")
    assert found["BTC"].observed_at == datetime(2024, 3, 25, 8, 45, tzinfo=UTC)
    assert found["LTC"].price_usd == Decimal("0.000000001")


async def test_coingecko_is_asked_once_for_all_assets_by_its_ids(site: Site) -> None:
    site.answers({"polygon-ecosystem-token": {"usd": 0.25, "last_updated_at": EPOCH}})
    asked = [*assets("POL", "MATIC", "BTC", "NOBODYKNOWS"), Asset("UNI", oracle_asset_id="uniswap")]
    assert await prices(coingecko(site), *asked) == {"POL": Decimal("0.25"), "MATIC": Decimal("0.25")}
    (request,) = site.requests
    assert request.path == "/simple/price"
    assert dict(request.query) == {
        "ids": "bitcoin,polygon-ecosystem-token,uniswap",
        "vs_currencies": "usd",
        "include_last_updated_at": "true",
    }


async def test_coingecko_prices_the_coin_the_operator_named(site: Site) -> None:
    site.answers({"unicorn": {"usd": 2, "last_updated_at": EPOCH}, "bitcoin": {"usd": 9, "last_updated_at": EPOCH}})
    assert await prices(coingecko(site), Asset("BTC", oracle_asset_id="unicorn")) == {"BTC": Decimal(2)}


@pytest.mark.parametrize(
    "entry",
    [
        {},
        None,
        7,
        {"usd": None, "last_updated_at": EPOCH},
        {"usd": 0, "last_updated_at": EPOCH},
        {"usd": -1.5, "last_updated_at": EPOCH},
        {"usd": True, "last_updated_at": EPOCH},
        {"usd": "12,5", "last_updated_at": EPOCH},
        {"usd": "Infinity", "last_updated_at": EPOCH},
        {"usd": 1_000_000_000_000, "last_updated_at": EPOCH},
        {"usd": 1e-61, "last_updated_at": EPOCH},
        {"usd": 12.5},
        {"usd": 12.5, "last_updated_at": None},
        {"usd": 12.5, "last_updated_at": EPOCH * 1000},
        {"usd": 12.5, "last_updated_at": 12.5},
    ],
)
async def test_coingecko_members_that_are_missing_or_strange_leave_that_asset_out(site: Site, entry: Any) -> None:
    site.answers({"bitcoin": entry, "litecoin": {"usd": 80, "last_updated_at": EPOCH}})
    assert await prices(coingecko(site), "BTC", "LTC") == {"LTC": Decimal(80)}


async def test_coingecko_gets_the_key_in_a_header_that_shows_nowhere(site: Site) -> None:
    site.answers({}, status=401)
    source = coingecko(site, api_key="a-demo-key")
    error = await failure(source)
    assert site.requests[0].headers["x-cg-demo-api-key"] == "a-demo-key"
    assert "a-demo-key" not in site.requests[0].path_qs + str(error) + repr(vars(source))


async def test_coingecko_is_not_asked_when_it_knows_none_of_the_assets(site: Site) -> None:
    assert await prices(coingecko(site), "NOBODYKNOWS") == {}
    assert site.requests == []


# --- Kraken -----------------------------------------------------------------------------------------------------


def entry(bid: str, ask: str, last: str) -> dict[str, Any]:
    """One pair's ticker in the documented shape."""
    return {
        "a": [ask, "1", "1.000"],
        "b": [bid, "1", "1.000"],
        "c": [last, "0.00067643"],
        "v": ["4083.67001100", "4412.73601799"],
        "p": ["30706.77771", "30689.13205"],
        "t": [34619, 38907],
        "l": ["29868.30000", "29868.30000"],
        "h": ["31631.00000", "31631.00000"],
        "o": "30502.80000",
    }


class FakeKraken:
    """Lists these pairs as Kraken does: asked by short name, answered by long, one unknown pair fails everything."""

    def __init__(self, listed: dict[str, dict[str, Any]], *, short_names: dict[str, str]) -> None:
        self.listed = listed
        self.short_names = short_names

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        assert request.path == "/0/public/Ticker"
        asked = request.query.get("pair")
        names = list(self.listed) if asked is None else [self.short_names.get(p, p) for p in asked.split(",")]
        if any(name not in self.listed for name in names):
            return web.json_response({"error": ["EQuery:Unknown asset pair"]})
        return web.json_response({"error": [], "result": {name: self.listed[name] for name in names}})


def a_kraken() -> FakeKraken:
    return FakeKraken(
        {
            "XXBTZUSD": entry("30300.00000", "30300.10000", "30300.05000"),
            "XDGUSD": entry("0.17", "0.171", "0.1705"),
            "USDTZUSD": entry("0.9998", "0.9999", "0.9999"),
            "SOLUSD": entry("150", "151", "150.5"),
        },
        short_names={"XBTUSD": "XXBTZUSD", "USDTUSD": "USDTZUSD"},
    )


def kraken(site: Site, *, clock: Clock = frozen_clock) -> Kraken:
    return Kraken(clock=clock, base_url=site.url)


async def test_kraken_pairs_are_found_under_its_own_names(site: Site) -> None:
    site.answers_with(a_kraken())
    found = await kraken(site).fetch(assets("BTC", "DOGE", "USDT", "SOL", "NOBODYKNOWS"))
    assert {token: seen.price_usd for token, seen in found.items()} == {
        "BTC": Decimal("30300.05"),
        "DOGE": Decimal("0.1705"),
        "USDT": Decimal("0.9999"),
        "SOL": Decimal("150.5"),
    }
    assert found["BTC"].observed_at == NOW


async def test_kraken_is_asked_for_everything_once_and_then_only_for_what_it_lists(site: Site) -> None:
    site.answers_with(a_kraken())
    source = kraken(site)
    for _ in range(3):
        assert await prices(source, "BTC", "SOL", "NOBODYKNOWS") == {
            "BTC": Decimal("30300.05"),
            "SOL": Decimal("150.5"),
        }
    assert [dict(request.query) for request in site.requests] == [
        {},
        {"pair": "SOLUSD,XBTUSD"},
        {"pair": "SOLUSD,XBTUSD"},
    ]


async def test_kraken_is_asked_for_everything_again_when_an_asset_joins(site: Site) -> None:
    site.answers_with(a_kraken())
    source = kraken(site)
    await prices(source, "BTC")
    assert "SOL" in await prices(source, "BTC", "SOL")
    assert "pair" not in site.requests[1].query


async def test_kraken_is_asked_for_everything_again_every_day(site: Site) -> None:
    fake, times = a_kraken(), [NOW]
    site.answers_with(fake)
    source = kraken(site, clock=lambda: times[-1])
    assert await prices(source, "BTC", "NEW") == {"BTC": Decimal("30300.05")}
    fake.listed["NEWUSD"] = entry("1", "2", "1.5")
    times.append(NOW + timedelta(hours=23))
    assert "NEW" not in await prices(source, "BTC", "NEW")
    times.append(NOW + timedelta(hours=25))
    assert "NEW" in await prices(source, "BTC", "NEW")


async def test_a_pair_kraken_no_longer_lists_costs_the_others_nothing(site: Site) -> None:
    fake = a_kraken()
    site.answers_with(fake)
    source = kraken(site)
    await prices(source, "BTC", "SOL")
    del fake.listed["SOLUSD"]
    assert await prices(source, "BTC", "SOL") == {"BTC": Decimal("30300.05")}
    assert await prices(source, "BTC", "SOL") == {"BTC": Decimal("30300.05")}
    assert [request.query.get("pair") for request in site.requests] == [None, "SOLUSD,XBTUSD", None, "XBTUSD"]


@pytest.mark.parametrize(("last", "expected"), [("29000", "30300"), ("31000", "30300.1"), ("30300.07", "30300.07")])
async def test_an_old_last_trade_does_not_pull_the_kraken_price_out_of_the_book(
    site: Site, last: str, expected: str
) -> None:
    site.answers({"error": [], "result": {"XXBTZUSD": entry("30300", "30300.1", last)}})
    assert await prices(kraken(site), "BTC") == {"BTC": Decimal(expected)}


@pytest.mark.parametrize("member", ["a", "b", "c"])
@pytest.mark.parametrize("strange", [None, [], "30300", ["0.00000", "0", "0.000"], [None], {}])
async def test_a_kraken_pair_without_a_whole_book_is_left_out(site: Site, member: str, strange: Any) -> None:
    broken = entry("150", "151", "150") | {member: strange}
    site.answers({"error": [], "result": {"SOLUSD": broken, "XXBTZUSD": entry("1", "1", "1")}})
    assert await prices(kraken(site), "SOL", "BTC") == {"BTC": Decimal(1)}


async def test_kraken_errors_beside_a_result_are_about_other_pairs(site: Site) -> None:
    site.answers({"error": ["EQuery:Unknown asset pair"], "result": {"SOLUSD": entry("150", "151", "150.5")}})
    assert await prices(kraken(site), "SOL") == {"SOL": Decimal("150.5")}


@pytest.mark.parametrize("answer", [{"error": ["EAPI:Rate limit exceeded"]}, {"error": ["EAPI:\x00"], "result": {}}])
async def test_a_kraken_error_in_a_200_is_a_failure_with_its_words(site: Site, answer: dict[str, Any]) -> None:
    site.answers(answer)
    error = await failure(kraken(site))
    assert str(error).startswith("Kraken answered 'EAPI:")
    assert "\x00" not in str(error)


async def test_symbols_the_operator_gave_another_meaning_are_not_taken_from_exchanges(site: Site) -> None:
    site.answers_with(a_kraken())
    other_coin = Asset("SOL", oracle_asset_id="some-other-sol")
    same_coin = Asset("BTC", oracle_asset_id="bitcoin")
    assert await prices(kraken(site), other_coin, same_coin) == {"BTC": Decimal("30300.05")}
    site.answers(rates(SOL="0.01", BTC="0.00001"))
    assert await prices(Coinbase(clock=frozen_clock, base_url=site.url), other_coin, same_coin) == {
        "BTC": Decimal(100000)
    }


# --- Coinbase ---------------------------------------------------------------------------------------------------


def rates(**rates: Any) -> dict[str, Any]:
    return {"data": {"currency": "USD", "rates": {"EUR": "0.92", **rates}}}


def coinbase(site: Site) -> Coinbase:
    return Coinbase(clock=frozen_clock, base_url=site.url)


async def test_coinbase_prices_are_the_inverse_of_its_rates_with_thirty_digits(site: Site) -> None:
    site.answers(rates(AAVE="0.0099840255591054", POL="4"))
    found = await coinbase(site).fetch(assets("AAVE", "MATIC", "NOBODYKNOWS"))
    assert abs(Fraction(found["AAVE"].price_usd) * Fraction("0.0099840255591054") - 1) < Fraction(1, 10**29)
    assert found["MATIC"].price_usd == Decimal("0.25")
    assert set(found) == {"AAVE", "MATIC"}
    assert found["AAVE"].observed_at == NOW
    (request,) = site.requests
    assert request.path_qs == "/v2/exchange-rates?currency=USD"


async def test_coinbase_does_not_count_its_promise_for_usdc_as_a_market(site: Site) -> None:
    site.answers(rates(USDC="1.0", USDT="1.0004"))
    assert set(await prices(coinbase(site), "USDC", "USDT")) == {"USDT"}


@pytest.mark.parametrize("rate", [None, 0, "0", "-1", "", "NaN", "1e-13", "1_0", " 2", "٣", [], "1e999"])
async def test_a_strange_coinbase_rate_leaves_that_asset_out(site: Site, rate: Any) -> None:
    site.answers(rates(BTC=rate, LTC="0.0125"))
    assert await prices(coinbase(site), "BTC", "LTC") == {"LTC": Decimal(80)}


async def test_coinbase_rates_of_another_currency_are_refused(site: Site) -> None:
    site.answers({"data": {"currency": "BTC", "rates": {"BTC": "1.0"}}})
    assert str(await failure(coinbase(site))) == "Coinbase answered something other than rates of the US dollar"


# --- what all of them do when the answer is no answer ------------------------------------------------------------


@every_source
@pytest.mark.parametrize("status", [301, 400, 403, 404, 500, 503, 599])
async def test_a_status_other_than_200_is_a_failure_that_names_it(site: Site, make: Make, status: int) -> None:
    site.answers({}, status=status, headers={"location": site.url})
    assert f" answered {status}" in str(await failure(make(clock=frozen_clock, base_url=site.url)))
    assert len(site.requests) == 1


@every_source
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("60", 60),
        ("Sat, 01 Mar 2025 12:01:30 GMT", 90),
        ("Sat, 01 Mar 2025 11:00:00 GMT", 0),
        ("soon", None),
        ("-5", None),
    ],
)
async def test_the_patience_a_source_asks_for_is_passed_on(
    site: Site, make: Make, header: str, seconds: float | None
) -> None:
    site.answers({}, status=429, headers={"retry-after": header})
    error = await failure(make(clock=frozen_clock, base_url=site.url))
    assert str(error).endswith(" answered 429 Too Many Requests")
    assert error.retry_after == seconds


@every_source
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Just a moment</html>",
        b"{",
        b'{"a": NaN}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a": 1e99999999999999999999}',
    ],
)
async def test_garbage_is_a_failure(site: Site, make: Make, body: bytes) -> None:
    site.answers(body)
    assert str(await failure(make(clock=frozen_clock, base_url=site.url))).endswith(
        " answered something that is not JSON"
    )


@every_source
@pytest.mark.parametrize("document", [[], None, 7, "", [{"bitcoin": {"usd": 1}}]])
async def test_json_of_another_shape_is_a_failure(site: Site, make: Make, document: Any) -> None:
    site.answers(document)
    error = await failure(make(clock=frozen_clock, base_url=site.url))
    assert " answered something other than " in str(error)


@pytest.mark.parametrize("make", [Kraken, Coinbase])
@pytest.mark.parametrize(
    "document", [{}, {"data": [], "result": [], "error": "no"}, {"result": {}, "data": {"rates": 1}}]
)
async def test_an_object_without_its_members_is_a_failure(site: Site, make: Make, document: Any) -> None:
    site.answers(document)
    error = await failure(make(clock=frozen_clock, base_url=site.url))
    assert " answered something other than " in str(error)


@every_source
async def test_an_endless_answer_is_cut_off(site: Site, make: Make) -> None:
    site.answers(gzip.compress(b" " * (1024 * 1024 + 1)), headers={"content-encoding": "gzip"})
    assert str(await failure(make(clock=frozen_clock, base_url=site.url))).endswith(" answered more than 1048576 bytes")


@every_source
async def test_a_source_that_drips_is_given_up_at_the_time_limit(site: Site, make: Make) -> None:
    released = asyncio.Event()

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while not released.is_set():
            try:
                await response.write(b" ")
            except ConnectionError:
                break
            await asyncio.sleep(0.01)
        return response

    site.answers_with(drip)
    error = await failure(make(clock=frozen_clock, base_url=site.url, time_limit=0.1))
    released.set()
    assert str(error).endswith(" did not answer within 0.1 s")


@every_source
async def test_a_source_that_cannot_be_reached_is_a_failure(make: Make, unused_tcp_port: int) -> None:
    error = await failure(make(clock=frozen_clock, base_url=f"http://127.0.0.1:{unused_tcp_port}"))
    assert str(error).endswith(" cannot be reached (ConnectError)")


@every_source
async def test_proxies_of_the_environment_are_not_used(
    site: Site, make: Make, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{unused_tcp_port}")
    site.answers({}, status=403)
    assert " answered 403 Forbidden" in str(await failure(make(clock=frozen_clock, base_url=site.url)))
