"""Nothing private stands here: every form is made at run time from the published BIP-39 test phrase."""

import json
import time

import pytest
from bip_utils import (
    Bip39Languages,
    Bip39MnemonicGenerator,
    WifEncoder,
    WifPubKeyModes,
)
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.addresses.account_keys import (
    MULTISIG_VERSIONS,
    PRIVATE_VERSIONS,
    PUBLIC_VERSIONS,
    TEST_PHRASE,
    account_payloads,
    payload_of,
    phrase_seed,
    private_key,
    public_key,
    raw_private_key,
    spelt,
)

from keyserver.addresses.private_material import PrivateMaterial, refuse_private_material

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
SENTENCE = (
    "Private key material is never accepted: give the account's extended public key (xpub) instead, "
    "and regard the private key that was sent as exposed"
)


def is_refused(text: str) -> bool:
    try:
        refuse_private_material(text)
    except PrivateMaterial:
        return True
    return False


def wif(version: int = 0x80, *, compressed: bool = True) -> str:
    mode = WifPubKeyModes.COMPRESSED if compressed else WifPubKeyModes.UNCOMPRESSED
    return str(WifEncoder.Encode(raw_private_key(), net_ver=bytes([version]), pub_key_mode=mode))


def phrase(language: Bip39Languages, *, words: int = 12) -> list[str]:
    entropy = phrase_seed()[: words * 4 // 3]
    return list(Bip39MnemonicGenerator(language).FromEntropy(entropy).ToList())


@pytest.mark.parametrize("form", PRIVATE_VERSIONS)
def test_extended_private_keys_are_refused_whatever_they_are_called(form: str) -> None:
    key = private_key(form=form)

    assert key.startswith(form)
    assert is_refused(key)


@settings(max_examples=40, deadline=None)
@given(version=st.binary(min_size=4, max_size=4))
def test_extended_private_keys_are_refused_whatever_their_version_bytes(version: bytes) -> None:
    assert is_refused(spelt(version + payload_of(private_key())[4:]))


def test_a_private_key_below_public_version_bytes_is_refused() -> None:
    assert is_refused(spelt(bytes.fromhex(PUBLIC_VERSIONS["xpub"]) + payload_of(private_key())[4:]))


@pytest.mark.parametrize("path", ["m", "m/84'", "m/84'/0'/0'/0/0"])
def test_extended_private_keys_are_refused_at_any_depth(path: str) -> None:
    assert is_refused(private_key(path))


@pytest.mark.parametrize("version", [0x80, 0xB0, 0x9E, 0xEF, 0xF1], ids=["btc", "ltc", "doge", "test", "dogetest"])
@pytest.mark.parametrize("compressed", [True, False])
def test_wif_is_refused(version: int, compressed: bool) -> None:
    assert is_refused(wif(version, compressed=compressed))


def test_an_encrypted_bip_38_key_is_refused() -> None:
    # The payload of BIP-38: its first two bytes are what it is known by. Encrypting for real takes a second.
    assert is_refused(spelt(b"\x01\x42\xc0" + raw_private_key()[:4] + raw_private_key()))
    assert is_refused(spelt(b"\x01\x43\xe0" + raw_private_key()[:4] + raw_private_key()))


@pytest.mark.parametrize(
    "spelling",
    ["{}", "0x{}", "0X{}", "  {}\n", "'{}'", '"0x{}"', "\ufeff{}"],
)
def test_raw_keys_and_seeds_are_refused(spelling: str) -> None:
    for raw in (raw_private_key(), phrase_seed()):
        assert is_refused(spelling.format(raw.hex()))
        assert is_refused(spelling.format(raw.hex().upper()))


def test_a_raw_key_in_groups_is_refused() -> None:
    assert is_refused(raw_private_key().hex(" ", 4))
    assert is_refused(raw_private_key().hex(":"))


@pytest.mark.parametrize("language", list(Bip39Languages), ids=lambda language: language.name)
@pytest.mark.parametrize("words", [12, 15, 18, 21, 24])
def test_phrases_are_refused_in_every_language_and_length(language: Bip39Languages, words: int) -> None:
    assert is_refused(" ".join(phrase(language, words=words)))


@pytest.mark.parametrize("language", list(Bip39Languages), ids=lambda language: language.name)
def test_phrases_are_refused_however_they_are_typed(language: Bip39Languages) -> None:
    words = phrase(language)

    assert is_refused(" ".join(words).upper())
    assert is_refused("  ".join(words).title())
    assert is_refused("\n".join(f"{number}. {word}" for number, word in enumerate(words, start=1)))
    assert is_refused(json.dumps(words, ensure_ascii=False))
    assert is_refused(f"my wallet's phrase: {', '.join(words)} (keep it safe!)")
    assert is_refused("\u3000".join(words))


@pytest.mark.parametrize("language", list(Bip39Languages), ids=lambda language: language.name)
def test_phrases_with_a_wrong_checksum_or_a_misspelt_word_are_refused(language: Bip39Languages) -> None:
    words = phrase(language)

    assert is_refused(" ".join(words[:1] * 12))
    assert is_refused(" ".join(sorted(words)))
    assert is_refused(" ".join([*words[:5], "qqqqq", *words[6:]]))


def test_phrases_are_refused_without_accents_abbreviated_and_with_a_thirteenth_word() -> None:
    french = phrase(Bip39Languages.FRENCH, words=24)
    spanish = phrase(Bip39Languages.SPANISH, words=24)

    assert is_refused(
        " ".join(french).translate(str.maketrans("éèà", "eea")).replace("\u0301", "").replace("\u0300", "")
    )
    assert is_refused(" ".join(spanish).replace("\u0301", "").replace("\u0303", ""))
    assert is_refused(" ".join(word[:4] for word in phrase(Bip39Languages.ENGLISH)))
    assert is_refused(f"{TEST_PHRASE} correcthorsebatterystaple")


@pytest.mark.parametrize("language", [Bip39Languages.CHINESE_SIMPLIFIED, Bip39Languages.CHINESE_TRADITIONAL])
def test_chinese_phrases_are_refused_without_spaces(language: Bip39Languages) -> None:
    words = phrase(language)

    assert is_refused("".join(words))
    assert is_refused(" ".join("".join(words[start : start + 3]) for start in range(0, 12, 3)))


@pytest.mark.parametrize(
    "spelling",
    [
        "wpkh([73c5da0a/84h/0h/0h]{xprv}/0/*)#8fhd9pwu",
        "sh(wpkh({xprv}/0/*))",
        "[73c5da0a/84'/0'/0']{xprv}",
        "pkh({wif})",
        "tr({hex})",
        "wsh(multi(1,{xpub},{wif}))",
        "[73c5da0a/84h/0h/0h]{hex}",
        '{{"rpc_url": "http://node", "xpub": "{xprv}"}}',
        "https://example.org/?key={xprv}&x=1",
        "p2wpkh:{wif}",
        "key={wif};",
        "the key\\n{xprv}",
        "0{xprv}",
        "Key{xprv}",
        "{xpub} {xprv}",
        "{xpub}\n{wif}",
        "\u200b{wif}\u200b",
    ],
)
def test_keys_are_found_inside_other_text(spelling: str) -> None:
    text = spelling.format(xprv=private_key(), xpub=public_key(), wif=wif(), hex=raw_private_key().hex())

    assert is_refused(text)


def test_keys_are_found_through_spaces_invisible_characters_and_wide_letters() -> None:
    key = private_key()

    assert is_refused(" ".join(key[start : start + 4] for start in range(0, len(key), 4)))
    assert is_refused("\u200b".join(key))
    assert is_refused("\n".join([wif()[:26], wif()[26:]]))
    assert is_refused("".join(chr(ord(character) + 0xFEE0) for character in wif()))


def test_damaged_private_keys_are_refused() -> None:
    key = private_key()

    assert is_refused(key[:60] + ("2" if key[60] == "1" else "1") + key[61:])
    assert is_refused(key[:-1])
    assert is_refused(key[:40])
    assert is_refused(key.upper())
    assert is_refused(key.lower())
    assert is_refused(key[:50] + "0OIl" + key[54:])


@pytest.mark.parametrize(
    ("encoding", "encryption"),
    [
        (PrivateFormat.PKCS8, NoEncryption()),
        (PrivateFormat.PKCS8, BestAvailableEncryption(b"worthless")),
        (PrivateFormat.TraditionalOpenSSL, NoEncryption()),
    ],
    ids=["pkcs8", "encrypted", "sec1"],
)
def test_pem_private_keys_are_refused(encoding: PrivateFormat, encryption: KeySerializationEncryption) -> None:
    key = ec.derive_private_key(int.from_bytes(raw_private_key()), ec.SECP256K1())

    assert is_refused(key.private_bytes(Encoding.PEM, encoding, encryption).decode())


def test_keystores_are_refused() -> None:
    keystore = {
        "version": 3,
        "crypto": {"cipher": "aes-128-ctr", "ciphertext": raw_private_key().hex(), "kdf": "scrypt"},
    }

    assert is_refused(json.dumps(keystore))
    assert is_refused(json.dumps(keystore, indent=2))
    assert is_refused(json.dumps({"address": "0x0", "privateKey": "…"}))
    assert is_refused(json.dumps({"mnemonic": "…"}))


@pytest.mark.parametrize("form", [*PUBLIC_VERSIONS, *MULTISIG_VERSIONS])
def test_extended_public_keys_are_not_refused(form: str) -> None:
    assert not is_refused(public_key(form=form))
    assert not is_refused(f"wpkh([73c5da0a/84h/0h/0h]{public_key(form=form)}/0/*)#8fhd9pwu")


@settings(max_examples=100, deadline=None)
@given(payload=account_payloads(), version=st.sampled_from(sorted((PUBLIC_VERSIONS | MULTISIG_VERSIONS).values())))
def test_no_extended_public_key_is_refused(payload: bytes, version: str) -> None:
    assert not is_refused(spelt(bytes.fromhex(version) + payload[4:]))


def test_a_public_key_that_holds_the_letters_xprv_by_chance_is_not_refused() -> None:
    number = 0
    for character in "xpub6Axprv" + "5" * 101:
        number = number * 58 + BASE58.index(character)
    payload = bytearray(number.to_bytes(82)[:78])
    payload[45] = 2
    key = spelt(bytes(payload))

    assert key.startswith("xpub6Axprv")
    assert not is_refused(key)
    assert is_refused(key[:-1] + ("1" if key[-1] == "2" else "2"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "bitcoin",
        "Bitcoin (BTC)",
        "xprv",
        "1LqBGSKuX5yYUonjxT5qGfpUsXKYYWeabA",
        "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr",
        "0x9858EfFD232B4033E47d90003D41EC34EcaEda94",
        "TUEZSdKsoDHQMeZwihtdoBiN46zxhGWYdH",
        "0330d54fd0dd420a6e5f8d3624f5f3482cae350f79d5f0753bf5beef9c2d91af3c",
        "https://user:password@node.example.org:8332/wallet/main",
        "https://rpc.example.org/eth/4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b",
        "https://mainnet.example.org/v3/9aa3d95b3bc440fa88ea12eaa4456161",
        "Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJub2RlIn0.c2lnbmF0dXJlLW9mLW5vLXZhbHVlLWF0LWFsbA",
        '{"crypto": true, "note": "accepts tokens"}',
        "-----BEGIN CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----",
        "接受比特币付款",
        "Paiements en bitcoin acceptés à la caisse, sans frais, pour toutes les commandes de plus de vingt euros",
        "We accept payments in bitcoin and in any stablecoin that our customers like to use, on every day of the week, "
        "and the credit is there as soon as the network has confirmed the transfer often enough for the amount.",
    ],
)
def test_what_operators_do_write_is_not_refused(text: str) -> None:
    assert not is_refused(text)


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(codec=None), max_size=300))
def test_any_text_is_judged(text: str) -> None:
    assert is_refused(text) in (True, False)


@pytest.mark.parametrize(
    "pattern",
    [
        "a",
        "1",
        "xprv",
        "xprv0",
        "tpub1",
        "word ",
        "\x00",
        "é",
        "中",
        "\ud800",
        "\u0301",
        "(",
        '"seed" ',
        "-----BEGIN ",
        " ",
    ],
)
def test_huge_texts_are_judged_quickly(pattern: str) -> None:
    text = pattern * (500_000 // len(pattern))
    started = time.process_time()

    is_refused(text)

    assert time.process_time() - started < 3


def test_many_keys_are_judged_quickly() -> None:
    text = f"{public_key()} " * 2_000
    started = time.process_time()

    assert not is_refused(text)
    assert is_refused(text + private_key())
    assert time.process_time() - started < 3


@pytest.mark.parametrize("make", [private_key, wif, lambda: TEST_PHRASE, lambda: raw_private_key().hex()])
def test_the_refusal_never_repeats_what_it_was_given(make: object) -> None:
    assert callable(make)
    text = make()

    with pytest.raises(PrivateMaterial) as caught:
        refuse_private_material(text)

    assert str(caught.value) == SENTENCE
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert not any(text[start : start + 8] in repr(caught.value) for start in range(len(text) - 8))
