"""Reading the books: one tenant's balance and history, the trial balance, and whether balances equal their lines."""

from dataclasses import dataclass

from sqlalchemy import String, and_, case, func, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.ledger.chart import TENANT_PREFIX, tenant_account
from keyserver.ledger.models import (
    Account,
    AccountBalance,
    AccountType,
    Hold,
    HoldStatus,
    JournalEntry,
    JournalLine,
    Side,
)

_DEBIT_NORMAL = (AccountType.ASSET, AccountType.EXPENSE)


async def tenant_balance(session: AsyncSession, tenant_id: str) -> int:
    """Nanodollars; 0 for a tenant nothing was ever posted for."""
    key = (tenant_account(tenant_id).code, 0)
    row = await session.get(AccountBalance, key)
    return 0 if row is None else row.balance_nanos


async def tenant_history(
    session: AsyncSession, tenant_id: str, *, before_version: int | None, limit: int
) -> list[tuple[JournalEntry, JournalLine]]:
    """The tenant's lines with their entries, newest first."""
    query = (
        select(JournalEntry, JournalLine)
        .join(JournalLine, JournalLine.entry_id == JournalEntry.id)
        .where(JournalLine.account_code == tenant_account(tenant_id).code, JournalLine.account_version.is_not(None))
        .order_by(JournalLine.account_version.desc())
        .limit(limit)
    )
    if before_version is not None:
        query = query.where(JournalLine.account_version < before_version)
    return [(entry, line) for entry, line in await session.execute(query)]


@dataclass(frozen=True, slots=True)
class TrialBalance:
    """Totals of the debit and the credit column; `accounts` are (code, name, type, balance in normal direction)."""

    total_debits_nanos: int
    total_credits_nanos: int
    accounts: list[tuple[str, str, AccountType, int]]

    @property
    def difference_nanos(self) -> int:
        return self.total_debits_nanos - self.total_credits_nanos


async def trial_balance(session: AsyncSession) -> TrialBalance:
    query = (
        select(Account.code, Account.name, Account.type, func.coalesce(func.sum(AccountBalance.balance_nanos), 0))
        .outerjoin(AccountBalance, AccountBalance.account_code == Account.code)
        .group_by(Account.code)
        .order_by(Account.code)
    )
    accounts = [(code, name, kind, int(balance)) for code, name, kind, balance in await session.execute(query)]
    debits = credits_ = 0
    for _, _, kind, balance in accounts:
        # An account below zero stands in the other column with its amount.
        if (kind in _DEBIT_NORMAL) == (balance >= 0):
            debits += abs(balance)
        else:
            credits_ += abs(balance)
    return TrialBalance(debits, credits_, accounts)


@dataclass(frozen=True, slots=True)
class Discrepancy:
    account_code: str
    stripe: int
    balance_nanos: int
    lines_nanos: int


async def discrepancies(session: AsyncSession) -> list[Discrepancy]:
    """Every stored balance that is not the sum of its lines; an empty list is what an operator wants to see."""
    raises = case(
        (and_(Account.type.in_(_DEBIT_NORMAL), JournalLine.side == Side.DEBIT), True),
        (and_(Account.type.not_in(_DEBIT_NORMAL), JournalLine.side == Side.CREDIT), True),
        else_=False,
    )
    sums = (
        select(
            JournalLine.account_code,
            JournalLine.stripe,
            func.sum(case((raises, JournalLine.amount_nanos), else_=-JournalLine.amount_nanos)).label("nanos"),
        )
        .join(Account, Account.code == JournalLine.account_code)
        .group_by(JournalLine.account_code, JournalLine.stripe)
        .subquery()
    )
    same = and_(sums.c.account_code == AccountBalance.account_code, sums.c.stripe == AccountBalance.stripe)
    stored = func.coalesce(AccountBalance.balance_nanos, 0)
    summed = func.coalesce(sums.c.nanos, 0)
    query = (
        select(
            func.coalesce(AccountBalance.account_code, sums.c.account_code),
            func.coalesce(AccountBalance.stripe, sums.c.stripe),
            stored,
            summed,
        )
        .select_from(AccountBalance)
        .join(sums, same, full=True)
        .where(stored != summed)
    )
    return [Discrepancy(code, stripe, int(a), int(b)) for code, stripe, a, b in await session.execute(query)]


@dataclass(frozen=True, slots=True)
class HeldDiscrepancy:
    account_code: str
    held_nanos: int
    pending_nanos: int


async def held_discrepancies(session: AsyncSession) -> list[HeldDiscrepancy]:
    """Every tenant whose held credit is not the sum of its pending holds; an empty list is right."""
    code = literal(TENANT_PREFIX, String) + Hold.tenant_id
    sums = (
        select(code.label("code"), func.sum(Hold.estimate_nanos).label("nanos"))
        .where(Hold.status == HoldStatus.PENDING)
        .group_by(Hold.tenant_id)
        .subquery()
    )
    rows = select(AccountBalance).where(AccountBalance.stripe == 0).subquery()
    held, pending = func.coalesce(rows.c.held_nanos, 0), func.coalesce(sums.c.nanos, 0)
    query = (
        select(func.coalesce(rows.c.account_code, sums.c.code), held, pending)
        .select_from(rows)
        .join(sums, sums.c.code == rows.c.account_code, full=True)
        .where(held != pending)
    )
    return [HeldDiscrepancy(found, int(a), int(b)) for found, a, b in await session.execute(query)]
