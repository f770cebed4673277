"""`callbackUrl`: http(s), and no private host in any spelling unless the operator allowed it."""

import httpx
import pytest
from fastapi import FastAPI
from tests.api.support import next_index, problem
from tests.builders import AS_PLATFORM, litecoin, register

from keyserver.kit.egress import EgressPolicy

PRIVATE = [
    "http://localhost/",
    "http://LOCALHOST:8080/",
    "http://localhost./",
    "http://sub.localhost/",
    "http://router/",
    "http://db.internal/",
    "http://printer.local/",
    "http://127.0.0.1/",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0177.0.0.1/",
    "http://127.0.0.1./",
    "http://0.0.0.0/",
    "http://0/",
    "http://10.1.2.3/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[0:0:0:0:0:ffff:10.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fd00::1]/",
    "http://[ff02::1]/",
    "http://[2002:7f00:1::]/",
    "http://\uff11\uff12\uff17.\uff10.\uff10.\uff11/",
    "http://\u24dbocalhost/",
    "http://127\u30020\u30020\u30021/",
]
NO_TARGETS = [
    "",
    " ",
    "example.com/hook",
    "//example.com/hook",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://example.com/",
    "javascript:alert(1)",
    "data:text/plain,hi",
    "http://",
    "http:///path",
    "http://user:password@example.com/",
    "http://example.com@127.0.0.1/",
    "http://example.com:0/",
    "http://example.com:99999/",
    "http://example.com:x/",
    "http://exa mple.com/",
    "http://example.com/\r\nX-Evil: 1",
    "http://example.com\\@127.0.0.1/",
    "http://[::1",
    "http://-bad-.example.com/",
    "https://example.com/" + "x" * 2048,
]
PUBLIC = [
    "https://example.com/hook",
    "http://example.com",
    "HTTPS://EXAMPLE.COM/Hook?a=1&b=%20#part",
    "https://shop.example.co.uk:8443/payments/callback",
    "https://93.184.215.14/hook",
    "https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/hook",
    "https://bücher.example/hook",
    "https://xn--bcher-kva.example/hook",
]


@pytest.fixture
async def shop(api: httpx.AsyncClient, app: FastAPI) -> httpx.AsyncClient:
    """The API with LTC, and with nothing private allowed."""
    app.state.egress = EgressPolicy()
    await register(api, litecoin())
    return api


async def ask(api: httpx.AsyncClient, url: str) -> httpx.Response:
    return await api.post("/charges", json={"chain": "LTC", "amountUsd": 5, "callbackUrl": url}, headers=AS_PLATFORM)


async def test_private_hosts_and_what_is_no_http_url_are_400_and_spend_no_address(shop: httpx.AsyncClient) -> None:
    for url in (*PRIVATE, *NO_TARGETS):
        answer = await ask(shop, url)
        assert answer.status_code == 400, url
        assert problem(answer, 400)["errors"][0]["pointer"] == "/callbackUrl", url
    assert await next_index(shop) == 0


async def test_public_urls_are_taken_and_kept_as_they_were_written(shop: httpx.AsyncClient) -> None:
    for url in PUBLIC:
        answer = await ask(shop, url)
        assert answer.status_code == 201, (url, answer.text)
        found = await shop.get(f"/charges/{answer.json()['chargeId']}", headers=AS_PLATFORM)
        assert found.json()["callbackUrl"] == url


async def test_a_private_host_that_the_operator_allowed_is_taken(shop: httpx.AsyncClient, app: FastAPI) -> None:
    app.state.egress = EgressPolicy(("10.0.0.0/8", "orders.internal"))
    for url, status in {
        "http://10.1.2.3:3000/hook": 201,
        "http://[::ffff:10.1.2.3]/hook": 201,
        "http://orders.internal/hook": 201,
        "http://other.internal/hook": 400,
        "http://192.168.0.1/hook": 400,
    }.items():
        assert (await ask(shop, url)).status_code == status, url
