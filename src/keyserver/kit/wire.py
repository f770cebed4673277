"""Shapes of the wire: members that many bodies share."""

from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, StringConstraints, WithJsonSchema
from pydantic.alias_generators import to_camel

from keyserver.kit.clock import iso_z


class Body(BaseModel):
    """A request. Members we don't know are passed over, as the older service did."""

    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True)


class CamelBody(Body):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=False)


class View(BaseModel):
    """An answer of the admin routes (snake_case)."""

    model_config = ConfigDict(from_attributes=True)


class CamelView(BaseModel):
    """An answer of the product routes (camelCase)."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, from_attributes=True)


Instant = Annotated[datetime, PlainSerializer(iso_z, return_type=str, when_used="json")]
#: An identifier that is a segment of a path as well, so without a slash.
PathName = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[\x21-\x2e\x30-\x7e]+$")]
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")]
#: A caller's own object: its names are kept with their white space, which `Body` strips from its members.
JsonObject = dict[Annotated[str, StringConstraints(strip_whitespace=False)], Any]
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=512)]


def _decimal(value: Any) -> Any:
    """A JSON number or a plain decimal string; never a bool, NaN, infinity or a text of another form."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("must be a number or a decimal string")
    text = repr(value) if isinstance(value, float) else str(value).strip()
    if len(text) > 64 or not set(text) <= set("0123456789.+-eE"):
        raise ValueError("must be a number or a decimal string")
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError("must be a number or a decimal string") from None
    if not number.is_finite() or abs(number.adjusted()) > 40:
        raise ValueError("must be a finite number of a sane size")
    return number


DecimalNumber = Annotated[
    Decimal,
    BeforeValidator(_decimal),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^\d+(\.\d+)?$"}]}),
]
