"""Tiers of platform services

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        UPDATE tenants SET metadata = metadata || '{"tier": "internal"}'
         WHERE type = 'platform_service' AND NOT metadata ? 'tier'
        """
    )


def downgrade() -> None:
    op.execute("UPDATE tenants SET metadata = metadata - 'tier' WHERE type = 'platform_service'")
