"""What a wallet can open (pure): BIP-21 for chains of Bitcoin's kind, EIP-681 for EVM chains."""

from urllib.parse import quote

from keyserver.chains.catalog import Family
from keyserver.kit.money import format_units


def payment_uri(
    *, family: Family, chain: str, chain_id: str | None, contract: str | None, address: str, units: int, decimals: int
) -> str:
    """`units` in base units of the coin or token. Without a known chain id the EIP-681 form leaves it out."""
    if family is Family.EVM:
        network = f"@{chain_id}" if chain_id else ""
        if contract is not None:
            return f"ethereum:{contract}{network}/transfer?address={address}&uint256={units}"
        return f"ethereum:{address}{network}?value={units}"
    query = f"amount={format_units(units, decimals)}"
    if contract is not None:
        query += f"&token={quote(contract)}"
    return f"{chain}:{address}?{query}"
