"""Addresses from extended public keys, by bip-utils on libsecp256k1 (BIP-32, 44, 49, 84, 86; EIP-55).

The hot path of every charge. `addresses/reference.py` computes the same without bip-utils, for comparison.
"""

from typing import assert_never

from bip_utils import (
    Bip32KeyIndex,
    Bip32PublicKey,
    Bip32Slip10Secp256k1,
    EthAddrEncoder,
    P2PKHAddrEncoder,
    P2SHAddrEncoder,
    P2TRAddrEncoder,
    P2WPKHAddrEncoder,
    Secp256k1PublicKey,
    TrxAddrEncoder,
)
from bip_utils.bip.bip32 import Bip32Slip10EcdsaDerivator

from keyserver.chains.catalog import AddressType, ChainSpec, UtxoParams

MAX_INDEX = 2**31 - 1
_EXTERNAL_CHAIN = 0


class RingKey:
    """The external chain (account/0) of one account's key, ready for deriving. Immutable, safe to share and keep."""

    __slots__ = ("_chain",)

    def __init__(self, chain: Bip32PublicKey) -> None:
        self._chain = chain

    @classmethod
    def from_xpub(cls, xpub: str) -> "RingKey":
        """`xpub` as `parse_extended_public_key` normalised it. Costs as much as two addresses: keep the ring."""
        return cls(Bip32Slip10Secp256k1.FromExtendedKey(xpub).ChildKey(_EXTERNAL_CHAIN).PublicKey())

    def address(self, index: int, *, spec: ChainSpec, address_type: AddressType) -> str:
        """The address at account/0/index, in the chain's own spelling.

        ValueError for an index outside 0…2^31-1 and for an address type the chain does not have.
        """
        if not 0 <= index <= MAX_INDEX:
            raise ValueError(f"an address index is from 0 to {MAX_INDEX}")
        if address_type not in spec.address_types:
            raise ValueError(f"{spec.chain} has no {address_type} addresses")
        return _encode(self._public_key(index), spec=spec, address_type=address_type)

    def _public_key(self, index: int) -> Secp256k1PublicKey:
        # `ChildKey` would build a whole node, with the fingerprint of its parent, for which nobody asks.
        point, _ = Bip32Slip10EcdsaDerivator.CkdPub(self._chain, Bip32KeyIndex(index))
        return Secp256k1PublicKey.FromPoint(point)


def _encode(public_key: Secp256k1PublicKey, *, spec: ChainSpec, address_type: AddressType) -> str:
    match address_type:
        case AddressType.P2WPKH:
            return str(P2WPKHAddrEncoder.EncodeKey(public_key, hrp=_utxo(spec).bech32_hrp))
        case AddressType.P2TR:
            return str(P2TRAddrEncoder.EncodeKey(public_key, hrp=_utxo(spec).bech32_hrp))
        case AddressType.P2SH_P2WPKH:
            return str(P2SHAddrEncoder.EncodeKey(public_key, net_ver=bytes([_utxo(spec).p2sh_version])))
        case AddressType.P2PKH:
            return str(P2PKHAddrEncoder.EncodeKey(public_key, net_ver=bytes([_utxo(spec).p2pkh_version])))
        case AddressType.EVM:
            return str(EthAddrEncoder.EncodeKey(public_key))
        case AddressType.TRON:
            return str(TrxAddrEncoder.EncodeKey(public_key))
        case _:
            assert_never(address_type)


def _utxo(spec: ChainSpec) -> UtxoParams:
    assert spec.utxo is not None, "a chain with UTXO address types has their parameters"
    return spec.utxo
