"""`/ledger/*` for tenants and `/admin/ledger/*` for operators."""

from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.access.deps import Admin, Authenticated
from keyserver.access.idempotency import answer_once
from keyserver.kit.db import driver_connection
from keyserver.kit.deps import Now, Session
from keyserver.kit.http import StrictRoute
from keyserver.kit.money import format_nanos, usd_to_nanos_exact
from keyserver.kit.paging import Cursor, Limit, decode_cursor, encode_cursor
from keyserver.kit.problems import BadRequest
from keyserver.ledger import balances
from keyserver.ledger.holds import credit_of
from keyserver.ledger.manual import post_manual
from keyserver.ledger.models import EntryType, JournalEntry, JournalLine
from keyserver.ledger.schemas import (
    AccountView,
    BalanceView,
    CheckView,
    DiscrepancyView,
    EntryPage,
    EntryView,
    HeldDiscrepancyView,
    ManualEntryView,
    NewEntry,
    TrialBalanceView,
)

router = APIRouter(prefix="/ledger", tags=["ledger"], route_class=StrictRoute)
admin_router = APIRouter(prefix="/admin/ledger", tags=["admin"], route_class=StrictRoute, dependencies=[Admin])


@router.get("/balance")
async def get_balance(caller: Authenticated, session: Session, now: Now) -> BalanceView:
    """Available is the balance without what pending holds have set aside."""
    credit = await credit_of(await driver_connection(session), caller.tenant_id, now=now())
    return BalanceView(
        tenant_id=caller.tenant_id,
        balance_nanodollars=str(credit.balance_nanos),
        held_nanodollars=str(credit.held_nanos),
        available_nanodollars=str(credit.available_nanos),
        balance_usd=format_nanos(credit.balance_nanos),
    )


@router.get("/entries")
async def list_entries(caller: Authenticated, session: Session, limit: Limit = 50, cursor: Cursor = None) -> EntryPage:
    rows = await balances.tenant_history(session, caller.tenant_id, before_version=_version(cursor), limit=limit + 1)
    page = [_entry_view(entry, line) for entry, line in rows[:limit]]
    more = len(rows) > limit
    return EntryPage(entries=page, next_cursor=encode_cursor(str(rows[limit - 1][1].account_version)) if more else None)


def _version(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    (version,) = decode_cursor(cursor)
    if not version.isdecimal() or len(version) > 18:
        raise BadRequest.at("#query/cursor", "The cursor is not one we gave; leave it out to start anew")
    return int(version)


def _entry_view(entry: JournalEntry, line: JournalLine) -> EntryView:
    return EntryView(
        id=entry.id,
        posted_at=entry.posted_at,
        type=entry.type,
        description=entry.description,
        reference_id=entry.reference_id,
        amount_nanodollars=str(line.amount_nanos),
        side=line.side,
        balance_after_nanodollars=str(line.balance_after_nanos),
        metadata=entry.metadata_,
    )


@admin_router.post(
    "/entries",
    status_code=201,
    response_model=ManualEntryView,
    responses={200: {"model": ManualEntryView, "description": "The same entry, posted before"}},
)
async def create_entry(request: Request, body: NewEntry, now: Now) -> Response:
    """The amount is added to the tenant's credit (`expiry` takes it away); a negative one only for a correction."""
    if body.amount_usd < 0 and body.type is not EntryType.CORRECTION:
        raise BadRequest.at("/amount_usd", "amount_usd must be positive; only a correction can be negative")

    async def work(session: AsyncSession) -> tuple[int, Any]:
        entry, line, new = await post_manual(
            session,
            tenant_id=body.tenant_id,
            type=body.type,
            amount_nanos=usd_to_nanos_exact(body.amount_usd),
            reference_id=body.reference_id,
            description=body.description,
            now=now(),
        )
        view = ManualEntryView(
            id=entry.id,
            tenant_id=entry.tenant_id,
            type=entry.type,
            amount_usd=format_nanos(line.amount_nanos),
            side=line.side,
            reference_id=entry.reference_id,
            description=entry.description,
            posted_at=entry.posted_at,
            balance_after_nanodollars=str(line.balance_after_nanos),
        )
        return (201 if new else 200), view.model_dump(mode="json")

    return await answer_once(request, work, scope="admin")


@admin_router.get("/trial-balance")
async def get_trial_balance(session: Session) -> TrialBalanceView:
    trial = await balances.trial_balance(session)
    return TrialBalanceView(
        total_debits=str(trial.total_debits_nanos),
        total_credits=str(trial.total_credits_nanos),
        difference=str(trial.difference_nanos),
        balanced=trial.difference_nanos == 0,
        accounts=[
            AccountView(code=code, name=name, type=kind, balance=str(nanos))
            for code, name, kind, nanos in trial.accounts
        ],
    )


@admin_router.get("/check")
async def check_balances(session: Session) -> CheckView:
    """Compares every stored balance with the sum of its lines, and held credit with its pending holds, now."""
    found = await balances.discrepancies(session)
    held = await balances.held_discrepancies(session)
    return CheckView(
        ok=not found and not held,
        discrepancies=[
            DiscrepancyView(
                account_code=each.account_code,
                stripe=each.stripe,
                balance_nanodollars=str(each.balance_nanos),
                lines_nanodollars=str(each.lines_nanos),
            )
            for each in found
        ],
        held_discrepancies=[
            HeldDiscrepancyView(
                account_code=each.account_code,
                held_nanodollars=str(each.held_nanos),
                pending_nanodollars=str(each.pending_nanos),
            )
            for each in held
        ],
    )
