"""Rates and upstreams of the gateway

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


_GUARDS = """
CREATE FUNCTION refuse_change_of_rate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.valid_to IS NULL AND to_jsonb(NEW) - 'valid_to' = to_jsonb(OLD) - 'valid_to' THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'rates are append-only: end this one and add another' USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON rates
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_rate();

CREATE TRIGGER never_truncated BEFORE TRUNCATE ON rates
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history();
"""


def upgrade() -> None:
    op.create_table(
        "rates",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("capability", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("price_usd", sa.Numeric(), nullable=False),
        sa.Column("fallback", sa.Boolean(), nullable=False),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("price_usd BETWEEN 0 AND 10000", name=op.f("ck_rates_price_sane")),
        sa.CheckConstraint(
            "unit IN ('1K-input-tokens', '1K-output-tokens', '1K-tokens', 'request', 'image', 'second',"
            " '1K-characters')",
            name=op.f("ck_rates_unit_known"),
        ),
        sa.CheckConstraint("valid_to >= valid_from", name=op.f("ck_rates_validity_in_order")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rates")),
    )
    op.create_index(
        "uq_rates_in_force",
        "rates",
        ["capability", "model", "unit", "fallback"],
        unique=True,
        postgresql_where=sa.text("valid_to IS NULL"),
    )
    op.create_index(
        "ix_rates_ended", "rates", ["valid_to", "id"], unique=False, postgresql_where=sa.text("valid_to IS NOT NULL")
    )
    op.create_table(
        "upstreams",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("base_url", sa.Text(), nullable=False),
        sa.Column("api_key_encrypted", sa.LargeBinary(), nullable=True),
        sa.Column("models", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("margin", sa.Numeric(), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("connect_timeout_seconds", sa.Double(), nullable=False),
        sa.Column("idle_timeout_seconds", sa.Double(), nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("margin > 0 AND margin <= 100", name=op.f("ck_upstreams_margin_sane")),
        sa.CheckConstraint(
            "connect_timeout_seconds > 0 AND idle_timeout_seconds > 0", name=op.f("ck_upstreams_timeouts_positive")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_upstreams")),
    )
    for statement in _GUARDS.split("\n\n"):
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("upstreams")
    op.drop_table("rates")
    op.execute("DROP FUNCTION refuse_change_of_rate")
