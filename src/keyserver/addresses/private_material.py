"""Refusing private keys, seeds and recovery phrases before anything else looks at them.

It refuses what is private and what looks like it: a mistyped key is still most of a key. Nothing here keeps, logs or
repeats what it was given. The cost is linear in the length of the text.
"""

import itertools
import re
import unicodedata
from functools import cache

from bip_utils import Base58ChecksumError, Base58Decoder, Bip39Languages
from bip_utils.bip.bip39.bip39_mnemonic_utils import Bip39WordsListGetter

_BASE58 = "[1-9A-HJ-NP-Za-km-z]"
#: SLIP-132's names for private keys, and Dogecoin's.
_PREFIX = "(?:[xyzYZtuvUV]prv|[LMt]tpv|[dt]gpv)"

#: Damaged ones too: in the wrong case, cut short, with a character that Base58 does not have.
_PREFIXED_KEY = re.compile(rf"(?<![0-9A-Za-z])(?i:{_PREFIX})[0-9A-Za-z]{{16}}")
#: Stuck to other text. Long, because these four characters stand in other Base58 by chance.
_EMBEDDED_KEY = re.compile(rf"{_PREFIX}{_BASE58}{{100}}")
#: From the shortest WIF up; addresses and transaction ids of Base58 chains are shorter.
_BASE58_RUN = re.compile(rf"{_BASE58}{{49,}}")
#: An extended key takes up to 112 characters. Decoding costs the square of the length.
_LONGEST_BASE58_KEY = 128

#: A private key, or a BIP-32 seed of 64 bytes.
_RAW_HEX = re.compile(r"(?:0x)?(?:[0-9a-f]{64}|[0-9a-f]{128})", re.IGNORECASE)
_DESCRIPTOR = re.compile(r"\s*(?:\[|[a-z]+\()", re.IGNORECASE)
_HEX_IN_DESCRIPTOR = re.compile(r"(?<![0-9A-Za-z])(?:0x)?[0-9a-f]{64}(?![0-9A-Za-z])", re.IGNORECASE)
_MARKER = re.compile(
    r"-----BEGIN[ A-Z0-9]{0,40}PRIVATE KEY"
    r"|[\"'](?:cipher_?text|kdf_?params|mnemonic|seed|seed_?phrase|private_?key|secret_?key)[\"']\s{0,20}:",
    re.IGNORECASE,
)
_LONGEST_SPACED_KEY = 1000

_LETTERS = re.compile(r"[^\W\d_]+")
_PHRASE_WORDS = range(12, 26)
_CHINESE = re.compile(r"[\u4e00-\u9fff]+")
_PHRASE_LENGTHS = frozenset({12, 15, 18, 21, 24})


class PrivateMaterial(ValueError):
    """The text held a private key or looked like one. The message never holds any of it."""

    def __init__(self) -> None:
        super().__init__(
            "Private key material is never accepted: give the account's extended public key (xpub) instead, "
            "and regard the private key that was sent as exposed"
        )


def refuse_private_material(text: str) -> None:
    """Raises PrivateMaterial when `text` is, contains or resembles private key material.

    Extended private keys of any version bytes, WIF, BIP-38, raw hexadecimal keys and seeds, BIP-39 phrases in every
    language there is a list for (abbreviated, misspelt or unspaced Chinese ones too), JSON keystores, PEM, and output
    descriptors or key origins around any of these. Safe on any string, and linear in its length.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    if (
        _MARKER.search(text)
        or _PREFIXED_KEY.search(text)
        or any(_is_private_base58(run) for run in _BASE58_RUN.findall(text))
        or _is_spaced_key(text)
        or (_DESCRIPTOR.match(text) and _HEX_IN_DESCRIPTOR.search(text))
        or _is_phrase(text)
    ):
        raise PrivateMaterial


def _is_spaced_key(text: str) -> bool:
    """Whether one key is all there is, once spaces, quotes and invisible characters between are left out."""
    if len(text) > _LONGEST_SPACED_KEY:
        return False
    bare = "".join(character for character in text if character.isalnum())
    return bool(_RAW_HEX.fullmatch(bare) or _PREFIXED_KEY.match(bare)) or (
        _BASE58_RUN.fullmatch(bare) is not None and _is_private_base58(bare)
    )


def _is_private_base58(run: str) -> bool:
    payload = base58check_payload(run)
    if payload is None:
        return _EMBEDDED_KEY.search(run) is not None
    match len(payload):
        case 78:  # BIP-32: a private key has a zero byte where a public one has 2 or 3
            return payload[45] == 0
        case 33:  # WIF of a key whose public key is uncompressed
            return True
        case 34:  # WIF of any other
            return payload[33] == 1
        case 39:  # BIP-38: encrypted, and no better in other hands
            return payload[:2] in (b"\x01\x42", b"\x01\x43")
        case _:
            return False


def base58check_payload(text: str) -> bytes | None:
    """Bytes of a Base58Check string without its checksum; None for any other string and a wrong checksum."""
    if len(text) > _LONGEST_BASE58_KEY:
        return None
    try:
        payload: bytes = Base58Decoder.CheckDecode(text)
    except (ValueError, Base58ChecksumError):
        return None
    return payload


def _is_phrase(text: str) -> bool:
    words = _LETTERS.findall(_folded(text))
    characters = "".join(words)
    if len(characters) in _PHRASE_LENGTHS and _CHINESE.fullmatch(characters):
        words = list(characters)
    if len(words) < _PHRASE_WORDS.start:
        return False
    known = _phrase_words()
    hits = [word in known for word in words]
    if len(words) in _PHRASE_WORDS and sum(hits) * 5 >= len(hits) * 4:
        return True
    before = [0, *itertools.accumulate(hits)]
    return any(after - earlier >= 11 for earlier, after in zip(before, before[12:], strict=False))


@cache
def _phrase_words() -> frozenset[str]:
    """Every word of every BIP-39 list, and the four letters English words are told apart by on metal backups."""
    lists = {language: Bip39WordsListGetter().GetByLanguage(language) for language in Bip39Languages}
    words = {
        language: [_folded(list_.GetWordAtIdx(index)) for index in range(list_.Length())]
        for language, list_ in lists.items()
    }
    abbreviated = (word[:4] for word in words[Bip39Languages.ENGLISH])
    return frozenset(itertools.chain(*words.values(), abbreviated))


def _folded(text: str) -> str:
    """Without case and accents: a phrase is often typed without them."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(character for character in decomposed if not unicodedata.combining(character)).casefold()
