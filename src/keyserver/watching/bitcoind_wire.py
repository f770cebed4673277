"""What bitcoind's answers say, as values of ours. Pure.

An answer of another shape than the node's documentation promises is an error, never an empty answer.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from keyserver.chains.models import NATIVE
from keyserver.watching.ports import Block, NodeUnavailable, Transfer

DECIMALS = 8
NO_PARENT = "0" * 64

#: Our word for the network, by the node's. Only its genesis block tells the two Bitcoin test networks apart.
NETWORKS = {"main": "mainnet", "test": "testnet", "testnet4": "testnet", "signet": "signet", "regtest": "regtest"}

#: Bare public keys and bare multisig: not what an address stands for, though older nodes show one for their keys.
_BARE_TYPES = frozenset({"pubkey", "multisig"})


@contextmanager
def understanding(what: str) -> Iterator[None]:
    """Turns whatever a wrong shape makes Python raise into NodeUnavailable."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError) as error:
        raise NodeUnavailable(f"the node's answer to {what} is not understood: {error!r:.200}") from error


def read_capabilities(info: Mapping[str, Any], software: Mapping[str, Any]) -> dict[str, str]:
    """For people, from getblockchaininfo and getnetworkinfo."""
    return {
        "software": str(software["subversion"]).strip("/"),
        "blocks": f"from {info['pruneheight']}" if info.get("pruned") else "all",
        "mempool": "yes" if software.get("localrelay", True) else "only blocks are relayed",
    }


def read_time(header: Mapping[str, Any]) -> datetime:
    return datetime.fromtimestamp(header["time"], UTC)


def read_block(answer: Mapping[str, Any], *, coinbase_maturity: int) -> Block:
    """A getblock of verbosity 2. A block's first transaction is its coinbase: its outputs are new coins."""
    return Block(
        height=answer["height"],
        hash=answer["hash"],
        parent_hash=answer.get("previousblockhash", NO_PARENT),
        mined_at=read_time(answer),
        transfers=[
            transfer
            for number, tx in enumerate(answer["tx"])
            for transfer in read_transfers(tx, least_confirmations=coinbase_maturity if number == 0 else 0)
        ],
    )


def read_transfers(tx: Mapping[str, Any], *, least_confirmations: int = 0) -> list[Transfer]:
    return [
        Transfer(tx["txid"], output["n"], NATIVE, address, units, least_confirmations)
        for output in tx["vout"]
        if not output.get("ismweb")  # confidential: neither address nor amount
        and (address := _address(output["scriptPubKey"])) is not None
        and (units := _units(output["value"])) > 0
    ]


def _address(script: Mapping[str, Any]) -> str | None:
    """The one address a script pays to: `address` since Bitcoin Core 22, a list before and in its relatives."""
    if script["type"] in _BARE_TYPES:
        return None
    addresses = [script["address"]] if "address" in script else script.get("addresses", ())
    if not all(isinstance(address, str) for address in addresses):
        raise TypeError(f"{addresses!r} are no addresses")
    return addresses[0] if len(addresses) == 1 else None


def _units(coins: Any) -> int:
    """Base units in an amount of coins, exactly; ValueError for what no amount can be."""
    value = Decimal(coins) if type(coins) is int else coins
    if not isinstance(value, Decimal) or value < 0 or value.adjusted() > 18:
        raise ValueError(f"{coins!r} is no amount")
    units = int(value.scaleb(DECIMALS))
    if Decimal(units).scaleb(-DECIMALS) != value:
        raise ValueError(f"{coins!r} has more than {DECIMALS} decimals")
    return units
