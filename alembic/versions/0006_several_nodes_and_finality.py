"""Several nodes and finality: what makes a payment final by chain, and what an operator sees of nodes."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Both tables have a row for each blockchain: checking and locking them takes no time.
    op.add_column("blockchains", sa.Column("finality", sa.Text(), server_default=sa.text("'depth'"), nullable=False))
    op.create_check_constraint(
        op.f("ck_blockchains_finality_known"), "blockchains", "finality IN ('depth', 'safe', 'finalized')"
    )
    op.add_column("node_reports", sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column("node_reports", sa.Column("nodes", postgresql.JSONB(astext_type=sa.Text()), nullable=True))
    op.add_column("node_reports", sa.Column("blocks_per_second", sa.Double(), nullable=True))
    op.add_column("node_reports", sa.Column("final_height", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    for column in ("final_height", "blocks_per_second", "nodes", "failing_since"):
        op.drop_column("node_reports", column)
    op.drop_constraint(op.f("ck_blockchains_finality_known"), "blockchains", type_="check")
    op.drop_column("blockchains", "finality")
