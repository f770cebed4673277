"""Jobs that read blocks again: rescans and audits

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "watch_jobs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("blockchain_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("nightly", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("from_height", sa.BigInteger(), nullable=True),
        sa.Column("since_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("to_height", sa.BigInteger(), nullable=False),
        sa.Column("next_height", sa.BigInteger(), nullable=True),
        sa.Column("status", sa.Text(), server_default=sa.text("'waiting'"), nullable=False),
        sa.Column("found", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("report", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('rescan', 'audit')", name=op.f("ck_watch_jobs_kind_known")),
        sa.CheckConstraint(
            "status IN ('waiting', 'running', 'done', 'failed', 'cancelled')",
            name=op.f("ck_watch_jobs_status_known"),
        ),
        sa.CheckConstraint(
            "from_height IS NOT NULL OR since_at IS NOT NULL", name=op.f("ck_watch_jobs_begins_somewhere")
        ),
        sa.ForeignKeyConstraint(["blockchain_id"], ["blockchains.id"], name=op.f("fk_watch_jobs_blockchain_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_watch_jobs")),
    )
    op.create_index(
        op.f("ix_watch_jobs_blockchain_id_kind_id"), "watch_jobs", ["blockchain_id", "kind", "id"], unique=False
    )
    op.create_index(
        "ix_watch_jobs_open",
        "watch_jobs",
        ["blockchain_id", "id"],
        unique=False,
        postgresql_where=sa.text("finished_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("watch_jobs")
