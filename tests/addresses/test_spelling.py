"""Tron addresses in both of their spellings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyserver.addresses.spelling import is_address, tron_from_hex, tron_to_hex
from keyserver.chains.catalog import Family

#: Tether's contract, as explorers and as contracts write it.
USDT, USDT_HEX = "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t", "a614f803b6fd780986a42c78ec9c7f77e6ded13c"


@pytest.mark.parametrize("written", [f"0x{USDT_HEX}", USDT_HEX, f"41{USDT_HEX}", f"0x41{USDT_HEX}", USDT_HEX.upper()])
def test_twenty_bytes_and_twenty_one_with_the_prefix_are_one_address(written: str) -> None:
    assert tron_from_hex(written) == USDT
    assert tron_to_hex(USDT) == f"0x{USDT_HEX}"


@given(st.binary(min_size=20, max_size=20))
def test_every_account_is_read_back_as_it_was_written(account: bytes) -> None:
    address = tron_from_hex(account.hex())
    assert address.startswith("T")
    assert tron_to_hex(address) == f"0x{account.hex()}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        USDT[:-1],
        USDT[:-1] + "u",  # checksum
        USDT.lower(),
        "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",  # Bitcoin's genesis: another version byte
        f"0x{USDT_HEX}",
        "T" + "0" * 33,
    ],
)
def test_what_is_not_base58check_of_tron_is_no_address(text: str) -> None:
    assert not is_address(text, family=Family.TRON)
    with pytest.raises(ValueError, match=r"."):
        tron_to_hex(text)


@pytest.mark.parametrize("text", ["", "0x", USDT, f"42{USDT_HEX}", f"{USDT_HEX}\n", f"0x{USDT_HEX}00", "g" * 40])
def test_what_is_not_hex_of_an_account_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an account of Tron in hex"):
        tron_from_hex(text)
