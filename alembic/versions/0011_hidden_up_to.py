"""Up to where blocks may hide coin that is still to be found by balances: a restart must not forget it

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("scanners", sa.Column("hidden_up_to", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("scanners", "hidden_up_to")
