"""Wire shapes of a tenant's limits."""

from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

from keyserver.gateway.capabilities import Group
from keyserver.gateway.rate import DEFAULT_PER_MINUTE, MOST_PER_MINUTE
from keyserver.kit.money import format_nanos, usd_to_nanos_exact
from keyserver.kit.wire import Body, DecimalNumber, View
from keyserver.ledger.models import CreditTerms
from keyserver.ledger.terms import DEFAULT_GRACE_NANOS

MOST_USD = 1_000_000_000
MOST_MARGIN = 100


def _dollars(value: Decimal) -> Decimal:
    if not 0 <= value <= MOST_USD:
        raise ValueError(f"must be 0 to {MOST_USD:,}")
    usd_to_nanos_exact(value)
    return value


def _positive(value: Decimal) -> Decimal:
    if value == 0:
        raise ValueError("must be more than 0")
    return value


def _margin(value: Decimal) -> Decimal:
    exponent = value.as_tuple().exponent
    if not 0 < value <= MOST_MARGIN or not isinstance(exponent, int) or exponent < -9:
        raise ValueError(f"must be more than 0, at most {MOST_MARGIN}, with at most nine decimals")
    return value


PerMinute = Annotated[int, Field(ge=0, le=MOST_PER_MINUTE, strict=True)]
Usd = Annotated[DecimalNumber, AfterValidator(_dollars)]
Margin = Annotated[DecimalNumber, AfterValidator(_margin)]
Url = Annotated[str, StringConstraints(min_length=1, max_length=2048)]


class AutoTopUp(Body):
    """When the balance falls to `below_usd`, `credits.top_up_due` asks for `amount_usd`."""

    model_config = ConfigDict(extra="forbid")

    below_usd: Usd
    amount_usd: Annotated[Usd, AfterValidator(_positive)]


class NewLimits(Body):
    """What is left out stays as it is; null puts the default back. A misspelt member is refused, not passed over."""

    model_config = ConfigDict(extra="forbid")

    llm_per_minute: PerMinute | None = None
    image_per_minute: PerMinute | None = None
    audio_per_minute: PerMinute | None = None
    telephony_per_minute: PerMinute | None = None
    daily_usd: Usd | None = Field(None, description="Cap by UTC day: spent + held + estimate stay within it")
    monthly_usd: Usd | None = Field(None, description="The same by calendar month, UTC")
    grace_usd: Usd | None = Field(None, description="How far below zero a tenant may go that was credited before")
    margin: Margin | None = Field(
        None, description="Charge = cost times margin; null: the upstream's, else the default"
    )
    low_balance_usd: Usd | None = Field(None, description="`credits.low` when the balance falls to this")
    auto_top_up: AutoTopUp | None = None
    credits_callback_url: Url | None = Field(None, description="Where `credits.*` events go; null: nowhere")

    def terms(self) -> dict[str, Any]:
        """The columns of credit_terms that are named."""
        columns: dict[str, Any] = {}
        for member, column in _DOLLARS.items():
            if member in self.model_fields_set:
                columns[column] = _nanos(getattr(self, member))
        for member, column in (("margin", "margin"), ("credits_callback_url", "callback_url")):
            if member in self.model_fields_set:
                columns[column] = getattr(self, member)
        if "auto_top_up" in self.model_fields_set:
            due = self.auto_top_up
            columns["top_up_below_nanos"] = None if due is None else _nanos(due.below_usd)
            columns["top_up_amount_nanos"] = None if due is None else _nanos(due.amount_usd)
        return columns

    def per_minute(self) -> dict[Group, int | None]:
        """The rates that are named."""
        return {group: getattr(self, name) for group, name in _RATES.items() if name in self.model_fields_set}


_RATES = {group: f"{group}_per_minute" for group in Group}
_DOLLARS = {
    "daily_usd": "daily_cap_nanos",
    "monthly_usd": "monthly_cap_nanos",
    "grace_usd": "grace_nanos",
    "low_balance_usd": "low_balance_nanos",
}


def _nanos(usd: Decimal | None) -> int | None:
    return None if usd is None else usd_to_nanos_exact(usd)


class AutoTopUpView(View):
    below_usd: str
    amount_usd: str


class LimitsView(View):
    """What holds now; null is no cap, no warning, and the default margin. Those in `defaults` are nobody's choice."""

    tenant_id: str
    llm_per_minute: int
    image_per_minute: int
    audio_per_minute: int
    telephony_per_minute: int
    daily_usd: str | None
    monthly_usd: str | None
    grace_usd: str
    margin: str | None
    low_balance_usd: str | None
    auto_top_up: AutoTopUpView | None
    credits_callback_url: str | None
    defaults: list[str]


def limits_view(terms: CreditTerms, per_minute: dict[Group, int]) -> LimitsView:
    own: dict[str, Any] = {
        **{_RATES[group]: limit for group, limit in per_minute.items()},
        **{member: _usd(getattr(terms, column)) for member, column in _DOLLARS.items()},
        "margin": None if terms.margin is None else str(terms.margin),
        "auto_top_up": _top_up(terms),
        "credits_callback_url": terms.callback_url,
    }
    chosen = {member: value for member, value in own.items() if value is not None}
    defaults: dict[str, Any] = {
        **dict.fromkeys(own),
        **{_RATES[group]: limit for group, limit in DEFAULT_PER_MINUTE.items()},
        "grace_usd": format_nanos(DEFAULT_GRACE_NANOS),
    }
    return LimitsView(
        tenant_id=terms.tenant_id,
        **(defaults | chosen),
        defaults=sorted(name for name in defaults if name not in chosen),
    )


def _top_up(terms: CreditTerms) -> AutoTopUpView | None:
    if terms.top_up_below_nanos is None or terms.top_up_amount_nanos is None:
        return None
    return AutoTopUpView(
        below_usd=format_nanos(terms.top_up_below_nanos), amount_usd=format_nanos(terms.top_up_amount_nanos)
    )


def _usd(nanos: int | None) -> str | None:
    return None if nanos is None else format_nanos(nanos)
