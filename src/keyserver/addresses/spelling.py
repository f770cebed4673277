"""Whether a text is an address of an account-based chain (pure): EIP-55 on EVM chains, Base58Check on Tron."""

import re

from bip_utils import Base58Decoder
from Crypto.Hash import keccak

from keyserver.chains.catalog import Family

_EVM = re.compile(r"0x[0-9a-fA-F]{40}")
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
            raw = Base58Decoder.CheckDecode(text)
        except ValueError:
            return False
        return len(raw) == _TRON_BYTES and raw[0] == _TRON_PREFIX
    return False
