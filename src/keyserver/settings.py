"""Every setting, read once from the environment by the composition roots and passed down. README has this table."""

import os
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from keyserver.gateway.tariff_schemas import MAX_MARGIN, base_url

PREFIX = "KEYSERVER_"
#: Variables of ours that are no setting of the server: the command line's and the client's own.
_OTHERS = {"KEYSERVER_URL"}


def _default_workers() -> int:
    return min(4, os.cpu_count() or 1)


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", env_ignore_empty=True, populate_by_name=True)

    host: str = Field("127.0.0.1", validation_alias=AliasChoices("HOST", "host"))
    port: int = Field(3100, ge=0, le=65535, validation_alias=AliasChoices("PORT", "port"))
    database_url: SecretStr | None = Field(None, validation_alias=AliasChoices("DATABASE_URL", "database_url"))
    service_key: SecretStr | None = Field(None, validation_alias=AliasChoices("SERVICE_KEY", "service_key"))
    admin_token: SecretStr | None = Field(None, validation_alias=AliasChoices("ADMIN_TOKEN", "admin_token"))

    secret_key: SecretStr | None = Field(None, description="Master key for webhook secrets and node credentials")
    data_dir: Path = Field(Path("~/.local/share/keyserver"), description="Where the embedded PostgreSQL lives")
    workers: int = Field(default_factory=_default_workers, ge=1, le=64, description="API processes of `serve`")
    demo: bool = Field(False, description="Demo mode: simulated chains and /demo/*, never in production")
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR")
    shutdown_seconds: float = Field(10.0, gt=0, description="How long requests in flight may take after SIGTERM")
    failed_keys_per_minute: int = Field(
        100, ge=1, description="Wrong keys from one address, by process, before more are refused unread"
    )

    database_pool: int = Field(10, ge=2, le=200, description="Connections of each of a process's two pools")
    database_prepared_statements: bool = Field(True, description="false behind a PgBouncer older than 1.21")
    database_timeout_seconds: float = Field(10.0, gt=0, description="Longest statement")

    poll_seconds: float = Field(5.0, gt=0, description="How often a node is asked, unless its registration says else")
    lookahead: int = Field(100, ge=1, le=100_000, description="Addresses watched ahead of each ring's next index")
    charge_lifetime_seconds: int = Field(1800, ge=60, le=604800, description="Default lifetime of a charge")
    ledger_check_seconds: float = Field(3600.0, gt=0, description="How often balances are compared with their lines")

    audit_seconds: float = Field(
        86400.0, ge=0, description="How often payments, ledger and nodes are compared over the last blocks; 0 for never"
    )
    top_up_url: str | None = Field(
        None, description="Where a tenant adds credit; named in refusals and `credits.*` events"
    )

    webhook_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="CIDRs and host names that may be called although private"
    )
    webhook_timeout_seconds: float = Field(15.0, gt=0, description="How long a receiver may take")

    price_sources: Annotated[tuple[str, ...], NoDecode] = Field(
        ("coingecko", "kraken", "coinbase"), description="Which sources are asked; `none` for none"
    )
    price_seconds: float = Field(30.0, gt=0, description="How often each source is asked")
    price_max_age_seconds: float = Field(300.0, gt=0, description="An older price does not count")
    price_chainlink_max_age_seconds: float = Field(
        4500.0, gt=0, description="The same for Chainlink, whose feeds are written at least once an hour"
    )
    price_frozen_seconds: float = Field(
        1800.0, gt=0, description="A price unchanged for so long does not count when other sources have moved away"
    )
    price_max_deviation: float = Field(
        0.05, gt=0, lt=1, description="Share by which sources may differ from their median"
    )
    stablecoin_band: float = Field(0.02, gt=0, lt=1, description="Share round $1 inside which a stablecoin is at par")
    coingecko_api_key: SecretStr | None = Field(None, description="Demo key for CoinGecko")

    call_seconds: float = Field(900.0, gt=0, description="Longest call of the gateway, and nearly a hold's life")
    call_linger_seconds: float = Field(
        2.0, ge=0, description="How long a stream is read on after its client has gone, for the usage at its end"
    )
    upstream_connections: int = Field(1000, ge=1, description="Most connections of a process to upstreams")
    upstream_url: Annotated[str, AfterValidator(base_url)] | None = Field(
        None, description="Where calls go that no registered upstream serves, such as https://api.openai.com/v1"
    )
    upstream_api_key: SecretStr | None = Field(None, description="That upstream's key")
    margin: Decimal = Field(
        Decimal("1.3"),
        gt=0,
        le=MAX_MARGIN,
        description="What costs are multiplied by, unless tenant or upstream say else",
    )
    estimate_output_tokens: int = Field(
        2048, ge=1, le=1_000_000, description="Expected of a call that names no maximum"
    )
    estimate_floor_usd: Decimal = Field(Decimal("0.000001"), ge=0, le=1000, description="Least that a call holds")
    estimate_cap_usd: Decimal = Field(Decimal(100), gt=0, le=1_000_000, description="Most that a call holds")

    @field_validator("webhook_allow", "price_sources", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """A comma-separated list; `none` is the empty one."""
        if not isinstance(value, str):
            return value
        return () if value.strip() == "none" else tuple(part.strip() for part in value.split(",") if part.strip())

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        if value.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
            raise ValueError("must be DEBUG, INFO, WARNING or ERROR")
        return value.upper()

    def summary(self) -> dict[str, Any]:
        """The settings without their secrets, for the line logged at start."""
        return {name: value for name, value in self.model_dump(mode="json").items() if value != "**********"}


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """KEYSERVER_ variables that name no setting, most likely misspelt."""
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields} | _OTHERS
    return sorted(name for name in environ if name.upper().startswith(PREFIX) and name.upper() not in known)
