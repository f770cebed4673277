from dataclasses import replace

import pytest

from keyserver.addresses import selftest
from keyserver.addresses.selftest import VECTORS, SelfTestFailed, self_test
from keyserver.chains.catalog import AddressType


def test_this_installation_derives_the_published_addresses() -> None:
    self_test()


def test_every_address_type_is_tested() -> None:
    assert {vector.address_type for vector in VECTORS} == set(AddressType)


@pytest.mark.parametrize("position", range(len(VECTORS)))
def test_a_wrong_address_is_reported_by_the_name_of_its_vector(position: int) -> None:
    wrong = replace(VECTORS[position], address=VECTORS[position - 1].address)

    with pytest.raises(SelfTestFailed, match="bip-utils derives another address") as caught:
        self_test((wrong,))

    assert wrong.source in str(caught.value)
    assert wrong.xpub not in str(caught.value)


def test_a_reference_that_differs_is_reported_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "reference_address", lambda *_args, **_kwargs: "1BoatSLRHtKNngkdXEeobR76b53LETtpyT")

    with pytest.raises(SelfTestFailed, match="our reference derives another address than SLIP-132"):
        self_test()


def test_a_fallback_to_python_arithmetic_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        @staticmethod
        def FromBytes(_key: bytes) -> "Slow":  # noqa: N802 - bip-utils' name
            return Slow()

        def UnderlyingObject(self) -> object:  # noqa: N802
            return object()

    monkeypatch.setattr(selftest, "Secp256k1PublicKey", Slow)

    with pytest.raises(SelfTestFailed, match="not with libsecp256k1"):
        self_test()
