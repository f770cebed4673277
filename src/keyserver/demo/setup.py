"""What demo mode starts with: two payment methods on simulated chains, priced by hand. Worthless, and marked so.

The extended public key is account m/44'/1'/1000' of the published BIP-39 test mnemonic (its English vector of twelve
words, eleven times the first of the list): everybody has its private keys. Never send money there.
"""

from datetime import datetime
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.addresses.registration import register
from keyserver.addresses.schemas import NewChain
from keyserver.chains.models import PaymentMethod
from keyserver.demo import chain
from keyserver.demo.chain import SIMULATED_URL
from keyserver.kit.secrets import MasterKey
from keyserver.pricing.service import pin

NETWORK = "demo"
_TEST_MNEMONIC_M44_1_1000 = (
    "xpub6BhcvYN2qwR5N2NVUuRtGWDo9VoBg9APdgsw6wGEz8DnAfhREn3zkLcRbWgZ2eSJG5PJ7BofuhRo4SMPoBHk5rgyPCQjZ2L2KYyBZvD55Ns"
)
_ACCOUNT = 1000  # far from any account of the operator's own
#: An address nobody has the key of, standing in for a token's contract.
_DEMO_TOKEN = "0x00000000000000000000000000000000000de300"  # noqa: S105 - a contract address

METHODS = (
    NewChain(
        id="DEMO-BTC",
        coin_type=1,
        account_index=_ACCOUNT,
        network=NETWORK,
        type="native",
        token="DEMOBTC",  # noqa: S106 - a coin's symbol
        chain="simulated-utxo",
        decimals=8,
        xpub=_TEST_MNEMONIC_M44_1_1000,
        rpc_url=SIMULATED_URL,
        display_name="Demo bitcoin (simulated, worthless)",
    ),
    NewChain(
        id="DEMO-USD",
        coin_type=1,
        account_index=_ACCOUNT,
        network=NETWORK,
        type="erc20",
        token="DEMOUSD",  # noqa: S106 - a token's symbol
        chain="simulated-evm",
        contract=_DEMO_TOKEN,
        decimals=6,
        xpub=_TEST_MNEMONIC_M44_1_1000,
        rpc_url=SIMULATED_URL,
        display_name="Demo dollar (simulated, worthless)",
    ),
)
_PRICES = {"DEMOBTC": Decimal(60_000), "DEMOUSD": Decimal(1)}


async def set_up(session: AsyncSession, *, master: MasterKey, now: datetime) -> None:
    """Registers what is not there yet; safe to repeat."""
    for method in METHODS:
        if await session.get(PaymentMethod, method.id) is not None:
            continue
        await register(session, method, master=master, now=now, simulated=True)
        await chain.create(session, f"{method.chain}:{method.network}", now=now)
        await pin(session, token=method.token, price_usd=_PRICES[method.token], now=now)
