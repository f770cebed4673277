"""Registering, listing, changing and disabling payment methods."""

from typing import Any

import httpx
from tests.addresses.account_keys import public_key
from tests.api.support import count, next_index, problem
from tests.builders import (
    AS_ADMIN,
    AS_PLATFORM,
    XPUB_COIN_1,
    XPUB_COIN_60,
    charge,
    ether,
    litecoin,
    register,
)

from keyserver.kit.db import Database

USDC = "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48"


async def post(api: httpx.AsyncClient, body: dict[str, Any]) -> httpx.Response:
    return await api.post("/admin/chains", json=body, headers=AS_ADMIN)


async def refused(api: httpx.AsyncClient, body: dict[str, Any], status: int, code: str, pointer: str = "") -> None:
    document = problem(await post(api, body), status, code)
    if pointer:
        assert document["errors"][0]["pointer"] == pointer, document


async def test_a_registered_payment_method_is_answered_and_listed_as_documented(api: httpx.AsyncClient) -> None:
    made = await register(api, litecoin(icon_url="https://x.example/ltc.svg"))
    assert made.keys() == {"id", "path", "addresses"}
    assert (made["id"], made["path"], len(made["addresses"])) == ("LTC", "m/44'/1'/0'", 3)
    listed = await api.get("/chains")
    assert listed.headers["content-type"] == "application/json"
    assert listed.json() == [
        {
            "id": "LTC",
            "token": "LTC",
            "chain": "litecoin",
            "network": "regtest",
            "type": "native",
            "decimals": 8,
            "displayName": "LTC on litecoin",
            "contractAddress": None,
            "confirmations": 2,
            "iconUrl": "https://x.example/ltc.svg",
            "isTestnet": True,
        }
    ]
    shown = await api.get("/admin/chains", headers=AS_ADMIN)
    (row,) = shown.json()["chains"]
    assert {"id": "LTC", "path": "m/44'/1'/0'", "enabled": True, "address_type": "p2wpkh"}.items() <= row.items()
    assert XPUB_COIN_1 not in shown.text and "rpc_url" not in shown.text


async def test_the_addresses_handed_out_are_those_shown_at_registration(api: httpx.AsyncClient) -> None:
    made = await register(api, litecoin())
    given = [(await api.post("/address", json={"chain": "LTC"}, headers=AS_PLATFORM)).json() for _ in range(3)]
    assert [each["address"] for each in given] == made["addresses"]
    assert given[2] == {"address": made["addresses"][2], "index": 2, "chain": "litecoin", "token": "LTC"}


async def test_without_payment_methods_the_list_is_empty(api: httpx.AsyncClient) -> None:
    answer = await api.get("/chains")
    assert (answer.status_code, answer.json()) == (200, [])


async def test_the_list_is_in_display_order(api: httpx.AsyncClient) -> None:
    for name, order in (("c", 3), ("a", -1), ("d", 4), ("b", 0)):
        await register(api, litecoin(id=name, display_order=order))
    assert [each["id"] for each in (await api.get("/chains")).json()] == ["a", "b", "c", "d"]


async def test_the_expected_address_must_be_index_0_and_nothing_is_registered_when_it_is_not(
    api: httpx.AsyncClient, database: Database
) -> None:
    first, second, _ = (await register(api, litecoin(id="known")))["addresses"]
    for wrong in (second, first.upper(), first + " x", "rltc1qwrong", "x"):
        await refused(api, litecoin(expected_address=wrong), 400, "unexpected_address", "/expected_address")
    assert (await post(api, litecoin(expected_address=first))).status_code == 201
    evm = (await register(api, ether(id="known-evm")))["addresses"][0]
    assert (await post(api, ether(expected_address=evm.lower()))).status_code == 201
    await refused(api, litecoin(id="new", coin_type=2, expected_address=first + "x"), 400, "unexpected_address")
    assert await count(database, "payment_methods") == 4
    assert await count(database, "key_rings") == 2


# --- paths and rings --------------------------------------------------------------------------------------------


async def test_methods_on_one_path_share_one_ring_and_its_indexes(api: httpx.AsyncClient, database: Database) -> None:
    await register(api, ether())
    await register(api, ether(id="USDC", type="erc20", token="USDC", contract=USDC, decimals=6), price_usd="1")
    await register(api, ether(id="POL", chain="polygon", token="POL"), price_usd="1")
    taken = [await next_index(api, "ETH"), await next_index(api, "USDC")]
    taken.append((await charge(api, "POL"))["derivationIndex"])
    taken.append(await next_index(api, "ETH"))
    assert taken == [0, 1, 2, 3]
    assert await count(database, "key_rings") == 1


async def test_a_path_with_another_key_is_409_and_the_same_key_in_another_spelling_joins(
    api: httpx.AsyncClient, database: Database
) -> None:
    await register(api, litecoin())
    await refused(api, litecoin(id="other", xpub=XPUB_COIN_60), 409, "path_taken")
    same = public_key("m/44'/1'/0'", form="vpub")
    assert (await post(api, litecoin(id="same", xpub=same, address_type="p2wpkh"))).status_code == 201
    assert await count(database, "key_rings") == 1
    assert (await next_index(api, "LTC"), await next_index(api, "same")) == (0, 1)


async def test_one_key_under_two_paths_would_hand_out_addresses_twice_and_is_409(api: httpx.AsyncClient) -> None:
    await register(api, litecoin())
    await refused(api, litecoin(id="twice", coin_type=2), 409, "path_taken")


async def test_an_id_is_given_once(api: httpx.AsyncClient) -> None:
    await register(api, litecoin())
    await refused(api, litecoin(), 409, "chain_exists")
    await api.delete("/admin/chains/LTC", headers=AS_ADMIN)
    await refused(api, litecoin(), 409, "chain_exists")


async def test_next_path_says_what_is_free_and_who_has_the_rest(api: httpx.AsyncClient) -> None:
    async def next_path(coin_type: int) -> Any:
        return (await api.get("/admin/next-path", params={"coin_type": coin_type}, headers=AS_ADMIN)).json()

    assert await next_path(1) == {"coin_type": 1, "account_index": 0, "path": "m/44'/1'/0'", "status": "available"}
    await register(api, litecoin())
    await register(api, litecoin(id="LTC-legacy", address_type="p2pkh"))
    await register(api, litecoin(id="LTC-2", account_index=2, xpub=public_key("m/44'/1'/2'")))
    taken = await next_path(1)
    assert taken.pop("note")
    assert taken == {
        "coin_type": 1,
        "account_index": 0,
        "path": "m/44'/1'/0'",
        "status": "allocated",
        "allocated_to": ["LTC", "LTC-legacy", "LTC-2"],
        "next_available": {"account_index": 1, "path": "m/44'/1'/1'"},
    }
    assert (await next_path(60))["status"] == "available"


async def test_a_coin_type_that_is_no_integer_is_400(api: httpx.AsyncClient) -> None:
    for query in ("", "?coin_type=", "?coin_type=one", "?coin_type=1.5", "?coin_type=-1", f"?coin_type={2**31}"):
        document = problem(await api.get(f"/admin/next-path{query}", headers=AS_ADMIN), 400)
        assert document["errors"][0]["pointer"] == "#query/coin_type", query


# --- what is refused --------------------------------------------------------------------------------------------


async def test_each_script_type_gives_its_own_addresses(api: httpx.AsyncClient) -> None:
    starts = {"p2wpkh": "rltc1q", "p2tr": "rltc1p", "p2sh-p2wpkh": "Q", "p2pkh": "m"}
    for kind, start in starts.items():
        made = await register(api, litecoin(id=kind, address_type=kind.upper() if kind == "p2tr" else kind))
        first = made["addresses"][0]
        assert first.startswith(start) or (kind == "p2pkh" and first[0] in "mn"), (kind, first)
    assert (await register(api, litecoin(id="default")))["addresses"][0].startswith("rltc1q")


async def test_a_script_type_or_network_that_contradicts_the_chain_is_400(api: httpx.AsyncClient) -> None:
    dogecoin = litecoin(chain="dogecoin", token="DOGE")
    await refused(api, {**dogecoin, "address_type": "p2wpkh"}, 400, "bad_request", "/address_type")
    await refused(api, ether(address_type="p2wpkh"), 400, "bad_request", "/address_type")
    await refused(api, litecoin(address_type="p2wsh"), 400, "bad_request", "/address_type")
    await refused(api, litecoin(network="moonnet"), 400, "unknown_chain", "/chain")
    await refused(api, litecoin(chain="nochain"), 400, "unknown_chain", "/chain")
    await refused(api, litecoin(chain="simulated-utxo", network="demo", coin_type=1), 400, "unknown_chain", "/chain")
    await refused(api, litecoin(coin_type=0), 400, "bad_request", "/coin_type")
    zpub = public_key("m/84'/2'/0'", form="zpub")
    mainnet = litecoin(network="mainnet", coin_type=2, xpub=zpub)
    await refused(api, {**mainnet, "address_type": "p2pkh"}, 400, "invalid_xpub", "/xpub")
    await refused(api, {**mainnet, "xpub": public_key("m/84'/2'/0'", form="vpub")}, 400, "invalid_xpub", "/xpub")
    await refused(
        api,
        {**mainnet, "chain": "bitcoin", "coin_type": 0, "xpub": public_key("m/84'/0'/0'", form="Ltub")},
        400,
        "invalid_xpub",
        "/xpub",
    )
    assert (await post(api, mainnet)).status_code == 201


async def test_a_key_of_another_account_or_depth_or_with_a_typing_error_is_400(api: httpx.AsyncClient) -> None:
    for xpub in (
        public_key("m/44'/1'/1'"),
        public_key("m/44'/1'"),
        public_key("m/44'/1'/0'/0"),
        XPUB_COIN_1[:-1] + ("s" if XPUB_COIN_1[-1] != "s" else "t"),
        XPUB_COIN_1[:60],
        "xpub",
        "rltc1qsomething",
    ):
        answer = await post(api, litecoin(xpub=xpub))
        assert problem(answer, 400, "invalid_xpub")["errors"][0]["pointer"] == "/xpub"
        assert len(xpub) < 20 or xpub not in answer.text


async def test_members_of_the_wrong_kind_are_400_and_named(api: httpx.AsyncClient, database: Database) -> None:
    wrong: dict[str, list[Any]] = {
        "id": [None, "", "a b", "x" * 129, "ü", 1, "a/b"],
        "coin_type": [None, "1", 1.5, -1, 2**31, True],
        "account_index": [None, "0", -1, 2**31],
        "network": [None, "", "main net"],
        "type": [None, "", []],
        "token": [None, "", "A B", "X" * 33],
        "chain": [None, "", {}],
        "decimals": [None, "8", -1, 37, 8.5, True],
        "xpub": [None, "", 7, "x" * 513],
        "rpc_url": [
            None,
            "",
            "node:8545",
            "ftp://node/",
            "http://",
            "ws://node/",
            1,
            [],
            ["http://a", ""],
            ["http://a", 1],
            ["http://a"] * 9,
            "http://a\nb",
            "http://" + "a" * 2048,
        ],
        "finality": ["", "final", 1],
        "confirmations": [0, -1, "2", 10_001, 1.5],
        "start_height": [-1, 2**63, "tip"],
        "poll_seconds": [0, -1, 3601, "often"],
        "rpc_headers": [[], "a: b", {"a b": "c"}, {"a": "b\r\nc: d"}, {"a": 1}],
        "is_testnet": ["perhaps", 2],
        "display_order": [1.5, 2**31, "first"],
    }
    for member, values in wrong.items():
        for value in values:
            document = problem(await post(api, litecoin(**{member: value})), 400, "bad_request")
            pointers = {error["pointer"] for error in document["errors"]}
            assert all(each.startswith(f"/{member}") for each in pointers), (member, value, pointers)
    for required in (
        "id",
        "coin_type",
        "account_index",
        "network",
        "type",
        "token",
        "chain",
        "decimals",
        "xpub",
        "rpc_url",
    ):
        body = litecoin()
        del body[required]
        assert problem(await post(api, body), 400)["errors"][0]["pointer"] == f"/{required}"
    assert await count(database, "payment_methods") == await count(database, "blockchains") == 0


async def test_token_contracts_are_checked(api: httpx.AsyncClient) -> None:
    token = ether(id="USDC", type="erc20", token="USDC", decimals=6)
    await refused(api, token, 400, "bad_request", "/contract")
    for contract in ("0x1234", USDC[:-1] + "9", USDC.replace("A", "a", 1), "not-an-address", XPUB_COIN_60[:42]):
        await refused(api, {**token, "contract": contract}, 400, "bad_request", "/contract")
    await refused(api, litecoin(contract=USDC), 400, "bad_request", "/contract")
    assert (await post(api, {**token, "contract": USDC.lower()})).status_code == 201
