"""`keyserver address derive`: what index N would be, without a service."""

import json
from pathlib import Path

import pytest
from tests.addresses.account_keys import TEST_PHRASE
from tests.cli.commands import keyserver, refusal

_VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "bip84.json").read_text())["vectors"][0]
ZPUB = _VECTOR["key"]


async def test_the_published_addresses_of_bip84_come_out(tmp_path: Path) -> None:
    file = tmp_path / "account.xpub"
    file.write_text(f"{ZPUB}\n")
    ways = {
        "option": await keyserver("address", "derive", "--chain", "bitcoin", "--xpub", ZPUB, "--count", "2", "--json"),
        "stdin": await keyserver(
            "address", "derive", "--chain", "bitcoin", "--xpub", "-", "--count", "2", "--json", stdin=f" {ZPUB}\n"
        ),
        "file": await keyserver(
            "address", "derive", "--chain", "bitcoin", "--xpub-file", str(file), "--count", "2", "--json"
        ),
    }
    expected = [{"index": int(index), "address": address} for index, address in _VECTOR["addresses"].items()]
    assert {way: json.loads(done.stdout) for way, done in ways.items()} == dict.fromkeys(ways, expected)


async def test_a_later_index_is_shown_whole_in_a_narrow_terminal() -> None:
    done = await keyserver("address", "derive", "--chain", "bitcoin", "--xpub", ZPUB, "--index", "1", COLUMNS="30")
    assert done.returncode == 0
    assert ["1", _VECTOR["addresses"]["1"]] in [line.split() for line in done.stdout.splitlines()]


@pytest.mark.parametrize("how", ["--xpub", "-"])
async def test_private_material_is_refused_in_one_line_that_does_not_repeat_it(how: str) -> None:
    arguments = ["--xpub", TEST_PHRASE] if how == "--xpub" else ["--xpub", "-"]
    done = await keyserver("address", "derive", "--chain", "bitcoin", *arguments, stdin=TEST_PHRASE)
    assert "Private key material is never accepted" in refusal(done)
    assert "abandon" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--chain", "bitcoin"], "--xpub-file"),
        (["--chain", "bitcoin", "--xpub-file", "nowhere"], "No such file"),
        (["--chain", "bitcoin", "--xpub", ZPUB, "--xpub-file", "x"], "not both"),
        (["--chain", "moonbeam", "--xpub", ZPUB], "type evm"),
        (["--chain", "bitcoin", "--network", "nowhere", "--xpub", ZPUB], "mainnet"),
        (["--chain", "bitcoin", "--address-type", "p2pkh", "--xpub", ZPUB], "zpub"),
        (["--chain", "ethereum", "--xpub", ZPUB], "zpub"),
    ],
)
async def test_what_to_mend_is_one_clear_line(arguments: list[str], told: str) -> None:
    assert told in refusal(await keyserver("address", "derive", *arguments))
