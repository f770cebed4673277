import pytest
from bip_utils import (
    Bip44,
    Bip44Changes,
    Bip44Coins,
    Bip49,
    Bip49Coins,
    Bip84,
    Bip84Coins,
    Bip86,
    Bip86Coins,
    Secp256k1PublicKey,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.addresses.account_keys import (
    COMBINATIONS,
    SPECS,
    Vector,
    account_payloads,
    address_vectors,
    phrase_seed,
    private_node,
    public_key,
    spelt,
)

from keyserver.addresses.derive import MAX_INDEX, RingKey
from keyserver.addresses.reference import encode_address, lift, reference_address
from keyserver.addresses.xpub import parse_extended_public_key
from keyserver.chains.catalog import AddressType, ChainSpec, chain_spec


@pytest.mark.parametrize("vector", address_vectors(), ids=lambda vector: f"{vector.source} {vector.path}")
def test_published_addresses_come_out_of_both_implementations(vector: Vector) -> None:
    key = parse_extended_public_key(vector.key, spec=vector.spec, address_type=vector.address_type)
    ring = RingKey.from_xpub(key.xpub)

    for index, address in vector.addresses.items():
        assert ring.address(index, spec=vector.spec, address_type=vector.address_type) == address
        assert reference_address(key.xpub, index, spec=vector.spec, address_type=vector.address_type) == address


@pytest.mark.parametrize("vector", address_vectors(), ids=lambda vector: f"{vector.source} {vector.path}")
def test_the_keys_of_the_vectors_are_those_of_the_published_phrase(vector: Vector) -> None:
    key = parse_extended_public_key(vector.key, spec=vector.spec, address_type=vector.address_type)

    assert key.xpub == public_key(vector.path)


@settings(max_examples=150, deadline=None)
@given(
    payload=account_payloads(),
    index=st.one_of(st.sampled_from([0, 1, MAX_INDEX]), st.integers(0, MAX_INDEX)),
    combination=st.sampled_from(COMBINATIONS),
)
def test_both_implementations_agree_on_any_key_index_and_address_type(
    payload: bytes, index: int, combination: tuple[ChainSpec, AddressType]
) -> None:
    spec, address_type = combination
    xpub = spelt(payload)

    assert RingKey.from_xpub(xpub).address(index, spec=spec, address_type=address_type) == reference_address(
        xpub, index, spec=spec, address_type=address_type
    )


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.chain}-{spec.network}")
def test_both_implementations_agree_on_every_address_type_of_every_chain(spec: ChainSpec) -> None:
    xpub = public_key("m/84'/0'/5'")

    for address_type in spec.address_types:
        assert RingKey.from_xpub(xpub).address(MAX_INDEX, spec=spec, address_type=address_type) == reference_address(
            xpub, MAX_INDEX, spec=spec, address_type=address_type
        )


@pytest.mark.parametrize(
    ("wallet", "coin", "path", "chain", "network", "address_type"),
    [
        (Bip44, Bip44Coins.BITCOIN, "m/44'/0'/2'", "bitcoin", "mainnet", "p2pkh"),
        (Bip49, Bip49Coins.BITCOIN, "m/49'/0'/2'", "bitcoin", "mainnet", "p2sh-p2wpkh"),
        (Bip84, Bip84Coins.BITCOIN, "m/84'/0'/2'", "bitcoin", "mainnet", "p2wpkh"),
        (Bip86, Bip86Coins.BITCOIN, "m/86'/0'/2'", "bitcoin", "mainnet", "p2tr"),
        (Bip84, Bip84Coins.BITCOIN_TESTNET, "m/84'/1'/2'", "bitcoin", "signet", "p2wpkh"),
        (Bip86, Bip86Coins.BITCOIN_REGTEST, "m/86'/1'/2'", "bitcoin", "regtest", "p2tr"),
        (Bip84, Bip84Coins.BITCOIN_REGTEST, "m/84'/1'/2'", "simulated-utxo", "demo", "p2wpkh"),
        (Bip44, Bip44Coins.LITECOIN, "m/44'/2'/2'", "litecoin", "mainnet", "p2pkh"),
        (Bip49, Bip49Coins.LITECOIN, "m/49'/2'/2'", "litecoin", "mainnet", "p2sh-p2wpkh"),
        (Bip84, Bip84Coins.LITECOIN, "m/84'/2'/2'", "litecoin", "mainnet", "p2wpkh"),
        (Bip84, Bip84Coins.LITECOIN_TESTNET, "m/84'/1'/2'", "litecoin", "testnet", "p2wpkh"),
        (Bip44, Bip44Coins.DOGECOIN, "m/44'/3'/2'", "dogecoin", "mainnet", "p2pkh"),
        (Bip44, Bip44Coins.DOGECOIN_TESTNET, "m/44'/1'/2'", "dogecoin", "testnet", "p2pkh"),
        (Bip44, Bip44Coins.ETHEREUM, "m/44'/60'/2'", "ethereum", "mainnet", "evm"),
        (Bip44, Bip44Coins.ETHEREUM, "m/44'/60'/2'", "simulated-evm", "demo", "evm"),
        (Bip44, Bip44Coins.TRON, "m/44'/195'/2'", "tron", "mainnet", "tron"),
    ],
)
def test_a_wallet_that_holds_the_seed_shows_the_same_address(
    wallet: type[Bip44], coin: object, path: str, chain: str, network: str, address_type: str
) -> None:
    receiving = wallet.FromSeed(phrase_seed(), coin).Purpose().Coin().Account(2).Change(Bip44Changes.CHAIN_EXT)
    ring = RingKey.from_xpub(public_key(path))
    spec = chain_spec(chain, network, type="native")

    for index in (0, 77):
        shown = receiving.AddressIndex(index).PublicKey().ToAddress()
        assert ring.address(index, spec=spec, address_type=AddressType(address_type)) == shown


def test_the_private_key_at_the_same_path_spends_from_the_address() -> None:
    spec = chain_spec("bitcoin", "mainnet", type="native")
    address = RingKey.from_xpub(public_key("m/84'/0'/0'")).address(9, spec=spec, address_type=AddressType.P2WPKH)
    owner = private_node("m/84'/0'/0'/0/9").PublicKey()

    assert address == encode_address(lift(owner.RawCompressed().ToBytes()), spec=spec, address_type=AddressType.P2WPKH)


@pytest.mark.parametrize("index", [-1, 2**31, 2**32])
def test_only_unhardened_indexes_have_addresses(index: int) -> None:
    spec = chain_spec("bitcoin", "mainnet", type="native")
    xpub = public_key()

    with pytest.raises(ValueError, match="from 0 to 2147483647"):
        RingKey.from_xpub(xpub).address(index, spec=spec, address_type=AddressType.P2WPKH)
    with pytest.raises(ValueError, match="0 to 2"):
        reference_address(xpub, index, spec=spec, address_type=AddressType.P2WPKH)


@pytest.mark.parametrize(
    ("chain", "address_type"), [("dogecoin", "p2wpkh"), ("bitcoin", "evm"), ("ethereum", "p2pkh"), ("tron", "evm")]
)
def test_an_address_type_of_another_chain_is_refused(chain: str, address_type: str) -> None:
    spec = chain_spec(chain, "mainnet", type="native")

    with pytest.raises(ValueError, match=f"^{chain} has no {address_type} addresses$"):
        RingKey.from_xpub(public_key()).address(0, spec=spec, address_type=AddressType(address_type))
    with pytest.raises(ValueError, match=f"^{chain} has no {address_type} addresses$"):
        reference_address(public_key(), 0, spec=spec, address_type=AddressType(address_type))


def test_one_ring_serves_every_chain_that_shares_its_account() -> None:
    ring = RingKey.from_xpub(public_key("m/44'/60'/0'"))

    addresses = {
        ring.address(3, spec=chain_spec(chain, "mainnet", type="erc20"), address_type=AddressType.EVM)
        for chain in ("ethereum", "base", "polygon", "gnosis")
    }

    assert len(addresses) == 1


def test_bip_utils_computes_with_libsecp256k1() -> None:
    key = Secp256k1PublicKey.FromBytes(private_node("m").PublicKey().RawCompressed().ToBytes())

    assert type(key.UnderlyingObject()).__module__.split(".")[0] == "coincurve"


def test_a_ring_does_not_show_its_key() -> None:
    xpub = public_key()

    assert xpub[:12] not in repr(RingKey.from_xpub(xpub))
