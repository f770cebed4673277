"""The declarative base: one metadata, every constraint named the same way."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import BigInteger, DateTime, Dialect, MetaData, Numeric, Text, TypeDecorator
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase

NAMING_CONVENTION = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
}


class Base(DeclarativeBase):
    """Python types decide column types: text without a limit, instants with a zone, integers of 64 bits."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        str: Text,
        int: BigInteger,
        datetime: DateTime(timezone=True),
        Decimal: Numeric,
        dict[str, Any]: JSONB,
    }


class Units(TypeDecorator[int]):
    """Native amounts in base units: NUMERIC of 78 digits, which hold any uint256, and an int in Python."""

    impl = Numeric(78, 0)
    cache_ok = True

    def process_result_value(self, value: Decimal | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        return None if value is None else int(value)


W = TypeVar("W", bound=StrEnum)


class Words(TypeDecorator[W]):
    """A StrEnum kept as text and held to its words by a CHECK, which migrates more easily than a PostgreSQL enum."""

    impl = Text
    cache_ok = True

    def __init__(self, words: type[W]) -> None:
        super().__init__()
        self.words = words

    def process_bind_param(self, value: W | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> W | None:  # noqa: ARG002
        return None if value is None else self.words(value)


def words_check(column: str, words: type[StrEnum]) -> str:
    """SQL of a CHECK that a text column holds one of a StrEnum's words."""
    listed = ", ".join(f"'{word}'" for word in words)
    return f"{column} IN ({listed})"
