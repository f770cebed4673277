import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.addresses.account_keys import (
    MULTISIG_VERSIONS,
    PRIVATE_VERSIONS,
    PUBLIC_VERSIONS,
    account_payloads,
    payload_of,
    private_key,
    public_key,
    spelt,
)

from keyserver.addresses.derive import RingKey
from keyserver.addresses.xpub import ExtendedPublicKey, InvalidExtendedKey, PrivateMaterial, parse_extended_public_key
from keyserver.chains.catalog import AddressType, chain_spec

BITCOIN = chain_spec("bitcoin", "mainnet", type="native")


def parse(
    text: str, *, chain: str = "bitcoin", network: str = "mainnet", address_type: str = "p2wpkh"
) -> ExtendedPublicKey:
    spec = chain_spec(chain, network, type="evm")
    return parse_extended_public_key(text, spec=spec, address_type=AddressType(address_type))


def refusal(text: str, *, chain: str = "bitcoin", network: str = "mainnet", address_type: str = "p2wpkh") -> str:
    with pytest.raises(InvalidExtendedKey) as caught:
        parse(text, chain=chain, network=network, address_type=address_type)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return str(caught.value)


def payload(*, depth: int = 3, child: int = 2**31, key: bytes | None = None) -> bytes:
    """A valid account's key but for what is given."""
    valid = payload_of(public_key())
    return valid[:4] + bytes([depth]) + valid[5:9] + child.to_bytes(4) + valid[13:45] + (key or valid[45:])


def test_an_account_key_is_read_with_its_account() -> None:
    key = parse(public_key("m/84'/0'/7'"))

    assert key.xpub == public_key("m/84'/0'/7'")
    assert bytes.fromhex(key.material) == payload_of(key.xpub)[13:]
    assert (key.account_index, key.depth) == (7, 3)


def test_spaces_around_a_key_are_ignored() -> None:
    assert parse(f"  {public_key()}\r\n") == parse(public_key())


FITS = [
    ("xpub", "bitcoin", "mainnet", "p2wpkh"),
    ("xpub", "bitcoin", "mainnet", "p2tr"),
    ("xpub", "bitcoin", "mainnet", "p2pkh"),
    ("ypub", "bitcoin", "mainnet", "p2sh-p2wpkh"),
    ("zpub", "bitcoin", "mainnet", "p2wpkh"),
    ("tpub", "bitcoin", "testnet", "p2tr"),
    ("tpub", "bitcoin", "testnet4", "p2wpkh"),
    ("upub", "bitcoin", "signet", "p2sh-p2wpkh"),
    ("vpub", "bitcoin", "regtest", "p2wpkh"),
    ("zpub", "bitcoin", "regtest", "p2wpkh"),
    ("xpub", "bitcoin", "regtest", "p2pkh"),
    ("zpub", "simulated-utxo", "demo", "p2wpkh"),
    ("tpub", "simulated-utxo", "demo", "p2wpkh"),
    ("xpub", "litecoin", "mainnet", "p2wpkh"),
    ("zpub", "litecoin", "mainnet", "p2wpkh"),
    ("Ltub", "litecoin", "mainnet", "p2pkh"),
    ("Ltub", "litecoin", "mainnet", "p2wpkh"),
    ("Mtub", "litecoin", "mainnet", "p2sh-p2wpkh"),
    ("ttub", "litecoin", "testnet", "p2wpkh"),
    ("tpub", "litecoin", "regtest", "p2wpkh"),
    ("Ltub", "litecoin", "regtest", "p2wpkh"),
    ("xpub", "dogecoin", "mainnet", "p2pkh"),
    ("dgub", "dogecoin", "mainnet", "p2pkh"),
    ("tgub", "dogecoin", "testnet", "p2pkh"),
    ("tpub", "dogecoin", "testnet", "p2pkh"),
    ("xpub", "ethereum", "mainnet", "evm"),
    ("xpub", "ethereum", "sepolia", "evm"),
    ("tpub", "ethereum", "sepolia", "evm"),
    ("xpub", "gnosis", "mainnet", "evm"),
    ("xpub", "simulated-evm", "demo", "evm"),
    ("xpub", "tron", "mainnet", "tron"),
    ("tpub", "tron", "nile", "tron"),
]


@pytest.mark.parametrize(("form", "chain", "network", "address_type"), FITS)
def test_every_form_a_wallet_exports_is_the_same_key(form: str, chain: str, network: str, address_type: str) -> None:
    key = parse(public_key(form=form), chain=chain, network=network, address_type=address_type)

    assert key == parse(public_key())


CONTRADICTIONS = [
    ("zpub", "bitcoin", "mainnet", "p2pkh", "zpub is a key for p2wpkh addresses, and this payment method uses p2pkh"),
    ("ypub", "bitcoin", "mainnet", "p2wpkh", "ypub is a key for p2sh-p2wpkh addresses"),
    ("zpub", "bitcoin", "mainnet", "p2tr", "set address_type to p2wpkh"),
    ("zpub", "dogecoin", "mainnet", "p2pkh", "zpub is a key for p2wpkh addresses"),
    ("vpub", "bitcoin", "regtest", "p2pkh", "vpub is a key for p2wpkh addresses"),
    ("Mtub", "litecoin", "mainnet", "p2wpkh", "Mtub is a key for p2sh-p2wpkh addresses"),
    ("Ltub", "bitcoin", "mainnet", "p2pkh", "Ltub is a litecoin key: give a key of a bitcoin account"),
    ("Mtub", "bitcoin", "mainnet", "p2sh-p2wpkh", "Mtub is a litecoin key"),
    ("ttub", "bitcoin", "testnet", "p2pkh", "ttub is a litecoin key"),
    ("dgub", "litecoin", "mainnet", "p2pkh", "dgub is a dogecoin key"),
    ("tgub", "simulated-utxo", "demo", "p2pkh", "tgub is a dogecoin key"),
    ("Ltub", "dogecoin", "mainnet", "p2pkh", "Ltub is a litecoin key"),
    ("tpub", "bitcoin", "mainnet", "p2pkh", "tpub is a test network key.*bitcoin mainnet: give a mainnet key"),
    ("vpub", "litecoin", "mainnet", "p2wpkh", "vpub is a test network key"),
    ("ttub", "litecoin", "mainnet", "p2wpkh", "ttub is a test network key"),
    ("xpub", "bitcoin", "testnet", "p2wpkh", "xpub is a mainnet key.*bitcoin testnet: give a test network key"),
    ("zpub", "bitcoin", "signet", "p2wpkh", "zpub is a mainnet key"),
    ("Ltub", "litecoin", "testnet", "p2pkh", "Ltub is a mainnet key"),
    ("dgub", "dogecoin", "testnet", "p2pkh", "dgub is a mainnet key"),
    ("zpub", "ethereum", "mainnet", "evm", "zpub is not a key for ethereum mainnet: give the xpub"),
    ("tpub", "ethereum", "mainnet", "evm", "tpub is not a key for ethereum mainnet"),
    ("vpub", "ethereum", "sepolia", "evm", "vpub is not a key for ethereum sepolia"),
    ("Ltub", "ethereum", "mainnet", "evm", "Ltub is not a key for ethereum mainnet"),
    ("ypub", "tron", "mainnet", "tron", "ypub is not a key for tron mainnet"),
    ("tpub", "tron", "mainnet", "tron", "tpub is not a key for tron mainnet"),
]


@pytest.mark.parametrize(("form", "chain", "network", "address_type", "sentence"), CONTRADICTIONS)
def test_a_key_of_another_script_chain_or_network_is_refused_with_what_to_give_instead(
    form: str, chain: str, network: str, address_type: str, sentence: str
) -> None:
    with pytest.raises(InvalidExtendedKey, match=sentence):
        parse(public_key(form=form), chain=chain, network=network, address_type=address_type)


@pytest.mark.parametrize("form", MULTISIG_VERSIONS)
@pytest.mark.parametrize("network", ["mainnet", "regtest"])
def test_multi_signature_keys_are_refused(form: str, network: str) -> None:
    assert "multi-signature" in refusal(public_key(form=form), network=network)


@pytest.mark.parametrize("depth", [0, 1, 2, 4, 5, 255])
def test_a_key_that_is_not_at_account_level_is_refused(depth: int) -> None:
    assert f"depth {depth}," in refusal(spelt(payload(depth=depth)))


@pytest.mark.parametrize("child", [0, 44, 2**31 - 1])
def test_an_account_that_is_not_hardened_is_refused(child: int) -> None:
    assert "not hardened" in refusal(spelt(payload(child=child)))


@pytest.mark.parametrize(
    "key",
    [
        b"\x02" + (5).to_bytes(32),
        b"\x04" + bytes(31) + b"\x01",
        b"\x06" + bytes(31) + b"\x01",
        b"\x02" + b"\xff" * 32,
        b"\x01" + bytes(31) + b"\x01",
    ],
    ids=["off the curve", "uncompressed", "hybrid", "above the field", "no such prefix"],
)
def test_a_key_that_is_no_point_of_the_curve_is_refused(key: bytes) -> None:
    assert "point of secp256k1" in refusal(spelt(payload(key=key)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "xpub",
        "not a key",
        "0x9858EfFD232B4033E47d90003D41EC34EcaEda94",
        "xpub\x00" + "é" * 100,
        "1" * 111,
        "1" * 500_000,
    ],
)
def test_what_is_no_base58check_is_refused(text: str) -> None:
    assert "not Base58Check with a correct checksum" in refusal(text)


def test_a_key_with_its_origin_in_brackets_is_refused_with_the_advice_to_leave_them_out() -> None:
    assert "without brackets" in refusal(f"[73c5da0a/84'/0'/0']{public_key()}")


def test_an_address_is_no_extended_key() -> None:
    assert "78 bytes" in refusal("1LqBGSKuX5yYUonjxT5qGfpUsXKYYWeabA")


@pytest.mark.parametrize("length", [77, 79])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    assert "78 bytes" in refusal(spelt((payload() + b"\x01")[:length]))


@pytest.mark.parametrize("version", ["00000000", "03e25d7e", "ffffffff"])
def test_unknown_version_bytes_are_refused_with_the_forms_we_know(version: str) -> None:
    sentence = refusal(spelt(bytes.fromhex(version) + payload()[4:]))

    assert all(form in sentence for form in PUBLIC_VERSIONS)


@pytest.mark.parametrize("form", PRIVATE_VERSIONS)
def test_a_private_key_is_refused_as_such_before_anything_is_read_of_it(form: str) -> None:
    with pytest.raises(PrivateMaterial):
        parse(private_key(form=form), chain="dogecoin", address_type="p2pkh")


@settings(max_examples=60, deadline=None)
@given(
    position=st.integers(0, 110), replacement=st.sampled_from("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrst")
)
def test_one_wrong_character_is_always_found(position: int, replacement: str) -> None:
    key = public_key()
    assume(key[position] != replacement)

    with pytest.raises((InvalidExtendedKey, PrivateMaterial)):
        parse(key[:position] + replacement + key[position + 1 :])


@settings(max_examples=60, deadline=None)
@given(payload=account_payloads(), version=st.sampled_from(sorted(PUBLIC_VERSIONS.values())))
def test_any_account_key_is_read_refused_by_a_sentence_without_it_and_derivable(payload: bytes, version: str) -> None:
    text = spelt(bytes.fromhex(version) + payload[4:])

    if version not in (PUBLIC_VERSIONS["xpub"], PUBLIC_VERSIONS["zpub"]):
        assert text[4:20] not in refusal(text)
        return

    key = parse(text)
    assert key.xpub == spelt(payload)
    assert key.account_index == int.from_bytes(payload[9:13]) - 2**31
    assert RingKey.from_xpub(key.xpub).address(0, spec=BITCOIN, address_type=AddressType.P2WPKH).startswith("bc1q")


def test_a_parsed_key_is_not_shown_by_its_repr() -> None:
    key = parse(public_key())

    assert repr(key) == "ExtendedPublicKey(account_index=0, depth=3)"


def test_no_refusal_repeats_any_of_the_key() -> None:
    for form, chain, network, address_type, _ in CONTRADICTIONS:
        text = public_key(form=form)
        sentence = refusal(text, chain=chain, network=network, address_type=address_type)
        assert not any(text[start : start + 5] in sentence for start in range(len(text) - 5))
