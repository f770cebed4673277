"""Addresses from extended public keys a second time, without bip-utils and libsecp256k1, to check the first against.

Written for reading, not for speed: one address costs milliseconds. Only the hashes that Python may lack are borrowed
(RIPEMD-160 and Keccak-256, from pycryptodome); curve, derivation and encodings are here.
"""

import hashlib
import hmac
from functools import cache
from typing import assert_never

from Crypto.Hash import RIPEMD160, keccak

from keyserver.chains.catalog import AddressType, ChainSpec, UtxoParams

#: SEC 2, 2.4.1: y² = x³ + 7 over the integers modulo P, with a generator of order N.
P = 2**256 - 2**32 - 977
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
G = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)

#: None is the point at infinity.
Point = tuple[int, int] | None

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_CONSTANT = 1
_BECH32M_CONSTANT = 0x2BC830A3
_TRON_VERSION = 0x41


def reference_address(xpub: str, index: int, *, spec: ChainSpec, address_type: AddressType) -> str:
    """The address at xpub/0/index in the chain's own spelling; ValueError for a bad xpub, index or address type."""
    if address_type not in spec.address_types:
        raise ValueError(f"{spec.chain} has no {address_type} addresses")
    key, chain_code = read_xpub(xpub)
    for child in (0, index):
        key, chain_code = derive_child(key, chain_code, child)
    return encode_address(lift(key), spec=spec, address_type=address_type)


def read_xpub(xpub: str) -> tuple[bytes, bytes]:
    """Compressed public key and chain code of an extended public key (BIP-32, Serialization format)."""
    number = 0
    for character in xpub:
        number = number * 58 + _BASE58.index(character)
    if number >= 256**82:
        raise ValueError("an extended key has 78 bytes and a checksum")
    raw = number.to_bytes(82)
    payload, checksum = raw[:-4], raw[-4:]
    if _double_sha256(payload)[:4] != checksum:
        raise ValueError("the checksum of the extended key is wrong")
    return payload[45:], payload[13:45]


def derive_child(key: bytes, chain_code: bytes, index: int) -> tuple[bytes, bytes]:
    """CKDpub of BIP-32: the child's compressed public key and chain code."""
    if not 0 <= index < 2**31:
        raise ValueError("public keys have children 0 to 2^31-1 only")
    digest = hmac.digest(chain_code, key + index.to_bytes(4), "sha512")
    tweak = int.from_bytes(digest[:32])
    point = add(multiply_generator(tweak), lift(key))
    if tweak >= N or point is None:  # 1 in 2^127
        raise ValueError("this index has no key")
    return compress(point), digest[32:]


def encode_address(point: tuple[int, int], *, spec: ChainSpec, address_type: AddressType) -> str:
    match address_type:
        case AddressType.P2WPKH:  # BIP-141, BIP-84
            return _segwit_address(_utxo(spec), 0, _hash160(compress(point)))
        case AddressType.P2TR:  # BIP-341, BIP-86
            return _segwit_address(_utxo(spec), 1, taproot_output_key(point))
        case AddressType.P2SH_P2WPKH:  # BIP-141, BIP-49
            script = b"\x00\x14" + _hash160(compress(point))
            return _base58check(_utxo(spec).p2sh_version, _hash160(script))
        case AddressType.P2PKH:
            return _base58check(_utxo(spec).p2pkh_version, _hash160(compress(point)))
        case AddressType.EVM:
            return eip55(_account(point))
        case AddressType.TRON:
            return _base58check(_TRON_VERSION, _account(point))
        case _:
            assert_never(address_type)


def _utxo(spec: ChainSpec) -> UtxoParams:
    assert spec.utxo is not None, "a chain with UTXO address types has their parameters"
    return spec.utxo


def add(a: Point, b: Point) -> Point:
    """Sum of two points of the curve (SEC 1, 2.2.1)."""
    if a is None or b is None:
        return a or b
    if a[0] == b[0]:
        if (a[1] + b[1]) % P == 0:
            return None
        slope = 3 * a[0] * a[0] * pow(2 * a[1], -1, P) % P
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P) % P
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


@cache
def _doublings() -> tuple[Point, ...]:
    """G, 2G, 4G, … 2^255 G."""
    points: list[Point] = [G]
    while len(points) < 256:
        points.append(add(points[-1], points[-1]))
    return tuple(points)


def multiply_generator(scalar: int) -> Point:
    total: Point = None
    for bit, doubling in enumerate(_doublings()):
        if scalar >> bit & 1:
            total = add(total, doubling)
    return total


def lift(key: bytes) -> tuple[int, int]:
    """The point of a compressed public key (SEC 1, 2.3.4); ValueError when there is none."""
    x = int.from_bytes(key[1:])
    square = (x**3 + 7) % P
    y = pow(square, (P + 1) // 4, P)
    if len(key) != 33 or key[0] not in (2, 3) or x >= P or y * y % P != square:
        raise ValueError("not a compressed public key")
    return x, y if y % 2 == key[0] % 2 else P - y


def compress(point: tuple[int, int]) -> bytes:
    x, y = point
    return bytes([2 + y % 2]) + x.to_bytes(32)


def taproot_output_key(point: tuple[int, int]) -> bytes:
    """32 bytes: the internal key tweaked by its own hash alone, so that there is no script path (BIP-86)."""
    internal = point[0].to_bytes(32)
    tag = hashlib.sha256(b"TapTweak").digest()
    tweak = int.from_bytes(hashlib.sha256(tag + tag + internal).digest())
    output = add(lift(b"\x02" + internal), multiply_generator(tweak))
    if tweak >= N or output is None:
        raise ValueError("this key has no taproot output")
    return output[0].to_bytes(32)


def eip55(account: bytes) -> str:
    """The 20 bytes of an EVM account with the checksum of EIP-55 in the case of the letters."""
    digits = account.hex()
    digest = _keccak256(digits.encode()).hex()
    return "0x" + "".join(
        digit.upper() if int(nibble, 16) >= 8 else digit for digit, nibble in zip(digits, digest, strict=False)
    )


def _account(point: tuple[int, int]) -> bytes:
    x, y = point
    return _keccak256(x.to_bytes(32) + y.to_bytes(32))[12:]


def _base58check(version: int, payload: bytes) -> str:
    raw = bytes([version]) + payload
    raw += _double_sha256(raw)[:4]
    number, characters = int.from_bytes(raw), ""
    while number:
        number, digit = divmod(number, 58)
        characters = _BASE58[digit] + characters
    return "1" * (len(raw) - len(raw.lstrip(b"\x00"))) + characters


def _segwit_address(params: UtxoParams, version: int, program: bytes) -> str:
    """BIP-173 for version 0, BIP-350 above."""
    prefix = params.bech32_hrp
    assert prefix is not None, "a chain with segwit has a bech32 prefix"
    values = [version, *_five_bit_groups(program)]
    constant = _BECH32M_CONSTANT if version else _BECH32_CONSTANT
    expanded = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
    checksum = _polymod([*expanded, *values, 0, 0, 0, 0, 0, 0]) ^ constant
    values += [checksum >> shift & 31 for shift in (25, 20, 15, 10, 5, 0)]
    return f"{prefix}1" + "".join(_BECH32[value] for value in values)


def _five_bit_groups(program: bytes) -> list[int]:
    bits = "".join(f"{byte:08b}" for byte in program)
    bits += "0" * (-len(bits) % 5)
    return [int(bits[start : start + 5], 2) for start in range(0, len(bits), 5)]


def _polymod(values: list[int]) -> int:
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            if top >> bit & 1:
                checksum ^= generator
    return checksum


def _double_sha256(data: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def _hash160(data: bytes) -> bytes:
    return RIPEMD160.new(hashlib.sha256(data).digest()).digest()


def _keccak256(data: bytes) -> bytes:
    return keccak.new(data=data, digest_bits=256).digest()
