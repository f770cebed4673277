"""Which addresses may be called: judged as a URL is given, and again as a connection is opened."""

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st

from keyserver.kit.egress import EgressPolicy, RefusedAddress, RefusedUrl, ThreadedResolver, guarded_session, origin

NOTHING_ALLOWED = EgressPolicy()
LOOPBACK_ALLOWED = EgressPolicy(["127.0.0.0/8"])


class Names(AbstractResolver):
    """DNS as a test wants it; every look-up is counted."""

    def __init__(self, **addresses: list[str]) -> None:
        self.addresses = {name.replace("_", "."): found for name, found in addresses.items()}
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        if host not in self.addresses:
            raise OSError(None, "unknown host")
        return [
            ResolveResult(hostname=host, host=ip, port=port, family=family, proto=0, flags=0)
            for ip in self.addresses[host]
        ]

    async def close(self) -> None: ...


@asynccontextmanager
async def a_server(status: int = 200, **headers: str) -> AsyncIterator[tuple[int, list[web.BaseRequest]]]:
    """Port of a real server on loopback, and the requests it got."""
    requests: list[web.BaseRequest] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        requests.append(request)
        return web.Response(status=status, headers={name.replace("_", "-"): value for name, value in headers.items()})

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1], requests
    finally:
        await runner.cleanup()


# --- addresses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",  # noqa: S104 - an address to refuse, nothing binds to it
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.200",  # Alibaba's metadata
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",  # Azure's metadata
        "169.254.169.254",  # everybody else's
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",  # Oracle's metadata
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",  # IPv4-compatible
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::8.8.8.8",
        "100::1",
        "2001::1",  # Teredo
        "2001:2::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "2002:808:808::1",
        "3fff::1",
        "4000::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",  # Amazon's metadata
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
    ],
)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert NOTHING_ALLOWED.refuses(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "8.8.8.8",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2606:4700:4700::1111",
        "2001:200::1",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
    ],
)
def test_a_public_address_may_be_called(address: str) -> None:
    assert NOTHING_ALLOWED.refuses(ipaddress.ip_address(address)) is None


@given(st.ip_addresses())
def test_nothing_that_the_standard_library_calls_private_may_be_called(ip: ipaddress.IPv4Address) -> None:
    if NOTHING_ALLOWED.refuses(ip) is None:
        inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip.is_reserved else ip
        assert inner.is_global
        assert not inner.is_multicast


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_alike_in_its_ipv6_clothes(ip: ipaddress.IPv4Address) -> None:
    for prefix in ("::ffff:0:0", "64:ff9b::"):
        dressed = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | int(ip))
        assert NOTHING_ALLOWED.refuses(dressed) == NOTHING_ALLOWED.refuses(ip)


def test_an_allowed_network_wins_and_its_neighbours_stay_refused() -> None:
    policy = EgressPolicy(["10.1.0.0/16", "fd00::/8", "192.168.0.7"])
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd12::1", "192.168.0.7"):
        assert policy.refuses(ipaddress.ip_address(address)) is None
    for address in ("10.2.0.1", "fc00::1", "192.168.0.8"):
        assert policy.refuses(ipaddress.ip_address(address)) == "private"


@pytest.mark.parametrize(
    "entry",
    ["10.0.0.0/33", "10.0.0.1/8", "http://internal", "host:80", "127.1", "0x7f.1", "2130706433", "", "*.lan", "a b"],
)
def test_a_wrong_entry_of_the_allow_list_is_named(entry: str) -> None:
    with pytest.raises(ValueError, match="is not a CIDR, an IP address or a host name") as caught:
        EgressPolicy(["10.0.0.0/8", entry])
    assert repr(entry) in str(caught.value)


# --- URLs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com/hook?token=abc#part",
        "http://hooks.example.com:8080/a/b",
        "HTTPS://Example.COM./",
        "http://8.8.8.8/",
        "http://[2606:4700:4700::1111]:8443/",
        "https://münchen.example.com/",
        "https://a_b.example.com/",
        "https://localhost.example.com/",
        "https://0x7f.example.com/",
        "https://example.com/a@b",
    ],
)
def test_a_public_url_is_accepted(url: str) -> None:
    NOTHING_ALLOWED.check_url(url)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", "must start with http"),
        ("example.com", "must start with http"),
        ("ftp://example.com", "must start with http"),
        ("file:///etc/passwd", "must start with http"),
        ("javascript:alert(1)", "must start with http"),
        ("gopher://127.0.0.1:70/", "must start with http"),
        ("http:example.com", "no host"),
        ("http:///path", "no host"),
        ("http://user:pass@example.com", "credentials"),
        ("http://user@example.com", "credentials"),
        ("http://@example.com", "credentials"),
        ("http://8.8.8.8@127.0.0.1/", "credentials"),
        ("http://example.com:0/", "port"),
        ("http://example.com:99999/", "not valid"),
        ("http://example.com:8o/", "not valid"),
        ("http://example.com:-1/", "not valid"),
        ("http://example.com:+80/", "not valid"),
        ("http://example.com:\uff18\uff10/", "not valid"),
        ("http://example.com:80:80/", "not valid"),
        ("http://example.com/" + "a" * 2048, "2048 characters"),
        ("http://exa\tmple.com/", "white space"),
        ("http://example.com/\r\nhost: x", "white space"),
        (" http://example.com/", "white space"),
        ("http://example.com/a b", "white space"),
        ("http://example.com/\x00", "control character"),
        ("http://example.com/\u202e", "control character"),
        ("http://example\u00ad.com/", "control character"),
        ("http://example.com/\ud800", "control character"),
        ("http://example.com\\@127.0.0.1/", "backslash"),
        ("http:\\\\127.0.0.1/", "backslash"),
        ("http://127.0.0.1/", "loopback"),
        ("http://10.0.0.1:8080/", "private"),
        ("http://169.254.169.254/latest/meta-data", "link-local"),
        ("http://0.0.0.0/", "unspecified"),
        ("http://2130706433/", "four decimal numbers"),
        ("http://017700000001/", "four decimal numbers"),
        ("http://0177.0.0.1/", "four decimal numbers"),
        ("http://0x7f.1/", "four decimal numbers"),
        ("http://0X7F000001/", "four decimal numbers"),
        ("http://127.1/", "four decimal numbers"),
        ("http://127.0.0.1./", "four decimal numbers"),
        ("http://0/", "four decimal numbers"),
        ("http://1.2.3.4.5/", "four decimal numbers"),
        ("http://127.0.0.0x1/", "four decimal numbers"),
        ("http://[::1]/", "loopback"),
        ("http://[::ffff:127.0.0.1]/", "loopback"),
        ("http://[::ffff:7f00:1]/", "loopback"),
        ("http://[0:0:0:0:0:0:0:1]/", "loopback"),
        ("http://[64:ff9b::a00:1]/", "private"),
        ("http://[fe80::1%25eth0]/", "link-local"),
        ("http://[::1/", "not valid"),
        ("http://[v1.a]/", "not valid"),
        ("http://\uff11\uff12\uff17.\uff10.\uff10.\uff11/", "loopback"),
        ("http://127。0。0。1/", "loopback"),
        ("http://①②⑦.0.0.1/", "loopback"),
        ("http://ⓛocalhost/", "local"),
        ("http://localhost/", "local"),
        ("http://LOCALHOST./", "local"),
        ("http://app.localhost/", "local"),
        ("http://printer.local/", "local"),
        ("http://metadata.google.internal/", "local"),
        ("http://platform:3000/", "local"),
        ("http://%31%32%37.0.0.1/", "not valid|four decimal"),
        ("http://exa%6dple.com/", "not valid"),
        ("http://a..b.com/", "not valid"),
        ("http://example.com../", "not valid"),
        ("http://./", "not valid"),
        ("http://-a.example.com/", "not valid"),
        ("http://" + "a" * 64 + ".com/", "not valid"),
        ("http://" + "a." * 130 + "com/", "not valid"),
    ],
)
def test_a_url_that_could_reach_inside_is_refused_in_one_sentence(url: str, sentence: str) -> None:
    with pytest.raises(RefusedUrl, match=sentence):
        NOTHING_ALLOWED.check_url(url)


def test_what_is_allowed_passes_by_address_and_by_name() -> None:
    policy = EgressPolicy(["127.0.0.0/8", "::1", "Platform", "hooks.internal."])
    for url in (
        "http://127.0.0.1:9000/",
        "http://[::1]/",
        "http://platform:3000/hook",
        "http://PLATFORM./",
        "http://hooks.internal/",
    ):
        policy.check_url(url)
    for url in ("http://other:3000/", "http://deeper.hooks.internal/", "http://10.0.0.1/"):
        with pytest.raises(RefusedUrl):
            policy.check_url(url)


@given(st.text(max_size=40), st.sampled_from(["", "http://", "https://", "http://[", "http://127.0.0.1"]))
def test_any_text_is_accepted_or_refused_but_nothing_else(text: str, start: str) -> None:
    with contextlib.suppress(RefusedUrl):
        NOTHING_ALLOWED.check_url(start + text)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["{0}", "0x{0:x}", "0{0:o}", "[::ffff:{1}]"]))
def test_no_spelling_of_an_address_says_more_than_the_address(number: int, spelling: str) -> None:
    ip = ipaddress.IPv4Address(number)
    url = f"http://{spelling.format(number, ip)}/"
    if NOTHING_ALLOWED.refuses(ip):
        with pytest.raises(RefusedUrl):
            NOTHING_ALLOWED.check_url(url)
    elif "[" in spelling:
        NOTHING_ALLOWED.check_url(url)


def test_the_origin_tells_receivers_apart() -> None:
    assert origin("https://Example.com/a?b") == "https://example.com:443"
    assert origin("http://example.com.:80/") == "http://example.com:80"
    assert origin("http://[::1]:8080/x") == "http://[::1]:8080"


# --- connections ------------------------------------------------------------------------------------------------


def refusal_of(caught: pytest.ExceptionInfo[aiohttp.ClientConnectorError]) -> OSError:
    assert isinstance(caught.value.os_error, RefusedAddress)
    return caught.value.os_error


async def test_a_literal_private_address_is_refused_before_a_packet_leaves() -> None:
    async with a_server() as (port, requests), guarded_session(NOTHING_ALLOWED, timeout=2) as session:
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await session.post(f"http://127.0.0.1:{port}/")
        assert "loopback" in str(refusal_of(caught))
        assert requests == []


async def test_an_allowed_address_is_called() -> None:
    async with a_server() as (port, requests), guarded_session(LOOPBACK_ALLOWED, timeout=2) as session:
        async with session.post(f"http://127.0.0.1:{port}/") as response:
            assert response.status == 200
        assert len(requests) == 1


async def test_a_name_that_resolves_inside_is_refused() -> None:
    names = Names(hooks_example_com=["127.0.0.1"])
    async with (
        a_server() as (port, requests),
        guarded_session(NOTHING_ALLOWED, timeout=2, resolver=names) as session,
    ):
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await session.post(f"http://hooks.example.com:{port}/")
        refusal_of(caught)
        assert requests == []


async def test_a_name_is_looked_up_for_every_connection_so_that_a_changed_answer_is_judged_again() -> None:
    names = Names(hooks_example_com=["127.0.0.1"])
    policy = EgressPolicy(["127.0.0.1"])
    async with a_server() as (port, _), guarded_session(policy, timeout=2, resolver=names) as session:
        async with session.post(f"http://hooks.example.com:{port}/") as response:
            assert response.status == 200
        names.addresses["hooks.example.com"] = ["127.0.0.2"]
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await session.post(f"http://hooks.example.com:{port}/")
        refusal_of(caught)
    assert names.asked == ["hooks.example.com"] * 2


async def test_of_several_addresses_only_the_permitted_ones_are_called() -> None:
    names = Names(hooks_example_com=["10.0.0.1", "127.0.0.1"])
    async with a_server() as (port, requests), guarded_session(LOOPBACK_ALLOWED, timeout=2, resolver=names) as session:
        async with session.post(f"http://hooks.example.com:{port}/") as response:
            assert response.status == 200
        assert len(requests) == 1


async def test_an_allowed_name_allows_what_it_resolves_to_and_nothing_else() -> None:
    names = Names(platform=["127.0.0.1"], other=["127.0.0.1"])
    policy = EgressPolicy(["platform"])
    async with a_server() as (port, requests), guarded_session(policy, timeout=2, resolver=names) as session:
        async with session.post(f"http://Platform:{port}/") as response:
            assert response.status == 200
        for url in (f"http://other:{port}/", f"http://127.0.0.1:{port}/"):
            with pytest.raises(aiohttp.ClientConnectorError) as caught:
                await session.post(url)
            refusal_of(caught)
        assert len(requests) == 1


async def test_a_resolver_that_answers_no_address_is_refused() -> None:
    names = Names(hooks_example_com=["127.1"])
    async with guarded_session(LOOPBACK_ALLOWED, timeout=2, resolver=names) as session:
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await session.post("http://hooks.example.com/")
        refusal_of(caught)


@pytest.mark.parametrize("host", ["0x7f.1", "127.1", "0177.0.0.1", "2130706433", "[::ffff:127.0.0.1]", "localhost"])
async def test_no_spelling_of_loopback_is_connected_to(host: str) -> None:
    async with a_server() as (port, requests), guarded_session(NOTHING_ALLOWED, timeout=2) as session:
        with pytest.raises(aiohttp.ClientError):
            await session.post(f"http://{host}:{port}/")
        assert requests == []


async def test_redirects_are_not_followed_even_when_the_caller_forgets_to_say_so() -> None:
    async with a_server() as (inside, reached):
        away = a_server(307, location=f"http://127.0.0.1:{inside}/")
        async with away as (port, _), guarded_session(LOOPBACK_ALLOWED, timeout=2) as session:
            with pytest.raises(aiohttp.ClientError, match="redirects are not followed"):
                await session.post(f"http://127.0.0.1:{port}/")
    assert reached == []


async def test_cookies_and_proxies_of_the_environment_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    setting = a_server(set_cookie="a=b")
    async with setting as (port, requests), guarded_session(LOOPBACK_ALLOWED, timeout=2) as session:
        for _ in range(2):
            async with session.post(f"http://127.0.0.1:{port}/") as response:
                assert response.status == 200
        assert [request.headers.get("cookie") for request in requests] == [None, None]


async def test_a_look_up_that_hangs_holds_up_neither_the_loop_nor_other_look_ups(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release = threading.Event()
    real = socket.getaddrinfo

    def slow(host: str, *arguments: int) -> list[object]:
        if host == "slow.example.com":
            release.wait(5)
        return list(real("127.0.0.1", *arguments))

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    resolver = ThreadedResolver()
    hanging = asyncio.create_task(resolver.resolve("slow.example.com", 80))
    try:
        found = await asyncio.wait_for(resolver.resolve("quick.example.com", 80), 1)
        assert [result["host"] for result in found] == ["127.0.0.1"]
        assert not hanging.done()
    finally:
        release.set()
        await hanging
        await resolver.close()
