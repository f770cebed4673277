"""Money is integers with a named unit; a `Decimal` stands only where a price meets an amount.

- nanodollars (`_nanos`): 1e-9 USD, BIGINT in the database
- cents (`_cents`): 1e-2 USD
- base units (`_units`): the smallest unit of an asset (satoshi, wei), NUMERIC(78,0) in the database
- price (`_usd`): US dollars for one whole coin or token, a Decimal

Every rounding names its direction: what we ask rounds up, what we credit rounds down.
"""

from decimal import ROUND_DOWN, ROUND_HALF_UP, Context, Decimal, localcontext

NANOS_PER_USD = 1_000_000_000
NANOS_PER_CENT = 10_000_000
MAX_NANOS = 2**63 - 1
MAX_UNITS = 10**78 - 1

#: Wide enough for every amount we accept, so that the named rounding is the only one.
_EXACT = Context(prec=200)


def usd_to_cents(amount: Decimal) -> int:
    """Dollars rounded half up to cents."""
    with localcontext(_EXACT):
        return int((amount * 100).quantize(Decimal(1), rounding=ROUND_HALF_UP))


def usd_to_nanos_exact(amount: Decimal) -> int:
    """Dollars as nanodollars; ValueError when there are more than nine decimals."""
    numerator, denominator = amount.as_integer_ratio()
    nanos, rest = divmod(numerator * NANOS_PER_USD, denominator)
    if rest:
        raise ValueError("a dollar amount has at most nine decimals")
    return nanos


def cents_to_units_up(cents: int, *, price_usd: Decimal, decimals: int) -> int:
    """Base units that are worth at least `cents` at `price_usd` for one whole coin; rounds up."""
    numerator, denominator = price_usd.as_integer_ratio()
    asked: int = -(-cents * 10**decimals * denominator // (100 * numerator))
    return asked


def units_to_nanos_down(units: int, *, price_usd: Decimal, decimals: int) -> int:
    """Nanodollars that `units` are worth at `price_usd` for one whole coin; rounds down."""
    numerator, denominator = price_usd.as_integer_ratio()
    worth: int = units * numerator * NANOS_PER_USD // (denominator * 10**decimals)
    return worth


def nanos_to_cents_down(nanos: int) -> int:
    """Whole cents in an amount of nanodollars, toward zero."""
    sign = -1 if nanos < 0 else 1
    return sign * (abs(nanos) // NANOS_PER_CENT)


def format_nanos(nanos: int) -> str:
    """Dollars with nine decimals, exact: 250000000 is `0.250000000`."""
    sign = "-" if nanos < 0 else ""
    whole, fraction = divmod(abs(nanos), NANOS_PER_USD)
    return f"{sign}{whole}.{fraction:09d}"


def format_units(units: int, decimals: int) -> str:
    """Whole coins as a plain decimal without trailing zeros: 150000000 at 8 decimals is `1.5`."""
    with localcontext(_EXACT):
        exact = Decimal(units).scaleb(-decimals)
        text = format(exact.quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_DOWN), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def format_price(price_usd: Decimal) -> str:
    """A price as a plain decimal without exponent or trailing zeros."""
    text = format(price_usd, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
