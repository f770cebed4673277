"""Run at every start: both implementations of derivation against published addresses, before any is handed out.

A library that was replaced, miscompiled or misconfigured shows here, and not as coins nobody can spend.
"""

from dataclasses import dataclass

from bip_utils import Secp256k1PublicKey

from keyserver.addresses.derive import RingKey
from keyserver.addresses.reference import reference_address
from keyserver.chains.catalog import AddressType, chain_spec


class SelfTestFailed(RuntimeError):
    """Names the vector that failed; the process must not serve."""


@dataclass(frozen=True, slots=True)
class Vector:
    """The address at account/0/0 of `xpub`, an account of the published BIP-39 test phrase (worthless)."""

    source: str
    chain: str
    network: str
    address_type: AddressType
    xpub: str
    address: str


#: One for each address type. Keys with plain xpub version bytes, as they are kept.
VECTORS = (
    Vector(
        "SLIP-132 m/44'/0'/0'",
        "bitcoin",
        "mainnet",
        AddressType.P2PKH,
        "xpub6BosfCnifzxcFwrSzQiqu2DBVTshkCXacvNsWGYJVVhhawA7d4R5WSWGFNbi8Aw6ZRc1brxMyWMzG3DSSSSoekkudhUd9yLb6qx39T9nMdj",
        "1LqBGSKuX5yYUonjxT5qGfpUsXKYYWeabA",
    ),
    Vector(
        "BIP-49 m/49'/1'/0'",
        "bitcoin",
        "testnet",
        AddressType.P2SH_P2WPKH,
        "xpub6CkG15Jdw866GKs84e7ysjxAhBQUJBdLZTVbQERCjwh2z6wZSSdjfmaXaMvf6Vm5sbWemK43d7HJMicz41G3vEHA9Sa5N2J9j9vgwyiHdMj",
        "2Mww8dCYPUpKHofjgcXcBCEGmniw9CoaiD2",
    ),
    Vector(
        "BIP-84 m/84'/0'/0'",
        "bitcoin",
        "mainnet",
        AddressType.P2WPKH,
        "xpub6CatWdiZiodmUeTDp8LT5or8nmbKNcuyvz7WyksVFkKB4RHwCD3XyuvPEbvqAQY3rAPshWcMLoP2fMFMKHPJ4ZeZXYVUhLv1VMrjPC7PW6V",
        "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu",
    ),
    Vector(
        "BIP-86 m/86'/0'/0'",
        "bitcoin",
        "mainnet",
        AddressType.P2TR,
        "xpub6BgBgsespWvERF3LHQu6CnqdvfEvtMcQjYrcRzx53QJjSxarj2afYWcLteoGVky7D3UKDP9QyrLprQ3VCECoY49yfdDEHGCtMMj92pReUsQ",
        "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr",
    ),
    Vector(
        "BIP-44 m/44'/60'/0', EIP-55",
        "ethereum",
        "mainnet",
        AddressType.EVM,
        "xpub6DCoCpSuQZB2jawqnGMEPS63ePKWkwWPH4TU45Q7LPXWuNd8TMtVxRrgjtEshuqpK3mdhaWHPFsBngh5GFZaM6si3yZdUsT8ddYM3PwnATt",
        "0x9858EfFD232B4033E47d90003D41EC34EcaEda94",
    ),
    Vector(
        "BIP-44 m/44'/195'/0'",
        "tron",
        "mainnet",
        AddressType.TRON,
        "xpub6D1AabNHCupeiLM65ZR9UStMhJ1vCpyV4XbZdyhMZBiJXALQtmn9p42VTQckoHVn8WNqS7dqnJokZHAHcHGoaQgmv8D45oNUKx6DZMNZBCd",
        "TUEZSdKsoDHQMeZwihtdoBiN46zxhGWYdH",
    ),
)


def self_test(vectors: tuple[Vector, ...] = VECTORS) -> None:
    """Raises SelfTestFailed when an implementation differs from a published address, or libsecp256k1 is not in use."""
    _require_libsecp256k1()
    for vector in vectors:
        spec = chain_spec(vector.chain, vector.network, type=vector.chain)
        derived = RingKey.from_xpub(vector.xpub).address(0, spec=spec, address_type=vector.address_type)
        reference = reference_address(vector.xpub, 0, spec=spec, address_type=vector.address_type)
        if derived != vector.address:
            raise SelfTestFailed(f"bip-utils derives another address than {vector.source} ({vector.chain})")
        if reference != vector.address:
            raise SelfTestFailed(f"our reference derives another address than {vector.source} ({vector.chain})")


def _require_libsecp256k1() -> None:
    generator = bytes.fromhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")
    backend = type(Secp256k1PublicKey.FromBytes(generator).UnderlyingObject()).__module__
    if not backend.startswith("coincurve"):
        raise SelfTestFailed(f"bip-utils computes with {backend}, not with libsecp256k1 (coincurve)")
