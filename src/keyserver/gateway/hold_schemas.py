"""Wire shapes of the holds API. Nanodollars are integers, written as strings; dollars come in as numbers or strings."""

from decimal import Decimal
from fractions import Fraction
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from keyserver.gateway.tariff import nanos_up
from keyserver.kit.money import format_nanos
from keyserver.kit.wire import CamelBody, CamelView, DecimalNumber, Identifier, Instant, View
from keyserver.ledger.models import Hold, HoldStatus

MOST_USD = 10_000_000
MOST_SECONDS = 86_400


def _amount(value: Decimal) -> Decimal:
    if not 0 <= value <= MOST_USD:
        raise ValueError(f"must be 0 to {MOST_USD:,}")
    return value


#: Dollars, with as many decimals as a price has; they are rounded up to a nanodollar.
Usd = Annotated[DecimalNumber, AfterValidator(_amount)]
#: A word of a capability is part of the code of its revenue account.
CapabilityWord = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9._-]{0,63}$")]
Word = Annotated[str, StringConstraints(min_length=1, max_length=128)]


def nanos_of(usd: Decimal) -> int:
    return nanos_up(Fraction(usd))


class NewHold(CamelBody):
    capability: CapabilityWord
    estimate_usd: Usd = Field(description="What is held: the expected charge, its margin included")
    ttl_seconds: int = Field(900, ge=1, le=MOST_SECONDS, strict=True, description="Then the hold expires")


class PlacedHold(CamelView):
    hold_id: str
    status: HoldStatus
    capability: str
    estimate_nanodollars: str
    expires_at: Instant


class HoldView(PlacedHold):
    """`late`: charged after it had expired. `closedAt` is null while it is pending."""

    created_at: Instant
    closed_at: Instant | None
    late: bool
    attributed_to: str | None


class NewSettlement(CamelBody):
    cost_usd: Usd = Field(description="What the call cost; charged is this times margin, rounded up to a nanodollar")
    request_id: Identifier = Field(description="The call's own name; by tenant it is charged once, whatever the hold")
    provider: Word | None = None
    units: DecimalNumber | None = Field(None, ge=0, le=10**15)
    unit_type: Word | None = None

    @model_validator(mode="after")
    def _units_have_a_type(self) -> "NewSettlement":
        if (self.units is None) != (self.unit_type is None):
            raise ValueError("units and unitType go together")
        return self


class SettledHold(CamelView):
    """The same each time it is asked for. `entryId` is null when nothing was charged."""

    hold_id: str
    status: HoldStatus
    capability: str
    cost_nanodollars: str
    charged_nanodollars: str
    charged_usd: str
    entry_id: str | None


class VoidedHold(CamelView):
    hold_id: str
    status: HoldStatus


class AdminHoldView(View):
    id: str
    tenant_id: str
    instance_id: str | None
    attributed_to: str | None
    capability: str
    status: HoldStatus
    late: bool
    estimate_usd: str
    created_at: Instant
    expires_at: Instant
    closed_at: Instant | None


class AdminHoldPage(View):
    holds: list[AdminHoldView]
    next_cursor: str | None


def hold_view(hold: Hold) -> HoldView:
    return HoldView(
        hold_id=hold.id,
        status=hold.status,
        capability=hold.capability,
        estimate_nanodollars=str(hold.estimate_nanos),
        created_at=hold.created_at,
        expires_at=hold.expires_at,
        closed_at=hold.closed_at,
        late=hold.late,
        attributed_to=hold.attributed_tenant_id,
    )


def admin_hold_view(hold: Hold) -> AdminHoldView:
    return AdminHoldView(
        id=hold.id,
        tenant_id=hold.tenant_id,
        instance_id=hold.instance_id,
        attributed_to=hold.attributed_tenant_id,
        capability=hold.capability,
        status=hold.status,
        late=hold.late,
        estimate_usd=format_nanos(hold.estimate_nanos),
        created_at=hold.created_at,
        expires_at=hold.expires_at,
        closed_at=hold.closed_at,
    )
