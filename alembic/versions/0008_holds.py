"""Holds, credit terms, rate windows and usage records

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Constant defaults: PostgreSQL notes them without writing a row.
    for column in (
        sa.Column("held_nanos", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("credited", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("spent_on", sa.Date(), nullable=True),
        sa.Column("day_spent_nanos", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("month_spent_nanos", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
    ):
        op.add_column("account_balances", column)
    op.execute(
        "ALTER TABLE account_balances ADD CONSTRAINT ck_account_balances_held_not_negative"
        " CHECK (held_nanos >= 0) NOT VALID"
    )
    op.execute("ALTER TABLE account_balances VALIDATE CONSTRAINT ck_account_balances_held_not_negative")
    # One row a tenant, each answered from the index of its history.
    op.execute(
        "UPDATE account_balances AS b SET credited = true WHERE b.account_code LIKE '2000:%' AND EXISTS ("
        " SELECT FROM journal_lines WHERE account_code = b.account_code AND account_version IS NOT NULL"
        " AND side = 'credit')"
    )
    op.create_table(
        "holds",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("instance_id", sa.Text(), nullable=True),
        sa.Column("attributed_tenant_id", sa.Text(), nullable=True),
        sa.Column("capability", sa.Text(), nullable=False),
        sa.Column("estimate_nanos", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("late", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("estimate_nanos >= 0", name=op.f("ck_holds_estimate_not_negative")),
        sa.CheckConstraint("status IN ('pending', 'posted', 'voided', 'expired')", name=op.f("ck_holds_status_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_holds")),
    )
    op.create_index(
        "ix_holds_due", "holds", ["expires_at"], unique=False, postgresql_where=sa.text("status = 'pending'")
    )
    op.create_index("ix_holds_unbilled", "holds", ["id"], unique=False, postgresql_where=sa.text("status = 'expired'"))
    op.create_table(
        "credit_terms",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("grace_nanos", sa.BigInteger(), nullable=True),
        sa.Column("daily_cap_nanos", sa.BigInteger(), nullable=True),
        sa.Column("monthly_cap_nanos", sa.BigInteger(), nullable=True),
        sa.Column("margin", sa.Numeric(), nullable=True),
        sa.Column("low_balance_nanos", sa.BigInteger(), nullable=True),
        sa.Column("top_up_below_nanos", sa.BigInteger(), nullable=True),
        sa.Column("top_up_amount_nanos", sa.BigInteger(), nullable=True),
        sa.Column("callback_url", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_credit_terms_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_credit_terms")),
    )
    op.create_table(
        "credit_crossings",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("threshold_nanos", sa.BigInteger(), nullable=False),
        sa.Column("balance_nanos", sa.BigInteger(), nullable=False),
        sa.Column("entry_id", sa.Text(), nullable=False),
        sa.Column("crossed_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('low', 'exhausted', 'top_up_due')", name=op.f("ck_credit_crossings_kind_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credit_crossings")),
    )
    op.create_table(
        "rate_windows",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("rate_group", sa.Text(), nullable=False),
        sa.Column("per_minute", sa.Integer(), nullable=True),
        sa.Column("head_second", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("buckets", postgresql.ARRAY(sa.BigInteger()), server_default=sa.text("'{}'"), nullable=False),
        sa.CheckConstraint(
            "rate_group IN ('llm', 'image', 'audio', 'telephony')", name=op.f("ck_rate_windows_group_known")
        ),
        sa.CheckConstraint("per_minute >= 0", name=op.f("ck_rate_windows_per_minute_not_negative")),
        sa.PrimaryKeyConstraint("tenant_id", "rate_group", name=op.f("pk_rate_windows")),
    )
    op.create_table(
        "usage_records",
        sa.Column("hold_id", sa.Text(), nullable=False),
        sa.Column("entry_id", sa.Text(), nullable=True),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=True),
        sa.Column("instance_id", sa.Text(), nullable=True),
        sa.Column("attributed_tenant_id", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("capability", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("upstream", sa.Text(), nullable=True),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("units", sa.Numeric(), nullable=True),
        sa.Column("unit_type", sa.Text(), nullable=True),
        sa.Column("cost_nanos", sa.BigInteger(), nullable=False),
        sa.Column("charge_nanos", sa.BigInteger(), nullable=False),
        sa.Column("cost_source", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("duration_ms", sa.BigInteger(), nullable=False),
        sa.Column("first_byte_ms", sa.BigInteger(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("upstream_status", sa.Integer(), nullable=True),
        sa.Column("streamed", sa.Boolean(), nullable=False),
        sa.Column("late", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.CheckConstraint("cost_nanos >= 0 AND charge_nanos >= 0", name=op.f("ck_usage_records_amounts_not_negative")),
        sa.CheckConstraint(
            "cost_source IN ('upstream', 'usage', 'estimate', 'stated')",
            name=op.f("ck_usage_records_cost_source_known"),
        ),
        sa.CheckConstraint(
            "outcome IN ('completed', 'client_gone', 'upstream_cut', 'shutdown')",
            name=op.f("ck_usage_records_outcome_known"),
        ),
        sa.PrimaryKeyConstraint("hold_id", name=op.f("pk_usage_records")),
    )
    op.create_index(
        op.f("ix_usage_records_tenant_id_settled_at"), "usage_records", ["tenant_id", "settled_at"], unique=False
    )
    op.create_index(op.f("ix_usage_records_settled_at"), "usage_records", ["settled_at"], unique=False)
    op.create_index(
        "uq_usage_records_stated",
        "usage_records",
        ["tenant_id", "request_id"],
        unique=True,
        postgresql_where=sa.text("cost_source = 'stated'"),
    )


def downgrade() -> None:
    op.drop_table("usage_records")
    op.drop_table("rate_windows")
    op.drop_table("credit_crossings")
    op.drop_table("credit_terms")
    op.drop_table("holds")
    op.drop_constraint(op.f("ck_account_balances_held_not_negative"), "account_balances", type_="check")
    for name in ("month_spent_nanos", "day_spent_nanos", "spent_on", "credited", "held_nanos"):
        op.drop_column("account_balances", name)
