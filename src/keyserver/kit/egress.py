"""Which addresses may be called on a tenant's word, and a client that calls no other.

A tenant names a URL and we call it from inside the platform's network: without a guard that is a way to everything
that trusts our address. The URL is judged when it is given (`check_url`, without a look-up), and every address is
judged again when a connection is opened to it (`guarded_session`), since what a name resolves to changes at will.
"""

import asyncio
import functools
import ipaddress
import re
import socket
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_URL_LENGTH = 2048

#: IANA's special-purpose registries (RFC 6890 and its updates), and the one metadata service on a public address.
_SPECIAL: tuple[tuple[Network, str], ...] = tuple(
    (ipaddress.ip_network(network), why)
    for network, why in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared by a carrier's customers"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "for documentation"),
        ("192.88.99.0/24", "a 6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("168.63.129.16/32", "a cloud's metadata service"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("64:ff9b:1::/48", "a local translation prefix"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
        ("2001::/32", "Teredo"),
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "for documentation"),
        ("2002::/16", "6to4"),
        ("3fff::/20", "for documentation"),
    )
)
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
#: RFC 4291 (IPv4-mapped) and RFC 6052 (NAT64): a connection to one of these goes to the IPv4 host inside.
_STANDS_FOR_IPV4 = (ipaddress.IPv6Network("::ffff:0:0/96"), ipaddress.IPv6Network("64:ff9b::/96"))

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")
#: A last label of this form makes a host an IPv4 address, in one of inet_aton's spellings (URL standard, 3.5).
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LOCAL_SUFFIXES = ("localhost", "local", "internal")


class RefusedUrl(ValueError):
    """A URL that we won't call; one sentence for whoever gave it."""


class RefusedAddress(OSError):
    """A connection to an address that we won't call, stopped before its first packet."""


class EgressPolicy:
    """`allow` holds CIDRs, IP addresses and host names that may be called although they are not public.

    An allowed network wins over every rule; an allowed host name allows whatever it resolves to. ValueError names
    the first entry that is none of the three.
    """

    def __init__(self, allow: Sequence[str] = ()) -> None:
        networks: list[Network] = []
        hosts: set[str] = set()
        for entry in allow:
            parsed = _parse_entry(entry)
            if isinstance(parsed, str):
                hosts.add(parsed)
            else:
                networks.append(parsed)
        self._networks = tuple(networks)
        self._hosts = frozenset(hosts)

    def allows_host(self, host: str) -> bool:
        """Whether this host name (ASCII form) was allowed by name."""
        return host.lower().removesuffix(".") in self._hosts

    def refuses(self, ip: Address) -> str | None:
        """None when the address may be called, else what it is, as the end of "the address is …"."""
        if any(ip in network for network in self._networks):
            return None
        if isinstance(ip, ipaddress.IPv6Address) and any(ip in network for network in _STANDS_FOR_IPV4):
            return self.refuses(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
        for network, why in _SPECIAL:
            if ip in network:
                return why
        if ip.version == 6 and ip not in _GLOBAL_UNICAST:
            return "reserved"
        return None

    def check_url(self, url: str) -> None:
        """Raises RefusedUrl for a URL that could never be called. No look-up: names are judged when they are called."""
        _check_text(url)
        host = _host_of(url)
        ip = _literal(host)
        if ip is not None:
            if why := self.refuses(ip):
                raise RefusedUrl(f"The URL's address is {why}, which may not be called")
            return
        name = host.removesuffix(".")
        if not _HOST_NAME.fullmatch(name):
            raise RefusedUrl("The URL's host name is not valid")
        if not self.allows_host(name) and ("." not in name or name.rpartition(".")[2] in _LOCAL_SUFFIXES):
            raise RefusedUrl("The URL's host name is local, which may not be called")


def origin(url: str) -> str:
    """Scheme, host and port of a URL, for telling receivers apart: `https://example.com:443`. Never raises."""
    try:
        parsed = URL(url)
    except ValueError:
        return "unreadable"
    host = (parsed.raw_host or "").removesuffix(".")
    return f"{parsed.scheme}://{f'[{host}]' if ':' in host else host}:{parsed.port}"


def _parse_entry(entry: str) -> Network | str:
    text = entry.strip().lower()
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        name = text.removesuffix(".")
        looks_numeric = "/" in text or _NUMBER.fullmatch(name.rpartition(".")[2])
        if looks_numeric or not _HOST_NAME.fullmatch(name):
            reason = f": {error}" if "host bits" in str(error) else ""
            raise ValueError(f"{entry!r} is not a CIDR, an IP address or a host name{reason}") from None
        return name


# --- reading a URL as the client will ---------------------------------------------------------------------------


def _check_text(url: str) -> None:
    if len(url) > MAX_URL_LENGTH:
        raise RefusedUrl(f"The URL is over {MAX_URL_LENGTH} characters")
    for character in url:
        if character.isspace() or unicodedata.category(character)[0] in "CZ":
            raise RefusedUrl("The URL has white space or a control character in it")
    if "\\" in url:
        raise RefusedUrl("The URL has a backslash in it")


def _host_of(url: str) -> str:
    """The host that aiohttp will connect to: yarl reads the URL for both, so that the two never differ."""
    try:
        parsed = URL(url)
        authority, port = urlsplit(url).netloc, urlsplit(url).port
    except ValueError:
        raise RefusedUrl("The URL is not valid") from None
    if parsed.scheme not in {"http", "https"}:
        raise RefusedUrl("The URL must start with http:// or https://")
    if "@" in authority:
        raise RefusedUrl("The URL has credentials in it")
    if port == 0 or port != parsed.explicit_port:
        raise RefusedUrl("The URL's port is not valid")
    host = (parsed.raw_host or "").lower()
    if not host:
        raise RefusedUrl("The URL has no host")
    if ("[" in authority) != (":" in host):
        raise RefusedUrl("The URL's IPv6 address is not valid")
    return host


def _literal(host: str) -> Address | None:
    """The address a host spells out, None for a name. Spellings other than the usual one are refused."""
    if ":" in host:
        try:
            return ipaddress.IPv6Address(host)
        except ValueError:
            raise RefusedUrl("The URL's IPv6 address is not valid") from None
    name = host.removesuffix(".")
    if not _NUMBER.fullmatch(name.rpartition(".")[2]):
        return None
    try:
        return ipaddress.IPv4Address(host)
    except ValueError:
        raise RefusedUrl("The URL's host is a number: write an IPv4 address as four decimal numbers") from None


# --- the client -------------------------------------------------------------------------------------------------


class _AllowedByName(str):
    """An address that an allowed host name resolved to. It says so itself, down to where the socket is made."""

    __slots__ = ()


class ThreadedResolver(AbstractResolver):
    """getaddrinfo in threads of its own: a name server that hangs holds up neither the event loop nor other work."""

    def __init__(self, *, threads: int = 64) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="egress-dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        look_up = functools.partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=str(address[0]), port=port, family=kind, proto=protocol, flags=numeric)
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class _PolicyResolver(AbstractResolver):
    def __init__(self, policy: EgressPolicy, resolver: AbstractResolver) -> None:
        self._policy = policy
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if self._policy.allows_host(host):
            for result in found:
                result["host"] = _AllowedByName(result["host"])
        return found

    async def close(self) -> None:
        await self._resolver.close()


def _socket(policy: EgressPolicy, addr_info: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, sockaddr = addr_info
    host = sockaddr[0]
    if not isinstance(host, _AllowedByName):
        try:
            why = policy.refuses(ipaddress.ip_address(host))
        except ValueError:
            why = "no IP address"
        if why:
            raise RefusedAddress(f"The address {host} is {why}, which may not be called")
    return socket.socket(family, kind, protocol)


async def _refuse_redirect(*_: Any) -> NoReturn:
    raise aiohttp.ClientError("redirects are not followed")


def guarded_session(
    policy: EgressPolicy, *, timeout: float, resolver: AbstractResolver | None = None
) -> aiohttp.ClientSession:
    """A client that opens connections to allowed addresses only; RefusedAddress is the `os_error` of what it raises.

    `timeout` in seconds covers look-up, connection, request and answer. No redirects, cookies, proxies, decompression
    or kept connections: one that the receiver had closed meanwhile would fail a POST that nobody may repeat blindly.
    Call it inside the running event loop, and close it there.
    """
    redirects = aiohttp.TraceConfig()
    redirects.on_request_redirect.append(_refuse_redirect)
    connector = aiohttp.TCPConnector(
        limit=0,
        force_close=True,
        use_dns_cache=False,
        resolver=_PolicyResolver(policy, resolver or ThreadedResolver()),
        socket_factory=functools.partial(_socket, policy),
    )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=timeout),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        trace_configs=[redirects],
    )
