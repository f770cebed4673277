"""Reading account-level extended public keys (BIP-32), in every spelling wallets export them in (SLIP-132).

InvalidExtendedKey   public, but not a key this payment method can use; the sentence says what to give instead
PrivateMaterial      private, or looks like it
"""

from dataclasses import dataclass, field

from bip_utils import Base58Encoder, Secp256k1PublicKey

from keyserver.addresses.private_material import PrivateMaterial, base58check_payload, refuse_private_material
from keyserver.chains.catalog import LOCAL_NETWORKS, MAINNET, AddressType, ChainSpec, Family

__all__ = [
    "ExtendedPublicKey",
    "InvalidExtendedKey",
    "PrivateMaterial",
    "parse_extended_public_key",
    "refuse_private_material",
]

HARDENED = 2**31
_ACCOUNT_DEPTH = 3
_EXTENDED_KEY_LENGTH = 78
_XPUB_VERSION = bytes.fromhex("0488b21e")


class InvalidExtendedKey(ValueError):
    """One sentence for the operator: what is wrong and what to give instead. It never holds the key."""


@dataclass(frozen=True, slots=True)
class ExtendedPublicKey:
    """An account's key, m/purpose'/coin_type'/account'.

    `xpub` is the key with plain xpub version bytes. `material` is what makes it this key whatever its version bytes:
    hex of chain code and compressed public key (65 bytes). `account_index` is its number in the path.
    """

    xpub: str = field(repr=False)
    material: str = field(repr=False)
    account_index: int
    depth: int


@dataclass(frozen=True, slots=True)
class _Form:
    """What version bytes say: `script` None fits any address type, `chain` None any chain."""

    name: str
    testnet: bool = False
    script: AddressType | None = None
    chain: str | None = None


#: SLIP-132; the last two are Dogecoin's, by dogecoin/dogecoin and bip-utils.
_FORMS = {
    _XPUB_VERSION: _Form("xpub"),
    bytes.fromhex("049d7cb2"): _Form("ypub", script=AddressType.P2SH_P2WPKH),
    bytes.fromhex("04b24746"): _Form("zpub", script=AddressType.P2WPKH),
    bytes.fromhex("043587cf"): _Form("tpub", testnet=True),
    bytes.fromhex("044a5262"): _Form("upub", testnet=True, script=AddressType.P2SH_P2WPKH),
    bytes.fromhex("045f1cf6"): _Form("vpub", testnet=True, script=AddressType.P2WPKH),
    bytes.fromhex("019da462"): _Form("Ltub", chain="litecoin"),
    bytes.fromhex("01b26ef6"): _Form("Mtub", chain="litecoin", script=AddressType.P2SH_P2WPKH),
    bytes.fromhex("0436f6e1"): _Form("ttub", chain="litecoin", testnet=True),
    bytes.fromhex("02facafd"): _Form("dgub", chain="dogecoin"),
    bytes.fromhex("0432a9a8"): _Form("tgub", chain="dogecoin", testnet=True),
}
_MULTISIG_VERSIONS = frozenset(map(bytes.fromhex, ("0295b43f", "02aa7ed3", "024289ef", "02575483")))


def parse_extended_public_key(text: str, *, spec: ChainSpec, address_type: AddressType) -> ExtendedPublicKey:
    """The account key in `text`, if addresses of `address_type` on `spec` can be derived from it.

    Raises PrivateMaterial for private keys in any form, InvalidExtendedKey for anything else that is no such key: wrong
    checksum, length or version bytes, not at account level, not a point of the curve, of another chain, network or
    script type. Whether the account is the one that was meant is for the caller to compare (`account_index`).
    """
    refuse_private_material(text)
    payload = base58check_payload(text.strip())
    if payload is None:
        raise InvalidExtendedKey(
            "The key is not Base58Check with a correct checksum: copy the bare key again, from its first letter (xpub, "
            "zpub, …) to its last, without brackets or path"
        )
    if len(payload) != _EXTENDED_KEY_LENGTH:
        raise InvalidExtendedKey(
            "This is not an extended public key, which has 78 bytes: give the account's xpub, not an address or a "
            "single public key"
        )
    form = _form(payload[:4])
    _require_account(payload)
    _require_fit(form, spec=spec, address_type=address_type)
    return ExtendedPublicKey(
        xpub=Base58Encoder.CheckEncode(_XPUB_VERSION + payload[4:]),
        material=payload[13:].hex(),
        account_index=int.from_bytes(payload[9:13]) - HARDENED,
        depth=payload[4],
    )


def _form(version: bytes) -> _Form:
    if version in _MULTISIG_VERSIONS:
        raise InvalidExtendedKey(
            "Ypub, Zpub, Upub and Vpub are keys of multi-signature wallets: give the key of a single-signature account"
        )
    form = _FORMS.get(version)
    if form is None:
        known = ", ".join(form.name for form in _FORMS.values())
        raise InvalidExtendedKey(
            f"The key's version bytes are none we know: export it from the wallet as one of {known}"
        )
    return form


def _require_account(payload: bytes) -> None:
    depth, child = payload[4], int.from_bytes(payload[9:13])
    if depth != _ACCOUNT_DEPTH:
        raise InvalidExtendedKey(
            f"The key is at depth {depth}, and an account's is at 3: give the key of m/purpose'/coin_type'/account'"
        )
    if child < HARDENED:
        raise InvalidExtendedKey(
            "The key's account is not hardened, so that a leaked child key would reveal all others: give the key of "
            "m/purpose'/coin_type'/account', with the apostrophe"
        )
    if not Secp256k1PublicKey.IsValidBytes(payload[45:]):
        raise InvalidExtendedKey("The key does not hold a point of secp256k1: export it from the wallet again")


def _require_fit(form: _Form, *, spec: ChainSpec, address_type: AddressType) -> None:
    if spec.family is not Family.UTXO:
        _require_plain(form, spec=spec)
        return
    if form.chain not in (None, spec.chain):
        raise InvalidExtendedKey(f"{form.name} is a {form.chain} key: give a key of a {spec.chain} account")
    if form.script not in (None, address_type):
        raise InvalidExtendedKey(
            f"{form.name} is a key for {form.script} addresses, and this payment method uses {address_type}: give the "
            f"key of a {address_type} account, or set address_type to {form.script}"
        )
    if spec.network in LOCAL_NETWORKS or form.testnet == (spec.network != MAINNET):
        return
    wrong, right = ("test network", "mainnet") if form.testnet else ("mainnet", "test network")
    raise InvalidExtendedKey(
        f"{form.name} is a {wrong} key, and this payment method is on {spec.chain} {spec.network}: give a {right} key"
    )


def _require_plain(form: _Form, *, spec: ChainSpec) -> None:
    """EVM and Tron wallets export a plain xpub, on test networks too."""
    if form.name == "xpub" or (form.name == "tpub" and spec.network != MAINNET):
        return
    raise InvalidExtendedKey(
        f"{form.name} is not a key for {spec.chain} {spec.network}: give the xpub of the account at m/44'/coin_type'"
        "/account'"
    )
