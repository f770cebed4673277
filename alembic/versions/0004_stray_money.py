"""Stray money: look-ahead addresses, payments without a tenant, and what was decided about them

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


_HISTORY_GUARDS = """
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON payment_actions
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_history();

CREATE TRIGGER never_truncated BEFORE TRUNCATE ON payment_actions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history();
"""

#: The older schema knows no money without an owner: it becomes the built-in tenant's, which is credited with nothing.
_GIVE_TO_PLATFORM = """
UPDATE payments SET tenant_id = 'platform' WHERE tenant_id IS NULL;

UPDATE addresses SET tenant_id = coalesce(tenant_id, 'platform'),
       payment_method_id = (SELECT id FROM payment_methods m WHERE m.key_ring_id = addresses.key_ring_id LIMIT 1)
 WHERE payment_method_id IS NULL;
"""


def upgrade() -> None:
    op.create_table(
        "lookahead_addresses",
        sa.Column("key_ring_id", sa.Text(), nullable=False),
        sa.Column("spelling", sa.Text(), nullable=False),
        sa.Column("address_index", sa.BigInteger(), nullable=False),
        sa.Column("match_key", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key_ring_id", "spelling", "address_index", name=op.f("pk_lookahead_addresses")),
        sa.UniqueConstraint("match_key", name=op.f("uq_lookahead_addresses_match_key")),
    )
    op.create_table(
        "lookahead_windows",
        sa.Column("key_ring_id", sa.Text(), nullable=False),
        sa.Column("spelling", sa.Text(), nullable=False),
        sa.Column("filled_index", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("swept_index", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(["key_ring_id"], ["key_rings.id"], name=op.f("fk_lookahead_windows_key_ring_id")),
        sa.PrimaryKeyConstraint("key_ring_id", "spelling", name=op.f("pk_lookahead_windows")),
    )
    op.alter_column("addresses", "tenant_id", nullable=True)
    op.alter_column("addresses", "payment_method_id", nullable=True)
    op.alter_column("payments", "tenant_id", nullable=True)
    op.add_column("payments", sa.Column("never_issued", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("payments", sa.Column("dismissed_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "payment_actions",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("payment_id", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("asked", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("before", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("after", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("acted_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("action IN ('credit', 'dismiss', 'reverse')", name=op.f("ck_payment_actions_action_known")),
        sa.CheckConstraint("actor IN ('admin', 'chain')", name=op.f("ck_payment_actions_actor_known")),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_payment_actions_payment_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payment_actions")),
    )
    op.create_index(op.f("ix_payment_actions_payment_id_id"), "payment_actions", ["payment_id", "id"], unique=False)
    for statement in _HISTORY_GUARDS.split("\n\n"):
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("payment_actions")
    for statement in _GIVE_TO_PLATFORM.split("\n\n"):
        op.execute(statement)
    op.drop_column("payments", "dismissed_at")
    op.drop_column("payments", "never_issued")
    op.alter_column("payments", "tenant_id", nullable=False)
    op.alter_column("addresses", "payment_method_id", nullable=False)
    op.alter_column("addresses", "tenant_id", nullable=False)
    op.drop_table("lookahead_windows")
    op.drop_table("lookahead_addresses")
