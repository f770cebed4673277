"""The chart of accounts.

| code | name | type |
| --- | --- | --- |
| 1000 | Cash | asset |
| 1100 | Receivable | asset |
| 1200:<chain>:<network>:<token> | Crypto holdings | asset |
| 2000:<tenant> | Unearned revenue (the tenant's credit) | liability |
| 3000 | Equity | equity |
| 4000:<capability> | Revenue by kind | revenue |
| 4090 | Refunds, against revenue | revenue |
| 4900 | Breakage: credit that expired | revenue |
| 5000:<kind> | Expenses by kind: grant, dividend, correction | expense |
"""

from dataclasses import dataclass

from keyserver.ledger.models import STRIPES, AccountType, EntryType, Side


@dataclass(frozen=True, slots=True)
class AccountSpec:
    """An account as it will be opened on its first posting. Only a tenant's account is one single row."""

    code: str
    name: str
    type: AccountType
    tenant_id: str | None = None

    @property
    def stripes(self) -> int:
        return STRIPES if self.tenant_id is None else 1

    @property
    def normal_side(self) -> Side:
        """The side that raises the balance: debit for assets and expenses, credit for the rest."""
        return Side.DEBIT if self.type in {AccountType.ASSET, AccountType.EXPENSE} else Side.CREDIT


CASH = AccountSpec("1000", "Cash", AccountType.ASSET)
REFUNDS = AccountSpec("4090", "Refunds", AccountType.REVENUE)
BREAKAGE = AccountSpec("4900", "Breakage: credit that expired", AccountType.REVENUE)


#: Before a tenant's id in the code of its account.
TENANT_PREFIX = "2000:"


def tenant_account(tenant_id: str) -> AccountSpec:
    return AccountSpec(
        f"{TENANT_PREFIX}{tenant_id}", f"Unearned revenue of {tenant_id}", AccountType.LIABILITY, tenant_id
    )


def holdings_account(*, chain: str, network: str, token: str) -> AccountSpec:
    return AccountSpec(f"1200:{chain}:{network}:{token}", f"{token} on {chain} {network}", AccountType.ASSET)


def revenue_account(capability: str) -> AccountSpec:
    return AccountSpec(f"4000:{capability}", f"Revenue: {capability}", AccountType.REVENUE)


def expense_account(kind: str) -> AccountSpec:
    return AccountSpec(f"5000:{kind}", f"Expense: {kind}", AccountType.EXPENSE)


#: The other side of an entry an operator posts by hand, and whether it gives credit to the tenant or takes it.
MANUAL: dict[EntryType, tuple[AccountSpec, bool]] = {
    EntryType.PURCHASE: (CASH, True),
    EntryType.GRANT: (expense_account("grant"), True),
    EntryType.DIVIDEND: (expense_account("dividend"), True),
    EntryType.REFUND: (REFUNDS, True),
    EntryType.CORRECTION: (expense_account("correction"), True),
    EntryType.EXPIRY: (BREAKAGE, False),
}
