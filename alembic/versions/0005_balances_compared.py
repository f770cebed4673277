"""Comparing balances: how far each address was looked at, and payments found that way

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "account_checks",
        sa.Column("blockchain_id", sa.Text(), nullable=False),
        sa.Column("match_key", sa.Text(), nullable=False),
        sa.Column("height", sa.BigInteger(), nullable=False),
        sa.Column("block_hash", sa.Text(), nullable=False),
        sa.Column("balance_units", sa.Numeric(precision=78, scale=0), nullable=True),
        sa.Column("nonce", sa.BigInteger(), nullable=True),
        sa.Column("watched_until", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["blockchain_id"], ["blockchains.id"], name=op.f("fk_account_checks_blockchain_id")),
        sa.PrimaryKeyConstraint("blockchain_id", "match_key", name=op.f("pk_account_checks")),
    )
    op.create_index(
        "ix_account_checks_watched",
        "account_checks",
        ["blockchain_id", "watched_until"],
        unique=False,
        postgresql_where=sa.text("watched_until IS NOT NULL"),
    )
    op.create_table(
        "account_rounds",
        sa.Column("blockchain_id", sa.Text(), nullable=False),
        sa.Column("key_ring_id", sa.Text(), nullable=False),
        sa.Column("address_index", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["blockchain_id"], ["blockchains.id"], name=op.f("fk_account_rounds_blockchain_id")),
        sa.PrimaryKeyConstraint("blockchain_id", name=op.f("pk_account_rounds")),
    )
    # A column without a default is a change of the catalogue alone, however many payments there are.
    op.add_column("payments", sa.Column("found_above", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("payments", "found_above")
    op.drop_table("account_rounds")
    op.drop_table("account_checks")
