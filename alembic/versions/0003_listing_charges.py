"""Indexes for lists of charges by state and by time

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_charges_unended",
        "charges",
        ["tenant_id", "id"],
        unique=False,
        postgresql_where=sa.text("status IN ('New', 'Processing', 'Invalid')"),
    )
    op.create_index(
        op.f("ix_charges_created_at"),
        "charges",
        ["created_at"],
        unique=False,
        postgresql_using="brin",
        postgresql_with={"autosummarize": True},
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_charges_created_at"), table_name="charges")
    op.drop_index("ix_charges_unended", table_name="charges")
