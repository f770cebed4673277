"""Private keys and recovery phrases: refused wherever they stand, and neither stored, logged nor echoed."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.addresses.account_keys import PRIVATE_VERSIONS, TEST_PHRASE, private_key, raw_private_key, spelt
from tests.api.support import count, problem
from tests.builders import AS_ADMIN, XPUB_COIN_1, litecoin, register
from tests.server import running_server

from keyserver.kit.db import Database

JSON = {"content-type": "application/json"}
#: Keys of the published BIP-39 test phrase, made at run time.
FORMS = {
    **{form: private_key("m/44'/1'/0'", form=form) for form in PRIVATE_VERSIONS},
    "wif": spelt(b"\x80" + raw_private_key() + b"\x01"),
    "testnet wif": spelt(b"\xef" + raw_private_key()),
    "raw": raw_private_key().hex(),
    "raw with 0x": "0x" + raw_private_key().hex().upper(),
    "phrase": TEST_PHRASE,
    "spaced phrase": "  " + TEST_PHRASE.replace(" ", "\n ").upper(),
    "descriptor": f"wpkh([d34db33f/84h/1h/0h]{private_key('m/44h/1h/0h'.replace('h', chr(39)), form='tprv')}/0/*)",
    "mistyped": private_key("m/44'/1'/0'")[:-3] + "abc",
    "prefixed": "key=" + private_key("m/44'/1'/0'"),
}
#: In these members a raw hexadecimal key cannot be told from a token.
NODE = {"rpc_url", "rpc_headers"}


def places(secret: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The body with the secret in each place it can stand."""
    for member in litecoin():
        if member not in NODE:
            yield member, litecoin(**{member: secret})
    yield "unknown", litecoin(notes={"backup": ["of", secret]})
    yield "a name", litecoin(**{secret: 1})
    yield "display_name", litecoin(display_name=f"wallet {secret}")
    yield "contract", litecoin(contract=secret)


async def refused(api: httpx.AsyncClient, body: dict[str, Any], secret: str) -> None:
    for answer in (
        await api.post("/admin/chains", json=body, headers=AS_ADMIN),
        await api.patch("/admin/chains/known", json=body, headers=AS_ADMIN),
    ):
        problem(answer, 400, "private_key_refused")
        assert secret not in answer.text and secret[:24] not in answer.text


async def test_every_form_is_refused_wherever_it_stands_in_the_body(
    api: httpx.AsyncClient, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    await register(api, litecoin(id="known"))
    for secret in FORMS.values():
        await refused(api, litecoin(xpub=secret), secret)
    for form in ("xprv", "phrase", "wif", "raw"):
        for place, body in places(FORMS[form]):
            if (form, place) != ("raw", "display_name"):
                await refused(api, body, FORMS[form])
    assert await count(database, "payment_methods") == 1
    printed = "".join(capsys.readouterr())
    assert not [form for form, secret in FORMS.items() if secret[:20] in printed]


async def test_private_keys_in_a_node_s_url_or_headers_are_refused(api: httpx.AsyncClient) -> None:
    await register(api, litecoin(id="known"))
    for form in ("xprv", "tprv", "wif"):
        await refused(api, litecoin(rpc_url=f"http://node.example/{FORMS[form]}"), FORMS[form])
        await refused(api, litecoin(rpc_headers={"x-key": FORMS[form]}), FORMS[form])
    await refused(api, litecoin(rpc_headers={"x-key": TEST_PHRASE}), TEST_PHRASE)


async def test_a_node_s_token_of_64_hexadecimal_digits_is_taken(api: httpx.AsyncClient) -> None:
    token = "5f" * 32
    body = litecoin(rpc_url=f"https://node.example/v1/{token}", rpc_headers={"x-token": token})
    await register(api, body)


async def test_a_private_key_in_a_body_that_is_no_json_is_not_echoed(api: httpx.AsyncClient) -> None:
    secret = FORMS["xprv"]
    for body in (f"xpub={secret}", secret, f'{{"xpub": "{secret}"', f'["{secret}"]'):
        for kind in ("application/json", "text/plain"):
            answer = await api.post("/admin/chains", content=body, headers={**AS_ADMIN, "content-type": kind})
            assert problem(answer, 400)
            assert secret[:20] not in answer.text


@pytest.mark.process
async def test_a_running_server_logs_nothing_of_what_it_was_sent(database_url: str, tmp_path: Path) -> None:
    node_password = "node-password-0123456789"
    async with (
        running_server(database_url, tmp_path, KEYSERVER_LOG_LEVEL="DEBUG") as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False) as api,
    ):
        for secret in FORMS.values():
            answer = await api.post("/admin/chains", json=litecoin(xpub=secret), headers=AS_ADMIN)
            problem(answer, 400, "private_key_refused")
            await api.get(f"/charges/{base64.urlsafe_b64encode(secret.encode()).decode()}", headers=AS_ADMIN)
            await api.get(
                "/charges",
                params={"xpub": secret},
                headers={"authorization": f"Bearer {secret.strip()[:100]}".replace("\n", " ")},
            )
        await register(api, litecoin(rpc_url=f"http://user:{node_password}@127.0.0.1:1/"))
        key = (await api.post("/admin/tenants/platform/keys", headers=AS_ADMIN)).json()["key"]
        assert (await api.get("/charges", headers={"authorization": f"Bearer {key}"})).status_code == 200
        server.stop()
    log = server.log.read_text()
    kept = {**FORMS, "xpub": XPUB_COIN_1, "key": key, "admin": AS_ADMIN["authorization"][7:], "node": node_password}
    assert '"status":400' in log
    assert not [name for name, secret in kept.items() if secret in log or secret[:24] in log]
