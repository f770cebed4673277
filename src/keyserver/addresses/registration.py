"""Registering a payment method: key ring, blockchain and method, checked before anything is stored."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.addresses.derive import RingKey
from keyserver.addresses.errors import InvalidXpub, PathTaken, PrivateKeyRefused, UnexpectedAddress
from keyserver.addresses.lookahead import DEFAULT_AHEAD, fill, spellings_of
from keyserver.addresses.models import KeyRing
from keyserver.addresses.schemas import AdminChainView, NewChain
from keyserver.addresses.spelling import is_address
from keyserver.addresses.xpub import (
    ExtendedPublicKey,
    InvalidExtendedKey,
    PrivateMaterial,
    parse_extended_public_key,
    refuse_private_material,
)
from keyserver.chains.catalog import AddressType, ChainSpec, Family, chain_spec, coin_types, is_testnet, match_key
from keyserver.chains.changes import check_finality, encrypted_headers, encrypted_urls
from keyserver.chains.errors import FinalityTaken, MethodExists
from keyserver.chains.models import NATIVE, Blockchain, Finality, PaymentMethod
from keyserver.kit.ids import new_id
from keyserver.kit.problems import BadRequest
from keyserver.kit.secrets import MasterKey

CURVE = "secp256k1"
SHOWN_ADDRESSES = 3


def path_of(*, coin_type: int, account_index: int) -> str:
    """BIP-44 path of an account, as far as the contract shows it."""
    return f"m/44'/{coin_type}'/{account_index}'"


def refuse_private(body: object) -> None:
    """PrivateKeyRefused when any text of the request is private key material; looked at before anything else is."""
    waiting = [body]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str):
            try:
                refuse_private_material(value)
            except PrivateMaterial:
                raise PrivateKeyRefused from None


async def register(
    session: AsyncSession,
    body: NewChain,
    *,
    master: MasterKey,
    now: datetime,
    ahead: int = DEFAULT_AHEAD,
    simulated: bool = False,
) -> list[str]:
    """Stores the payment method (and its ring and blockchain, when new); returns the ring's first three addresses.

    The next `ahead` addresses are watched at once, before a block can be read. `simulated` lets demo mode register its
    own chain, which nobody else may.
    """
    spec = _spec(body)
    if spec.simulated and not simulated:
        raise BadRequest.at("/chain", "Simulated chains are there in demo mode only", code="unknown_chain")
    address_type = _address_type(body, spec)
    xpub = _extended_key(body, spec, address_type)
    asset, contract = _asset(body, spec)
    check_finality(body.finality or Finality.DEPTH, spec.family, chain=spec.chain)
    key = RingKey.from_xpub(xpub.xpub)
    addresses = [key.address(index, spec=spec, address_type=address_type) for index in range(SHOWN_ADDRESSES)]
    _check_expected(body, spec, addresses)
    ring = await _join_ring(session, body, xpub, spec, now=now)
    blockchain_id = await _join_blockchain(session, body, spec, now=now)
    method = {
        "id": body.id,
        "blockchain_id": blockchain_id,
        "key_ring_id": ring.id,
        "type": body.type,
        "token": body.token,
        "asset": asset,
        "contract_address": contract,
        "decimals": body.decimals,
        "address_type": address_type,
        "display_name": body.display_name or f"{body.token} on {spec.chain}",
        "display_order": body.display_order,
        "icon_url": body.icon_url,
        "is_testnet": is_testnet(spec) if body.is_testnet is None else body.is_testnet,
        "confirmations": body.confirmations or spec.default_confirmations,
        "rpc_url_encrypted": encrypted_urls(master, body.rpc_url),
        "rpc_headers_encrypted": encrypted_headers(master, body.rpc_headers),
        "oracle_address": body.oracle_address,
        "oracle_asset_id": body.oracle_asset_id,
        "created_at": now,
    }
    created = insert(PaymentMethod).values(method).on_conflict_do_nothing(index_elements=["id"])
    if (await session.execute(created.returning(PaymentMethod.id))).first() is None:
        raise MethodExists
    for spelling in await spellings_of(session, key_ring_id=ring.id):
        await fill(session, spelling, ahead=ahead)
    return addresses


# --- checks -----------------------------------------------------------------------------------------------------


def _spec(body: NewChain) -> ChainSpec:
    try:
        spec = chain_spec(body.chain, body.network, type=body.type)
    except ValueError as error:
        raise BadRequest.at("/chain", str(error), code="unknown_chain") from None
    accepted = coin_types(spec)
    if accepted and body.coin_type not in accepted:
        listed = " or ".join(str(each) for each in sorted(accepted))
        raise BadRequest.at(
            "/coin_type", f"coin_type of {spec.chain} {spec.network} is {listed} (SLIP-44), not {body.coin_type}"
        )
    return spec


def _address_type(body: NewChain, spec: ChainSpec) -> AddressType:
    if body.address_type is None:
        return spec.address_types[0]
    for each in spec.address_types:
        if each == body.address_type:
            return each
    raise BadRequest.at("/address_type", f"address_type of {spec.chain} is one of {', '.join(spec.address_types)}")


def _extended_key(body: NewChain, spec: ChainSpec, address_type: AddressType) -> ExtendedPublicKey:
    try:
        xpub = parse_extended_public_key(body.xpub, spec=spec, address_type=address_type)
    except PrivateMaterial:
        raise PrivateKeyRefused from None
    except InvalidExtendedKey as error:
        raise InvalidXpub.at("/xpub", str(error)) from None
    if xpub.account_index != body.account_index:
        raise InvalidXpub.at(
            "/xpub", f"This key is account {xpub.account_index} of its wallet, not account_index {body.account_index}"
        )
    return xpub


def _asset(body: NewChain, spec: ChainSpec) -> tuple[str, str | None]:
    if body.contract is None:
        if body.type in {"erc20", "trc20", "stablecoin"}:
            raise BadRequest.at("/contract", f"A payment method of type {body.type} needs its token's contract")
        return NATIVE, None
    if spec.family is Family.UTXO:
        raise BadRequest.at("/contract", f"{spec.chain} has no token contracts")
    if not is_address(body.contract, family=spec.family):
        raise BadRequest.at("/contract", f"contract is not an address of {spec.chain}, or its checksum is wrong")
    return match_key(spec.family, body.contract), body.contract


def _check_expected(body: NewChain, spec: ChainSpec, addresses: Sequence[str]) -> None:
    if body.expected_address is None:
        return
    if match_key(spec.family, body.expected_address) != match_key(spec.family, addresses[0]):
        raise UnexpectedAddress.at(
            "/expected_address",
            f"From this key, {spec.chain} and address type, index 0 is {addresses[0]}: check the key, its account and "
            "address_type before anybody pays",
        )


# --- rings and blockchains --------------------------------------------------------------------------------------


async def _join_ring(
    session: AsyncSession, body: NewChain, xpub: ExtendedPublicKey, spec: ChainSpec, *, now: datetime
) -> KeyRing:
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended("key_rings", 2))))
    same_path = select(KeyRing).where(
        KeyRing.coin_type == body.coin_type, KeyRing.account_index == body.account_index, KeyRing.curve == CURVE
    )
    ring = await session.scalar(same_path)
    path = path_of(coin_type=body.coin_type, account_index=body.account_index)
    if ring is not None:
        if ring.material != xpub.material:
            raise PathTaken(f"{path} holds another extended public key; GET /admin/next-path names a free one")
        return ring
    await _refuse_shared_addresses(session, xpub, spec)
    ring_id = new_id("ring")
    sequence = f"index_of_{ring_id}"
    ring = KeyRing(
        id=ring_id,
        coin_type=body.coin_type,
        account_index=body.account_index,
        curve=CURVE,
        xpub=xpub.xpub,
        material=xpub.material,
        index_sequence=sequence,
        created_at=now,
    )
    session.add(ring)
    await session.flush()
    # The name is of our own making (letters, digits, underscore). Owned: it goes when the table goes.
    await session.execute(
        text(f"CREATE SEQUENCE {sequence} MINVALUE 0 START 0 MAXVALUE {2**31 - 1} NO CYCLE OWNED BY key_rings.id")
    )
    return ring


async def _refuse_shared_addresses(session: AsyncSession, xpub: ExtendedPublicKey, spec: ChainSpec) -> None:
    """The same key under another path would hand out the same addresses twice, wherever the chains spell them alike."""
    same_key = (
        select(KeyRing, Blockchain, PaymentMethod.type)
        .join(PaymentMethod, PaymentMethod.key_ring_id == KeyRing.id)
        .join(Blockchain, Blockchain.id == PaymentMethod.blockchain_id)
        .where(KeyRing.material == xpub.material)
    )
    for ring, blockchain, method_type in await session.execute(same_key):
        other = chain_spec(blockchain.chain, blockchain.network, type=method_type)
        if other.family is spec.family and (other.utxo == spec.utxo):
            path = path_of(coin_type=ring.coin_type, account_index=ring.account_index)
            raise PathTaken(f"This extended public key is registered as {path} already, with the same addresses")


async def _join_blockchain(session: AsyncSession, body: NewChain, spec: ChainSpec, *, now: datetime) -> str:
    blockchain_id = f"{spec.chain}:{spec.network}"
    values = {
        "id": blockchain_id,
        "chain": spec.chain,
        "network": spec.network,
        "family": spec.family,
        "start_height": body.start_height,
        "poll_seconds": body.poll_seconds,
        "finality": body.finality or Finality.DEPTH,
        "created_at": now,
    }
    created = insert(Blockchain).values(values).on_conflict_do_nothing().returning(Blockchain.id)
    if await session.scalar(created) is None and body.finality is not None:
        present = (await session.get_one(Blockchain, blockchain_id)).finality
        if present is not body.finality:
            raise FinalityTaken(
                f"{blockchain_id} is followed with finality {present}; PATCH one of its methods to change"
            )
    return blockchain_id


# --- paths ------------------------------------------------------------------------------------------------------


async def path_status(session: AsyncSession, coin_type: int) -> tuple[list[tuple[int, list[str]]], int]:
    """The accounts in use of a coin type with their payment methods' ids, and the lowest free account."""
    query = (
        select(KeyRing.account_index, func.array_agg(PaymentMethod.id))
        .join(PaymentMethod, PaymentMethod.key_ring_id == KeyRing.id)
        .where(KeyRing.coin_type == coin_type)
        .group_by(KeyRing.account_index)
        .order_by(KeyRing.account_index)
    )
    used = [(account, sorted(ids)) for account, ids in await session.execute(query)]
    taken = {account for account, _ in used}
    free = next(account for account in range(len(taken) + 1) if account not in taken)
    return used, free


async def admin_views(session: AsyncSession, *, method_id: str | None = None) -> list[AdminChainView]:
    """The payment methods (or one) as operators see them."""
    query = (
        select(PaymentMethod, Blockchain, KeyRing)
        .join(Blockchain, Blockchain.id == PaymentMethod.blockchain_id)
        .join(KeyRing, KeyRing.id == PaymentMethod.key_ring_id)
        .order_by(PaymentMethod.display_order, PaymentMethod.created_at, PaymentMethod.id)
    )
    if method_id is not None:
        query = query.where(PaymentMethod.id == method_id)
    return [
        AdminChainView(
            id=method.id,
            path=path_of(coin_type=ring.coin_type, account_index=ring.account_index),
            chain=blockchain.chain,
            network=blockchain.network,
            type=method.type,
            token=method.token,
            contract=method.contract_address,
            decimals=method.decimals,
            address_type=method.address_type,
            confirmations=method.confirmations,
            display_name=method.display_name,
            display_order=method.display_order,
            icon_url=method.icon_url,
            is_testnet=method.is_testnet,
            oracle_address=method.oracle_address,
            oracle_asset_id=method.oracle_asset_id,
            finality=blockchain.finality,
            enabled=method.enabled,
            created_at=method.created_at,
        )
        for method, blockchain, ring in await session.execute(query)
    ]
