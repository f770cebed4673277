import pytest
from bip_utils import Bip32Slip10Secp256k1, EthAddrDecoder
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.addresses.account_keys import PUBLIC_VERSIONS, payload_of, private_node, public_key, read_vectors, spelt

from keyserver.addresses.reference import (
    G,
    N,
    P,
    Point,
    add,
    compress,
    derive_child,
    eip55,
    lift,
    multiply_generator,
    read_xpub,
)

SCALARS = st.integers(0, N - 1)


@pytest.mark.parametrize("step", read_vectors("bip32")["derivations"], ids=lambda step: f"{step['index']}")
def test_children_are_those_that_bip_32_publishes(step: dict[str, str | int]) -> None:
    parent, index, child = str(step["parent"]), int(step["index"]), str(step["child"])

    assert derive_child(*read_xpub(parent), index) == read_xpub(child)
    assert Bip32Slip10Secp256k1.FromExtendedKey(parent).ChildKey(index).PublicKey().ToExtended() == child


@pytest.mark.parametrize("address", read_vectors("eip55")["addresses"])
def test_checksummed_addresses_are_those_that_eip_55_publishes(address: str) -> None:
    assert eip55(bytes.fromhex(address[2:])) == address
    assert EthAddrDecoder.DecodeAddr(address).hex() == address[2:].lower()


@settings(max_examples=25, deadline=None)
@given(index=st.integers(0, 2**31 - 1))
def test_public_derivation_meets_private_derivation(index: int) -> None:
    parent = private_node("m/84'/0'/0'")
    child = parent.ChildKey(index)

    key, chain_code = derive_child(*read_xpub(parent.PublicKey().ToExtended()), index)

    assert key == child.PublicKey().RawCompressed().ToBytes()
    assert chain_code == child.ChainCode().ToBytes()


@settings(max_examples=25, deadline=None)
@given(a=SCALARS, b=SCALARS)
def test_adding_points_adds_scalars(a: int, b: int) -> None:
    assert add(multiply_generator(a), multiply_generator(b)) == multiply_generator((a + b) % N)


@settings(max_examples=25, deadline=None)
@given(scalar=st.integers(1, N - 1))
def test_compressing_and_lifting_gives_the_point_back(scalar: int) -> None:
    point = multiply_generator(scalar)

    assert point is not None
    assert (point[1] ** 2 - point[0] ** 3 - 7) % P == 0
    assert lift(compress(point)) == point


def test_the_point_at_infinity_is_neutral_and_the_generators_order_is_n() -> None:
    infinity: Point = None
    minus_g = (G[0], P - G[1])

    assert add(G, infinity) == add(infinity, G) == G
    assert add(G, minus_g) is None
    assert multiply_generator(0) is None
    assert multiply_generator(N - 1) == minus_g
    assert add(multiply_generator(N - 1), G) is None


@pytest.mark.parametrize(
    "key",
    [
        b"\x02" + (5).to_bytes(32),  # x = 5 is on no point
        b"\x04" + G[0].to_bytes(32),
        b"\x02" + (P + 1).to_bytes(32),
        b"\x02" + G[0].to_bytes(32)[:-1],
        b"",
    ],
    ids=["off the curve", "uncompressed", "above the field", "short", "empty"],
)
def test_bytes_that_are_no_compressed_key_are_not_lifted(key: bytes) -> None:
    with pytest.raises(ValueError, match="not a compressed public key"):
        lift(key)


def test_a_mistyped_extended_key_is_not_read() -> None:
    xpub = public_key()
    mistyped = xpub[:50] + ("2" if xpub[50] == "1" else "1") + xpub[51:]

    with pytest.raises(ValueError, match="checksum"):
        read_xpub(mistyped)
    with pytest.raises(ValueError, match="78 bytes"):
        read_xpub(xpub + "111")
    with pytest.raises(ValueError, match="substring not found"):
        read_xpub("0" + xpub)


def test_reading_does_not_depend_on_version_bytes() -> None:
    payload = payload_of(public_key())

    assert all(
        read_xpub(spelt(bytes.fromhex(version) + payload[4:])) == (payload[45:], payload[13:45])
        for version in PUBLIC_VERSIONS.values()
    )
