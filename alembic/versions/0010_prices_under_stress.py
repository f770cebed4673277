"""Prices under stress: since when a source has said the same, and what its last answer left out

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("price_observations", sa.Column("changed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column(
        "price_sources",
        sa.Column("left_out", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'::text[]"), nullable=False),
    )


def downgrade() -> None:
    op.drop_column("price_sources", "left_out")
    op.drop_column("price_observations", "changed_at")
