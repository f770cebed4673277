"""What the world knows about chains: families, networks, address constants, sane defaults.

Sources: `chainparams.cpp` of Bitcoin Core, Litecoin Core and Dogecoin Core (address versions, genesis hashes, and
Dogecoin's `nCoinbaseMaturity`), `consensus.h` of the first two (COINBASE_MATURITY), SLIP-44 (coin types), SLIP-173
(bech32 prefixes), EIP-155 (chain ids). Default confirmations follow what payment processors
publish; an operator sets others when registering a payment method.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never


class Family(StrEnum):
    UTXO = "utxo"
    EVM = "evm"
    TRON = "tron"


class AddressType(StrEnum):
    P2WPKH = "p2wpkh"
    P2TR = "p2tr"
    P2SH_P2WPKH = "p2sh-p2wpkh"
    P2PKH = "p2pkh"
    EVM = "evm"
    TRON = "tron"


@dataclass(frozen=True, slots=True)
class UtxoParams:
    """Version bytes of Base58Check addresses, and the prefix of bech32 ones (None: the chain has no segwit)."""

    p2pkh_version: int
    p2sh_version: int
    bech32_hrp: str | None


@dataclass(frozen=True, slots=True)
class ChainSpec:
    """One chain on one network.

    `address_types` starts with the default. `coin` is the symbol of the chain's own coin (of an EVM chain we do not
    know: its name in upper case), `decimals` are that coin's. `node_identity` is what its nodes must say (genesis block
    hash, or chain id in decimal), None where we do not know or it is not fixed. `coinbase_maturity`: confirmations
    after which the chain lets the coins of a block reward be spent, 0 where there are none.
    """

    chain: str
    network: str
    family: Family
    address_types: tuple[AddressType, ...]
    default_confirmations: int
    coin: str
    decimals: int
    simulated: bool
    utxo: UtxoParams | None
    node_identity: str | None
    coinbase_maturity: int = 0


@dataclass(frozen=True, slots=True)
class _UtxoChain:
    coin: str
    coin_type: int
    confirmations: int
    coinbase_maturity: int
    address_types: tuple[AddressType, ...]
    networks: dict[str, tuple[UtxoParams, str | None]]


@dataclass(frozen=True, slots=True)
class _EvmChain:
    coin: str
    chain_id: int | None
    confirmations: int


MAINNET = "mainnet"
DEMO = "demo"

#: Networks that live on one machine: nothing on them is worth anything, and wallets' mainnet keys may be tried there.
LOCAL_NETWORKS = frozenset({"regtest", DEMO})

_TESTNET_COIN_TYPE = 1
_SEGWIT_TYPES = (AddressType.P2WPKH, AddressType.P2TR, AddressType.P2SH_P2WPKH, AddressType.P2PKH)
_BITCOIN_TEST = UtxoParams(0x6F, 0xC4, "tb")
_BITCOIN_REGTEST = UtxoParams(0x6F, 0xC4, "bcrt")

_UTXO_CHAINS = {
    "bitcoin": _UtxoChain(
        coin="BTC",
        coin_type=0,
        confirmations=3,
        coinbase_maturity=100,
        address_types=_SEGWIT_TYPES,
        networks={
            "mainnet": (
                UtxoParams(0x00, 0x05, "bc"),
                "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
            ),
            "testnet": (_BITCOIN_TEST, "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943"),
            "testnet4": (_BITCOIN_TEST, "00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043"),
            "signet": (_BITCOIN_TEST, "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6"),
            "regtest": (_BITCOIN_REGTEST, None),
        },
    ),
    "litecoin": _UtxoChain(
        coin="LTC",
        coin_type=2,
        confirmations=12,
        coinbase_maturity=100,
        address_types=_SEGWIT_TYPES,
        networks={
            "mainnet": (
                UtxoParams(0x30, 0x32, "ltc"),
                "12a765e31ffd4059bada1e25190f6e98c99d9714d334efa41a195a7e7e04bfe2",
            ),
            "testnet": (UtxoParams(0x6F, 0x3A, "tltc"), None),
            "regtest": (UtxoParams(0x6F, 0x3A, "rltc"), None),
        },
    ),
    "dogecoin": _UtxoChain(
        coin="DOGE",
        coin_type=3,
        confirmations=33,
        coinbase_maturity=240,  # since height 145,000; 30 before
        address_types=(AddressType.P2PKH,),
        networks={
            "mainnet": (
                UtxoParams(0x1E, 0x16, None),
                "1a91e3dace36e2be3bf030a65679fe821aa1d6ef92e7c9902eb318182c355691",
            ),
            "testnet": (UtxoParams(0x71, 0xC4, None), None),
            "regtest": (UtxoParams(0x6F, 0xC4, None), None),
        },
    ),
    "simulated-utxo": _UtxoChain(
        coin="DEMOBTC",
        coin_type=0,
        confirmations=2,
        coinbase_maturity=0,
        address_types=_SEGWIT_TYPES,
        networks={DEMO: (_BITCOIN_REGTEST, None)},
    ),
}

_EVM_CHAINS = {
    "ethereum": _EvmChain("ETH", 1, 33),
    "base": _EvmChain("ETH", 8453, 30),
    "arbitrum": _EvmChain("ETH", 42161, 300),
    "optimism": _EvmChain("ETH", 10, 30),
    "polygon": _EvmChain("POL", 137, 128),
    "bsc": _EvmChain("BNB", 56, 15),
    "avalanche": _EvmChain("AVAX", 43114, 12),
    "simulated-evm": _EvmChain("DEMOETH", None, 2),
}
_OTHER_EVM_CONFIRMATIONS = 33
_EVM_TYPE_WORDS = frozenset({"evm", "erc20", "eth", "stablecoin"})

_TRON_COIN_TYPE = 195
#: Chain ids are the last four bytes of the genesis block's hash.
_TRON_NETWORKS = {"mainnet": 0x2B6653DC, "nile": 0xCD8690DC, "shasta": 0x94A9059E}
#: A block is solid once 19 of the 27 super representatives have built on it.
_TRON_CONFIRMATIONS = 20

_SIMULATED = frozenset({"simulated-utxo", "simulated-evm"})
_WORD = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


def chain_spec(chain: str, network: str, *, type: str) -> ChainSpec:  # noqa: A002 - the wire's word
    """The chain `chain` on `network`; both in any case.

    A chain we do not know by name is an EVM chain when `type` (the payment method's: `erc20`, `evm`, …) says so.
    ValueError, with one sentence that names what to mend, for any other chain and a network the chain does not have.
    """
    chain, network = chain.strip().lower(), network.strip().lower()
    if chain in _UTXO_CHAINS:
        return _utxo_spec(chain, network)
    if chain == "tron":
        return _tron_spec(network)
    if chain not in _EVM_CHAINS and type.strip().lower() not in _EVM_TYPE_WORDS:
        known = ", ".join(sorted({*_UTXO_CHAINS, *_EVM_CHAINS, "tron"} - _SIMULATED))
        raise ValueError(f"chain is none of {known}: name one of these, or give type evm for another EVM chain")
    return _evm_spec(chain, network)


def _utxo_spec(chain: str, network: str) -> ChainSpec:
    known = _UTXO_CHAINS[chain]
    _require_network(chain, network, tuple(known.networks))
    params, genesis_hash = known.networks[network]
    return ChainSpec(
        chain=chain,
        network=network,
        family=Family.UTXO,
        address_types=known.address_types,
        default_confirmations=_confirmations(known.confirmations, network),
        coin=known.coin,
        decimals=8,
        simulated=chain in _SIMULATED,
        utxo=params,
        node_identity=genesis_hash,
        coinbase_maturity=known.coinbase_maturity,
    )


def _evm_spec(chain: str, network: str) -> ChainSpec:
    simulated = chain in _SIMULATED
    if simulated:
        _require_network(chain, network, (DEMO,))
    if not (_WORD.fullmatch(chain) and _WORD.fullmatch(network)):
        raise ValueError("chain and network must be single words of letters, digits and hyphens")
    known = _EVM_CHAINS.get(chain) or _EvmChain(chain.upper(), None, _OTHER_EVM_CONFIRMATIONS)
    return ChainSpec(
        chain=chain,
        network=network,
        family=Family.EVM,
        address_types=(AddressType.EVM,),
        default_confirmations=_confirmations(known.confirmations, network),
        coin=known.coin,
        decimals=18,
        simulated=simulated,
        utxo=None,
        node_identity=str(known.chain_id) if network == MAINNET and known.chain_id else None,
    )


def _tron_spec(network: str) -> ChainSpec:
    _require_network("tron", network, tuple(_TRON_NETWORKS))
    return ChainSpec(
        chain="tron",
        network=network,
        family=Family.TRON,
        address_types=(AddressType.TRON,),
        default_confirmations=_TRON_CONFIRMATIONS,
        coin="TRX",
        decimals=6,
        simulated=False,
        utxo=None,
        node_identity=str(_TRON_NETWORKS[network]),
    )


def _require_network(chain: str, network: str, networks: tuple[str, ...]) -> None:
    if network not in networks:
        raise ValueError(f"{chain} has no such network: give one of {', '.join(networks)}")


def _confirmations(on_public_networks: int, network: str) -> int:
    return 1 if network == "regtest" else on_public_networks


def choose_address_type(spec: ChainSpec, wanted: str | None) -> AddressType:
    """The address type named by `wanted` in any case, the chain's default for None; ValueError when it has no such."""
    if wanted is None:
        return spec.address_types[0]
    for address_type in spec.address_types:
        if address_type == wanted.strip().lower():
            return address_type
    raise ValueError(f"{spec.chain} has no such address type: give one of {', '.join(spec.address_types)}")


def match_key(family: Family, address: str) -> str:
    """What addresses are compared by: lower case on EVM chains, where case is a checksum; as written elsewhere."""
    match family:
        case Family.EVM:
            return address.lower()
        case Family.UTXO | Family.TRON:
            return address
        case _:
            assert_never(family)


def coin_types(spec: ChainSpec) -> frozenset[int]:
    """SLIP-44 coin types whose accounts may serve this chain; empty means any.

    Test networks share coin type 1, though wallets often keep the chain's own there. EVM chains share addresses, and
    wallets use 60 for all of them or a number of the chain's own.
    """
    match spec.family:
        case Family.EVM:
            return frozenset()
        case Family.UTXO:
            own = _UTXO_CHAINS[spec.chain].coin_type
        case Family.TRON:
            own = _TRON_COIN_TYPE
        case _:
            assert_never(spec.family)
    return frozenset({own, _TESTNET_COIN_TYPE}) if is_testnet(spec) else frozenset({own})


def is_testnet(spec: ChainSpec) -> bool:
    """Whether coins on this network are worth nothing: any network but the main one."""
    return spec.network != MAINNET


def has_known_coin(spec: ChainSpec) -> bool:
    """Whether `spec.coin` is what the world calls the coin: not a simulated chain's, not one named after its chain."""
    return not spec.simulated and (spec.family is not Family.EVM or spec.chain in _EVM_CHAINS)
