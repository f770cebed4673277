"""How addresses of account-based chains are written (pure): EIP-55 on EVM chains, Base58Check on Tron."""

import re

from bip_utils import Base58ChecksumError, Base58Decoder, Base58Encoder
from Crypto.Hash import keccak

from keyserver.chains.catalog import Family

_EVM = re.compile(r"0x[0-9a-fA-F]{40}")
_TRON_HEX = re.compile(r"(0x|0x41|41)?([0-9a-fA-F]{40})")
_TRON_BYTES = 21
_TRON_PREFIX = 0x41


def eip55(address: str) -> str:
    """The mixed-case checksum spelling of `0x` and 40 hex digits (EIP-55)."""
    digits = address[2:].lower()
    digest = keccak.new(digest_bits=256, data=digits.encode()).hexdigest()
    return "0x" + "".join(
        digit.upper() if int(nibble, 16) >= 8 else digit for digit, nibble in zip(digits, digest, strict=False)
    )


def is_address(text: str, *, family: Family) -> bool:
    """Lower or upper case alone carries no checksum on EVM chains and is accepted; mixed case must be EIP-55."""
    if family is Family.EVM:
        if not _EVM.fullmatch(text):
            return False
        digits = text[2:]
        return digits in (digits.lower(), digits.upper()) or text == eip55(text)
    if family is Family.TRON:
        try:
            tron_to_hex(text)
        except ValueError:
            return False
        return True
    return False


def tron_to_hex(address: str) -> str:
    """The account's 20 bytes, as Tron's JSON-RPC writes them: `0x` and lower case.

    ValueError when the text is not Base58Check of 21 bytes that begin with 41, or its checksum is wrong.
    """
    try:
        raw: bytes = Base58Decoder.CheckDecode(address)
    except Base58ChecksumError as error:  # which is no ValueError
        raise ValueError("not an address of Tron: its checksum is wrong") from error
    if len(raw) != _TRON_BYTES or raw[0] != _TRON_PREFIX:
        raise ValueError("not an address of Tron")
    return "0x" + raw[1:].hex()


def tron_from_hex(text: str) -> str:
    """The address (`T…`) of an account's 20 bytes in hex, after `0x` or not, with Tron's prefix 41 or without it.

    ValueError for anything else.
    """
    matched = _TRON_HEX.fullmatch(text)
    if matched is None:
        raise ValueError("not an account of Tron in hex")
    return str(Base58Encoder.CheckEncode(bytes([_TRON_PREFIX]) + bytes.fromhex(matched[2])))
