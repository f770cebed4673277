import hashlib

import pytest
from bip_utils import CoinsConf

from keyserver.chains.catalog import (
    AddressType,
    ChainSpec,
    Family,
    UtxoParams,
    chain_spec,
    choose_address_type,
    coin_types,
    has_known_coin,
    is_testnet,
    match_key,
)


def spec_of(chain: str, network: str = "mainnet", *, type_: str = "native") -> ChainSpec:
    return chain_spec(chain, network, type=type_)


@pytest.mark.parametrize(
    ("chain", "network", "params"),
    [
        ("bitcoin", "mainnet", UtxoParams(0x00, 0x05, "bc")),
        ("bitcoin", "testnet", UtxoParams(0x6F, 0xC4, "tb")),
        ("bitcoin", "testnet4", UtxoParams(0x6F, 0xC4, "tb")),
        ("bitcoin", "signet", UtxoParams(0x6F, 0xC4, "tb")),
        ("bitcoin", "regtest", UtxoParams(0x6F, 0xC4, "bcrt")),
        ("litecoin", "mainnet", UtxoParams(0x30, 0x32, "ltc")),
        ("litecoin", "testnet", UtxoParams(0x6F, 0x3A, "tltc")),
        ("litecoin", "regtest", UtxoParams(0x6F, 0x3A, "rltc")),
        ("dogecoin", "mainnet", UtxoParams(0x1E, 0x16, None)),
        ("dogecoin", "testnet", UtxoParams(0x71, 0xC4, None)),
        ("dogecoin", "regtest", UtxoParams(0x6F, 0xC4, None)),
        ("simulated-utxo", "demo", UtxoParams(0x6F, 0xC4, "bcrt")),
    ],
)
def test_addresses_are_spelt_as_the_chains_node_software_spells_them(
    chain: str, network: str, params: UtxoParams
) -> None:
    spec = spec_of(chain, network)

    assert spec.utxo == params
    assert (spec.family, spec.decimals) == (Family.UTXO, 8)


@pytest.mark.parametrize(
    ("chain", "network", "table"),
    [
        ("bitcoin", "mainnet", CoinsConf.BitcoinMainNet),
        ("bitcoin", "testnet", CoinsConf.BitcoinTestNet),
        ("bitcoin", "regtest", CoinsConf.BitcoinRegTest),
        ("litecoin", "mainnet", CoinsConf.LitecoinMainNet),
        ("litecoin", "testnet", CoinsConf.LitecoinTestNet),
        ("dogecoin", "mainnet", CoinsConf.DogecoinMainNet),
        ("dogecoin", "testnet", CoinsConf.DogecoinTestNet),
    ],
)
def test_address_constants_agree_with_the_tables_of_bip_utils(chain: str, network: str, table: object) -> None:
    theirs = vars(table)["m_params"]
    ours = spec_of(chain, network).utxo

    assert ours is not None
    assert bytes([ours.p2pkh_version]) == theirs.get("p2pkh_std_net_ver", theirs.get("p2pkh_net_ver"))
    assert bytes([ours.p2sh_version]) == theirs.get("p2sh_std_net_ver", theirs.get("p2sh_net_ver"))
    assert ours.bech32_hrp == theirs.get("p2wpkh_hrp")


#: version, merkle root, time, bits, nonce of block 0, as `CreateGenesisBlock` is called in each chainparams.cpp.
_SATOSHIS = "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"
GENESIS_HEADERS = {
    ("bitcoin", "mainnet"): (1, _SATOSHIS, 1231006505, 0x1D00FFFF, 2083236893),
    ("bitcoin", "testnet"): (1, _SATOSHIS, 1296688602, 0x1D00FFFF, 414098458),
    ("bitcoin", "testnet4"): (
        1,
        "7aa0a7ae1e223414cb807e40cd57e667b718e42aaf9306db9102fe28912b7b4e",
        1714777860,
        0x1D00FFFF,
        393743547,
    ),
    ("bitcoin", "signet"): (1, _SATOSHIS, 1598918400, 0x1E0377AE, 52613770),
    ("litecoin", "mainnet"): (
        1,
        "97ddfbbae6be97fd6cdf3e7ca13232a3afff2353e29badfab7f73011edd4ced9",
        1317972665,
        0x1E0FFFF0,
        2084524493,
    ),
    ("dogecoin", "mainnet"): (
        1,
        "5b2a3f53f605d62c53e62932dac6925e3d74afa5a4b459745c36d42d0ed26a69",
        1386325540,
        0x1E0FFFF0,
        99943,
    ),
}


@pytest.mark.parametrize(("chain", "network"), GENESIS_HEADERS)
def test_a_node_identity_is_the_hash_of_the_genesis_header(chain: str, network: str) -> None:
    version, merkle_root, time, bits, nonce = GENESIS_HEADERS[chain, network]
    header = (
        version.to_bytes(4, "little")
        + bytes(32)
        + bytes.fromhex(merkle_root)[::-1]
        + time.to_bytes(4, "little")
        + bits.to_bytes(4, "little")
        + nonce.to_bytes(4, "little")
    )

    assert spec_of(chain, network).node_identity == (
        hashlib.sha256(hashlib.sha256(header).digest()).digest()[::-1].hex()
    )


@pytest.mark.parametrize(
    ("chain", "chain_id"),
    [
        ("ethereum", "1"),
        ("base", "8453"),
        ("arbitrum", "42161"),
        ("optimism", "10"),
        ("polygon", "137"),
        ("bsc", "56"),
        ("avalanche", "43114"),
    ],
)
def test_the_node_of_an_evm_mainnet_is_known_by_its_chain_id(chain: str, chain_id: str) -> None:
    spec = spec_of(chain)

    assert spec.node_identity == chain_id
    assert (spec.family, spec.decimals, spec.utxo) == (Family.EVM, 18, None)
    assert spec_of(chain, "sepolia").node_identity is None


def test_chain_and_network_are_read_in_any_case() -> None:
    assert spec_of(" Bitcoin", "MainNet") == spec_of("bitcoin", "mainnet")
    assert spec_of("ETHEREUM", "Sepolia").network == "sepolia"


@pytest.mark.parametrize("type_", ["evm", "erc20", "eth", "stablecoin", "ERC20"])
def test_an_unknown_chain_is_an_evm_chain_when_the_type_says_so(type_: str) -> None:
    spec = spec_of("Gnosis", type_=type_)

    assert (spec.chain, spec.family, spec.address_types) == ("gnosis", Family.EVM, (AddressType.EVM,))
    assert spec.node_identity is None
    assert spec.default_confirmations == spec_of("ethereum").default_confirmations


def test_a_known_chains_name_decides_over_the_type() -> None:
    assert spec_of("tron", type_="stablecoin").family is Family.TRON
    assert spec_of("bitcoin", type_="erc20").family is Family.UTXO


def test_an_unknown_chain_of_another_type_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match=r"chain is none of .*bitcoin.*, tron: name one of these") as caught:
        spec_of("bitcon", type_="native")

    assert "bitcon" not in str(caught.value)
    assert "simulated" not in str(caught.value)


@pytest.mark.parametrize(
    ("chain", "network", "networks"),
    [
        ("bitcoin", "sepolia", "mainnet, testnet, testnet4, signet, regtest"),
        ("litecoin", "signet", "mainnet, testnet, regtest"),
        ("dogecoin", "", "mainnet, testnet, regtest"),
        ("tron", "testnet", "mainnet, nile, shasta"),
        ("simulated-utxo", "mainnet", "demo"),
        ("simulated-evm", "mainnet", "demo"),
    ],
)
def test_a_network_the_chain_does_not_have_is_refused_with_those_it_has(
    chain: str, network: str, networks: str
) -> None:
    with pytest.raises(ValueError, match=f"^{chain} has no such network: give one of {networks}$"):
        spec_of(chain, network)


@pytest.mark.parametrize(
    ("chain", "network"), [("ethereum", ""), ("ethereum", "main net"), ("a/b", "mainnet"), ("x" * 33, "mainnet")]
)
def test_evm_names_are_single_words(chain: str, network: str) -> None:
    with pytest.raises(ValueError, match="single words"):
        spec_of(chain, network, type_="evm")


def test_segwit_chains_offer_native_segwit_first_and_dogecoin_only_legacy() -> None:
    for chain in ("bitcoin", "litecoin"):
        assert spec_of(chain).address_types == ("p2wpkh", "p2tr", "p2sh-p2wpkh", "p2pkh")
    assert spec_of("dogecoin").address_types == ("p2pkh",)


def test_the_simulated_chains_are_marked_and_settle_after_two_confirmations() -> None:
    utxo, evm = spec_of("simulated-utxo", "demo"), spec_of("simulated-evm", "demo")

    assert (utxo.family, evm.family) == (Family.UTXO, Family.EVM)
    for spec in (utxo, evm):
        assert spec.simulated
        assert is_testnet(spec)
        assert spec.default_confirmations == 2
        assert spec.node_identity is None
    assert not spec_of("bitcoin").simulated


def test_coins_that_reorganise_more_easily_wait_longer_and_a_regtest_does_not_wait() -> None:
    confirmations = {chain: spec_of(chain).default_confirmations for chain in ("bitcoin", "litecoin", "dogecoin")}

    assert 1 < confirmations["bitcoin"] < confirmations["litecoin"] < confirmations["dogecoin"]
    assert spec_of("litecoin", "testnet").default_confirmations == confirmations["litecoin"]
    assert spec_of("litecoin", "regtest").default_confirmations == 1
    assert spec_of("ethereum", "regtest").default_confirmations == 1


@pytest.mark.parametrize(
    ("chain", "network", "accepted"),
    [
        ("bitcoin", "mainnet", {0}),
        ("bitcoin", "signet", {0, 1}),
        ("litecoin", "mainnet", {2}),
        ("litecoin", "regtest", {1, 2}),
        ("dogecoin", "mainnet", {3}),
        ("dogecoin", "testnet", {1, 3}),
        ("simulated-utxo", "demo", {0, 1}),
        ("tron", "mainnet", {195}),
        ("tron", "nile", {1, 195}),
        ("ethereum", "mainnet", set()),
        ("simulated-evm", "demo", set()),
    ],
)
def test_coin_types_are_the_chains_own_one_on_test_networks_and_any_on_evm(
    chain: str, network: str, accepted: set[int]
) -> None:
    assert coin_types(spec_of(chain, network)) == accepted


def test_only_mainnet_is_no_testnet() -> None:
    assert not is_testnet(spec_of("bitcoin"))
    assert not is_testnet(spec_of("base"))
    assert is_testnet(spec_of("bitcoin", "regtest"))
    assert is_testnet(spec_of("base", "sepolia"))
    assert is_testnet(spec_of("tron", "shasta"))


def test_addresses_match_without_case_on_evm_and_with_it_elsewhere() -> None:
    assert match_key(Family.EVM, "0x9858EfFD232B4033E47d90003D41EC34EcaEda94") == (
        "0x9858effd232b4033e47d90003d41ec34ecaeda94"
    )
    for family, address in [
        (Family.UTXO, "1LqBGSKuX5yYUonjxT5qGfpUsXKYYWeabA"),
        (Family.TRON, "TUEZSdKsoDHQMeZwihtdoBiN46zxhGWYdH"),
    ]:
        assert match_key(family, address) == address


def test_an_address_type_is_the_one_asked_for_or_the_default() -> None:
    bitcoin = spec_of("bitcoin")

    assert choose_address_type(bitcoin, None) is AddressType.P2WPKH
    assert choose_address_type(bitcoin, " P2TR ") is AddressType.P2TR
    assert choose_address_type(spec_of("tron"), None) is AddressType.TRON
    with pytest.raises(ValueError, match=r"^dogecoin has no such address type: give one of p2pkh$"):
        choose_address_type(spec_of("dogecoin"), "p2wpkh")


@pytest.mark.parametrize(
    ("chain", "coin"),
    [
        ("bitcoin", "BTC"),
        ("litecoin", "LTC"),
        ("dogecoin", "DOGE"),
        ("ethereum", "ETH"),
        ("base", "ETH"),
        ("arbitrum", "ETH"),
        ("optimism", "ETH"),
        ("polygon", "POL"),
        ("bsc", "BNB"),
        ("avalanche", "AVAX"),
        ("tron", "TRX"),
    ],
)
def test_a_chains_own_coin_is_known_by_its_symbol(chain: str, coin: str) -> None:
    assert spec_of(chain).coin == coin
    assert has_known_coin(spec_of(chain))


@pytest.mark.parametrize(
    ("chain", "network", "coin"),
    [
        ("gnosis", "mainnet", "GNOSIS"),
        ("simulated-utxo", "demo", "DEMOBTC"),
        ("simulated-evm", "demo", "DEMOETH"),
    ],
)
def test_the_coin_of_an_unknown_or_a_simulated_chain_is_one_no_market_knows(
    chain: str, network: str, coin: str
) -> None:
    spec = spec_of(chain, network, type_="evm")

    assert spec.coin == coin
    assert not has_known_coin(spec)
