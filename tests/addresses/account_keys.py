"""Keys for tests, made at run time from the published BIP-39 test phrase. Everybody has its keys: worthless."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bip_utils import Base58Decoder, Base58Encoder, Bip32Slip10Secp256k1, Bip39SeedGenerator
from hypothesis import strategies as st

from keyserver.addresses.reference import N, compress, multiply_generator
from keyserver.chains.catalog import AddressType, ChainSpec, chain_spec

TEST_PHRASE = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about"
VECTORS = Path(__file__).parent.parent / "vectors"

#: SLIP-132's public version bytes, and Dogecoin's.
PUBLIC_VERSIONS = {
    "xpub": "0488b21e",
    "ypub": "049d7cb2",
    "zpub": "04b24746",
    "tpub": "043587cf",
    "upub": "044a5262",
    "vpub": "045f1cf6",
    "Ltub": "019da462",
    "Mtub": "01b26ef6",
    "ttub": "0436f6e1",
    "dgub": "02facafd",
    "tgub": "0432a9a8",
}
MULTISIG_VERSIONS = {"Ypub": "0295b43f", "Zpub": "02aa7ed3", "Upub": "024289ef", "Vpub": "02575483"}
PRIVATE_VERSIONS = {
    "xprv": "0488ade4",
    "yprv": "049d7878",
    "zprv": "04b2430c",
    "Yprv": "0295b005",
    "Zprv": "02aa7a99",
    "tprv": "04358394",
    "uprv": "044a4e28",
    "vprv": "045f18bc",
    "Uprv": "024285b5",
    "Vprv": "02575048",
    "Ltpv": "019d9cfe",
    "Mtpv": "01b26792",
    "ttpv": "0436ef7d",
    "dgpv": "02fac398",
    "tgpv": "0432a243",
}

#: Every chain and network whose addresses are spelt differently, and some that share a spelling.
SPECS = [
    chain_spec(chain, network, type="evm")
    for chain, network in [
        ("bitcoin", "mainnet"),
        ("bitcoin", "testnet"),
        ("bitcoin", "signet"),
        ("bitcoin", "regtest"),
        ("litecoin", "mainnet"),
        ("litecoin", "testnet"),
        ("litecoin", "regtest"),
        ("dogecoin", "mainnet"),
        ("dogecoin", "testnet"),
        ("dogecoin", "regtest"),
        ("ethereum", "mainnet"),
        ("gnosis", "mainnet"),
        ("tron", "mainnet"),
        ("simulated-utxo", "demo"),
        ("simulated-evm", "demo"),
    ]
]
COMBINATIONS = [(spec, address_type) for spec in SPECS for address_type in spec.address_types]


@dataclass(frozen=True)
class Vector:
    source: str
    spec: ChainSpec
    address_type: AddressType
    path: str
    key: str
    addresses: dict[int, str]


def read_vectors(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((VECTORS / f"{name}.json").read_text())
    return document


def address_vectors() -> list[Vector]:
    return [
        Vector(
            source=document["source"],
            spec=chain_spec(vector["chain"], vector["network"], type="native"),
            address_type=AddressType(vector["address_type"]),
            path=vector["path"],
            key=vector["key"],
            addresses={int(index): address for index, address in vector["addresses"].items()},
        )
        for document in map(read_vectors, ("slip132", "bip44", "bip49", "bip84", "bip86", "tron"))
        for vector in document["vectors"]
    ]


@cache
def phrase_seed() -> bytes:
    seed: bytes = Bip39SeedGenerator(TEST_PHRASE).Generate()
    return seed


@cache
def private_node(path: str) -> Any:
    return Bip32Slip10Secp256k1.FromSeed(phrase_seed()).DerivePath(path)


def public_key(path: str = "m/84'/0'/0'", *, form: str = "xpub") -> str:
    return respelt(private_node(path).PublicKey().ToExtended(), (PUBLIC_VERSIONS | MULTISIG_VERSIONS)[form])


def private_key(path: str = "m/84'/0'/0'", *, form: str = "xprv") -> str:
    return respelt(private_node(path).PrivateKey().ToExtended(), PRIVATE_VERSIONS[form])


def raw_private_key(path: str = "m/84'/0'/0'/0/0") -> bytes:
    key: bytes = private_node(path).PrivateKey().Raw().ToBytes()
    return key


def payload_of(key: str) -> bytes:
    payload: bytes = Base58Decoder.CheckDecode(key)
    return payload


def spelt(payload: bytes) -> str:
    return str(Base58Encoder.CheckEncode(payload))


def respelt(key: str, version: str) -> str:
    return spelt(bytes.fromhex(version) + payload_of(key)[4:])


@st.composite
def account_payloads(draw: st.DrawFn, *, version: str = "0488b21e") -> bytes:
    """78 bytes of a random account's extended public key."""
    point = multiply_generator(draw(st.integers(1, N - 1)))
    assert point is not None
    return (
        bytes.fromhex(version)
        + b"\x03"
        + draw(st.binary(min_size=4, max_size=4))
        + draw(st.integers(2**31, 2**32 - 1)).to_bytes(4)
        + draw(st.binary(min_size=32, max_size=32))
        + compress(point)
    )
