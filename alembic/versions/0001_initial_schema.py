"""Initial schema

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


_LEDGER_GUARDS = """
CREATE FUNCTION refuse_change_of_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: correct it with a new entry', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON journal_entries
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_history();

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON journal_lines
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_history();

CREATE TRIGGER never_truncated BEFORE TRUNCATE ON journal_entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history();

CREATE TRIGGER never_truncated BEFORE TRUNCATE ON journal_lines
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history();

CREATE FUNCTION entry_must_balance() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    entry text;
    debits numeric;
    credits numeric;
BEGIN
    IF TG_TABLE_NAME = 'journal_entries' THEN entry := NEW.id; ELSE entry := NEW.entry_id; END IF;
    SELECT sum(amount_nanos) FILTER (WHERE side = 'debit'), sum(amount_nanos) FILTER (WHERE side = 'credit')
      INTO debits, credits FROM journal_lines WHERE entry_id = entry;
    IF debits IS DISTINCT FROM credits OR debits IS NULL THEN
        RAISE EXCEPTION 'journal entry % does not balance: debits %, credits %', entry, debits, credits
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER must_balance AFTER INSERT ON journal_entries
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION entry_must_balance();

CREATE CONSTRAINT TRIGGER must_balance AFTER INSERT ON journal_lines
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION entry_must_balance();
"""

#: The built-in tenant, and the system accounts that exist before anything is posted (with their balance stripes).
_SEED = """
INSERT INTO tenants (id, name, slug, type) VALUES ('platform', 'Platform', 'platform', 'platform_service');

INSERT INTO accounts (code, name, type) VALUES
    ('1000', 'Cash', 'asset'), ('1100', 'Receivable', 'asset'), ('3000', 'Equity', 'equity');

INSERT INTO account_balances (account_code, stripe)
    SELECT code, stripe FROM accounts CROSS JOIN generate_series(0, 15) AS stripe;
"""


def upgrade() -> None:
    op.create_table(
        "addresses",
        sa.Column("key_ring_id", sa.Text(), nullable=False),
        sa.Column("address_index", sa.BigInteger(), nullable=False),
        sa.Column("match_key", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("payment_method_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key_ring_id", "address_index", name=op.f("pk_addresses")),
        sa.UniqueConstraint("match_key", name=op.f("uq_addresses_match_key")),
    )
    op.create_index(op.f("ix_addresses_tenant_id_created_at"), "addresses", ["tenant_id", "created_at"], unique=False)
    op.create_table(
        "blockchains",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("network", sa.Text(), nullable=False),
        sa.Column("family", sa.Text(), nullable=False),
        sa.Column("node_identity", sa.Text(), nullable=True),
        sa.Column("start_height", sa.BigInteger(), nullable=True),
        sa.Column("poll_seconds", sa.Double(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blockchains")),
        sa.UniqueConstraint("chain", "network", name=op.f("uq_blockchains_chain_network")),
    )
    op.create_table(
        "idempotent_answers",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_digest", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("body_encrypted", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("scope", "key", name=op.f("pk_idempotent_answers")),
    )
    op.create_index(op.f("ix_idempotent_answers_created_at"), "idempotent_answers", ["created_at"], unique=False)
    op.create_table(
        "journal_entries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("posted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("reference_id", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column(
            "metadata", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.CheckConstraint(
            "type IN ('purchase', 'usage', 'grant', 'refund', 'dividend', 'expiry', 'correction')",
            name=op.f("ck_journal_entries_type_known"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_journal_entries")),
        sa.UniqueConstraint("source", "reference_id", name=op.f("uq_journal_entries_source_reference_id")),
    )
    op.create_table(
        "key_rings",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("coin_type", sa.BigInteger(), nullable=False),
        sa.Column("account_index", sa.BigInteger(), nullable=False),
        sa.Column("curve", sa.Text(), nullable=False),
        sa.Column("xpub", sa.Text(), nullable=False),
        sa.Column("material", sa.Text(), nullable=False),
        sa.Column("index_sequence", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("account_index BETWEEN 0 AND 2147483647", name=op.f("ck_key_rings_account_index_range")),
        sa.CheckConstraint("coin_type BETWEEN 0 AND 2147483647", name=op.f("ck_key_rings_coin_type_range")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_key_rings")),
        sa.UniqueConstraint(
            "coin_type", "account_index", "curve", name=op.f("uq_key_rings_coin_type_account_index_curve")
        ),
        sa.UniqueConstraint("index_sequence", name=op.f("uq_key_rings_index_sequence")),
    )
    op.create_index(op.f("ix_key_rings_material"), "key_rings", ["material"], unique=False)
    op.create_table(
        "price_observations",
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("price_usd", sa.Numeric(), nullable=False),
        sa.Column("observed_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("price_usd > 0", name=op.f("ck_price_observations_price_positive")),
        sa.PrimaryKeyConstraint("token", "source", name=op.f("pk_price_observations")),
    )
    op.create_table(
        "price_pins",
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("price_usd", sa.Numeric(), nullable=False),
        sa.Column("pinned_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("price_usd > 0", name=op.f("ck_price_pins_price_positive")),
        sa.PrimaryKeyConstraint("token", name=op.f("pk_price_pins")),
    )
    op.create_table(
        "price_sources",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("next_fetch_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_success_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("last_error_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("source", name=op.f("pk_price_sources")),
    )
    op.create_table(
        "system_secrets",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_system_secrets")),
    )
    op.create_table(
        "tenants",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=True),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=True),
        sa.Column("billing_email", sa.Text(), nullable=True),
        sa.Column(
            "metadata", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("type IN ('personal', 'org', 'platform_service')", name=op.f("ck_tenants_type_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenants")),
        sa.UniqueConstraint("slug", name=op.f("uq_tenants_slug")),
    )
    op.create_table(
        "accounts",
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "type IN ('asset', 'liability', 'equity', 'revenue', 'expense')", name=op.f("ck_accounts_type_known")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_accounts_tenant_id")),
        sa.PrimaryKeyConstraint("code", name=op.f("pk_accounts")),
        sa.UniqueConstraint("tenant_id", name=op.f("uq_accounts_tenant_id")),
    )
    op.create_table(
        "charges",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("signing_tenant_id", sa.Text(), nullable=False),
        sa.Column("payment_method_id", sa.Text(), nullable=False),
        sa.Column("key_ring_id", sa.Text(), nullable=False),
        sa.Column("address_index", sa.BigInteger(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("amount_cents", sa.BigInteger(), nullable=False),
        sa.Column("expected_units", sa.Numeric(precision=78, scale=0), nullable=False),
        sa.Column("price_usd", sa.Numeric(), nullable=False),
        sa.Column("price_source", sa.Text(), nullable=False),
        sa.Column("priced_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decimals", sa.SmallInteger(), nullable=False),
        sa.Column("confirmations_required", sa.Integer(), nullable=False),
        sa.Column("callback_url", sa.Text(), nullable=True),
        sa.Column("metadata", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'New'"), nullable=False),
        sa.Column("additional_status", sa.Text(), server_default=sa.text("'None'"), nullable=False),
        sa.Column(
            "received_units",
            sa.Numeric(precision=78, scale=0),
            server_default=sa.text("0"),
            nullable=False,
        ),
        sa.Column("received_nanos", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "confirmed_units",
            sa.Numeric(precision=78, scale=0),
            server_default=sa.text("0"),
            nullable=False,
        ),
        sa.Column("confirmations", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("credited_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sequence", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint(
            "additional_status IN ('None', 'PaidPartial', 'PaidOver', 'PaidLate', 'Reorged')",
            name=op.f("ck_charges_additional_status_known"),
        ),
        sa.CheckConstraint(
            "status IN ('New', 'Processing', 'Settled', 'Expired', 'Invalid')", name=op.f("ck_charges_status_known")
        ),
        sa.CheckConstraint("amount_cents > 0", name=op.f("ck_charges_amount_positive")),
        sa.CheckConstraint("expected_units > 0", name=op.f("ck_charges_expected_positive")),
        sa.ForeignKeyConstraint(
            ["key_ring_id", "address_index"],
            ["addresses.key_ring_id", "addresses.address_index"],
            name=op.f("fk_charges_key_ring_id_address_index"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_charges")),
        sa.UniqueConstraint("key_ring_id", "address_index", name=op.f("uq_charges_key_ring_id_address_index")),
    )
    op.create_index(
        "ix_charges_deadline",
        "charges",
        ["deadline_at"],
        unique=False,
        postgresql_where=sa.text("deadline_at IS NOT NULL"),
    )
    op.create_index(op.f("ix_charges_tenant_id_id"), "charges", ["tenant_id", "id"], unique=False)
    op.create_table(
        "demo_blocks",
        sa.Column("blockchain_id", sa.Text(), nullable=False),
        sa.Column("block_hash", sa.Text(), nullable=False),
        sa.Column("height", sa.BigInteger(), nullable=False),
        sa.Column("parent_hash", sa.Text(), nullable=False),
        sa.Column("mined_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("canonical", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["blockchain_id"], ["blockchains.id"], name=op.f("fk_demo_blocks_blockchain_id")),
        sa.PrimaryKeyConstraint("blockchain_id", "block_hash", name=op.f("pk_demo_blocks")),
    )
    op.create_index(
        "uq_demo_blocks_canonical",
        "demo_blocks",
        ["blockchain_id", "height"],
        unique=True,
        postgresql_where=sa.text("canonical"),
    )
    op.create_table(
        "demo_transfers",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("blockchain_id", sa.Text(), nullable=False),
        sa.Column("tx_hash", sa.Text(), nullable=False),
        sa.Column("output_index", sa.BigInteger(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("amount_units", sa.Numeric(precision=78, scale=0), nullable=False),
        sa.Column("block_hash", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["blockchain_id"], ["blockchains.id"], name=op.f("fk_demo_transfers_blockchain_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_demo_transfers")),
        sa.UniqueConstraint(
            "blockchain_id",
            "tx_hash",
            "output_index",
            name=op.f("uq_demo_transfers_blockchain_id_tx_hash_output_index"),
        ),
    )
    op.create_table(
        "journal_lines",
        sa.Column("entry_id", sa.Text(), nullable=False),
        sa.Column("line", sa.SmallInteger(), nullable=False),
        sa.Column("account_code", sa.Text(), nullable=False),
        sa.Column("stripe", sa.SmallInteger(), nullable=False),
        sa.Column("side", sa.Text(), nullable=False),
        sa.Column("amount_nanos", sa.BigInteger(), nullable=False),
        sa.Column("balance_after_nanos", sa.BigInteger(), nullable=True),
        sa.Column("account_version", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("side IN ('debit', 'credit')", name=op.f("ck_journal_lines_side_known")),
        sa.CheckConstraint("amount_nanos > 0", name=op.f("ck_journal_lines_amount_positive")),
        sa.ForeignKeyConstraint(["entry_id"], ["journal_entries.id"], name=op.f("fk_journal_lines_entry_id")),
        sa.PrimaryKeyConstraint("entry_id", "line", name=op.f("pk_journal_lines")),
    )
    op.create_index(
        "uq_journal_lines_history",
        "journal_lines",
        ["account_code", "account_version"],
        unique=True,
        postgresql_where=sa.text("account_version IS NOT NULL"),
    )
    op.create_table(
        "node_reports",
        sa.Column("blockchain_id", sa.Text(), nullable=False),
        sa.Column("tip_height", sa.BigInteger(), nullable=True),
        sa.Column("tip_seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("last_error_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("capabilities", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.ForeignKeyConstraint(["blockchain_id"], ["blockchains.id"], name=op.f("fk_node_reports_blockchain_id")),
        sa.PrimaryKeyConstraint("blockchain_id", name=op.f("pk_node_reports")),
    )
    op.create_table(
        "payment_methods",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("blockchain_id", sa.Text(), nullable=False),
        sa.Column("key_ring_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("contract_address", sa.Text(), nullable=True),
        sa.Column("decimals", sa.SmallInteger(), nullable=False),
        sa.Column("address_type", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("display_order", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("icon_url", sa.Text(), nullable=True),
        sa.Column("is_testnet", sa.Boolean(), nullable=False),
        sa.Column("confirmations", sa.BigInteger(), nullable=False),
        sa.Column("rpc_url_encrypted", sa.LargeBinary(), nullable=True),
        sa.Column("rpc_headers_encrypted", sa.LargeBinary(), nullable=True),
        sa.Column("oracle_address", sa.Text(), nullable=True),
        sa.Column("oracle_asset_id", sa.Text(), nullable=True),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("confirmations >= 1", name=op.f("ck_payment_methods_confirmations_positive")),
        sa.CheckConstraint("decimals BETWEEN 0 AND 36", name=op.f("ck_payment_methods_decimals_sane")),
        sa.ForeignKeyConstraint(["blockchain_id"], ["blockchains.id"], name=op.f("fk_payment_methods_blockchain_id")),
        sa.ForeignKeyConstraint(["key_ring_id"], ["key_rings.id"], name=op.f("fk_payment_methods_key_ring_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payment_methods")),
        sa.UniqueConstraint(
            "blockchain_id",
            "asset",
            "address_type",
            "key_ring_id",
            "id",
            name=op.f("uq_payment_methods_blockchain_id_asset_address_type_key_ring_id_id"),
        ),
    )
    op.create_index(op.f("ix_payment_methods_blockchain_id"), "payment_methods", ["blockchain_id"], unique=False)
    op.create_index(op.f("ix_payment_methods_key_ring_id"), "payment_methods", ["key_ring_id"], unique=False)
    op.create_table(
        "scanned_blocks",
        sa.Column("blockchain_id", sa.Text(), nullable=False),
        sa.Column("height", sa.BigInteger(), nullable=False),
        sa.Column("block_hash", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["blockchain_id"], ["blockchains.id"], name=op.f("fk_scanned_blocks_blockchain_id")),
        sa.PrimaryKeyConstraint("blockchain_id", "height", name=op.f("pk_scanned_blocks")),
    )
    op.create_table(
        "scanners",
        sa.Column("blockchain_id", sa.Text(), nullable=False),
        sa.Column("height", sa.BigInteger(), nullable=False),
        sa.Column("block_hash", sa.Text(), nullable=False),
        sa.Column("moved_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["blockchain_id"], ["blockchains.id"], name=op.f("fk_scanners_blockchain_id")),
        sa.PrimaryKeyConstraint("blockchain_id", name=op.f("pk_scanners")),
    )
    op.create_table(
        "service_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("instance_id", sa.Text(), nullable=True),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_service_keys_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_service_keys")),
        sa.UniqueConstraint("digest", name=op.f("uq_service_keys_digest")),
    )
    op.create_index(op.f("ix_service_keys_tenant_id"), "service_keys", ["tenant_id"], unique=False)
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("signing_tenant_id", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("receiver", sa.Text(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_status_code", sa.Integer(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('pending', 'delivered', 'failed')", name=op.f("ck_webhook_deliveries_status_known")
        ),
        sa.ForeignKeyConstraint(
            ["signing_tenant_id"], ["tenants.id"], name=op.f("fk_webhook_deliveries_signing_tenant_id")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_webhook_deliveries_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
        sa.UniqueConstraint("subject_id", "sequence", name=op.f("uq_webhook_deliveries_subject_id_sequence")),
    )
    op.create_index(
        op.f("ix_webhook_deliveries_created_at_id"), "webhook_deliveries", ["created_at", "id"], unique=False
    )
    op.create_index(
        "ix_webhook_deliveries_due",
        "webhook_deliveries",
        ["next_attempt_at"],
        unique=False,
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_table(
        "webhook_secrets",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("rotated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_webhook_secrets_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_webhook_secrets")),
    )
    op.create_table(
        "account_balances",
        sa.Column("account_code", sa.Text(), nullable=False),
        sa.Column("stripe", sa.SmallInteger(), nullable=False),
        sa.Column("balance_nanos", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(["account_code"], ["accounts.code"], name=op.f("fk_account_balances_account_code")),
        sa.PrimaryKeyConstraint("account_code", "stripe", name=op.f("pk_account_balances")),
    )
    op.create_table(
        "payments",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("blockchain_id", sa.Text(), nullable=False),
        sa.Column("tx_hash", sa.Text(), nullable=False),
        sa.Column("output_index", sa.BigInteger(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("key_ring_id", sa.Text(), nullable=False),
        sa.Column("address_index", sa.BigInteger(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("charge_id", sa.Text(), nullable=True),
        sa.Column("payment_method_id", sa.Text(), nullable=True),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("decimals", sa.SmallInteger(), nullable=False),
        sa.Column("amount_units", sa.Numeric(precision=78, scale=0), nullable=False),
        sa.Column("confirmations_required", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("confirmations", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("block_height", sa.BigInteger(), nullable=True),
        sa.Column("block_hash", sa.Text(), nullable=True),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("credited_nanos", sa.BigInteger(), nullable=True),
        sa.Column("credits", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("price_usd", sa.Numeric(), nullable=True),
        sa.Column("price_source", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "status IN ('seen', 'confirming', 'confirmed', 'orphaned', 'replaced')",
            name=op.f("ck_payments_status_known"),
        ),
        sa.CheckConstraint("amount_units > 0", name=op.f("ck_payments_amount_positive")),
        sa.ForeignKeyConstraint(["blockchain_id"], ["blockchains.id"], name=op.f("fk_payments_blockchain_id")),
        sa.ForeignKeyConstraint(["charge_id"], ["charges.id"], name=op.f("fk_payments_charge_id")),
        sa.ForeignKeyConstraint(
            ["key_ring_id", "address_index"],
            ["addresses.key_ring_id", "addresses.address_index"],
            name=op.f("fk_payments_key_ring_id_address_index"),
        ),
        sa.ForeignKeyConstraint(
            ["payment_method_id"], ["payment_methods.id"], name=op.f("fk_payments_payment_method_id")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_payments_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payments")),
        sa.UniqueConstraint(
            "blockchain_id",
            "tx_hash",
            "output_index",
            "asset",
            name=op.f("uq_payments_blockchain_id_tx_hash_output_index_asset"),
        ),
    )
    op.create_index(op.f("ix_payments_charge_id"), "payments", ["charge_id"], unique=False)
    op.create_index("ix_payments_height", "payments", ["blockchain_id", "block_height"], unique=False)
    op.create_index(
        op.f("ix_payments_key_ring_id_address_index"), "payments", ["key_ring_id", "address_index"], unique=False
    )
    op.create_index(
        "ix_payments_open",
        "payments",
        ["blockchain_id", "status"],
        unique=False,
        postgresql_where=sa.text("status <> 'confirmed'"),
    )
    op.create_index(
        "ix_payments_uncredited",
        "payments",
        ["id"],
        unique=False,
        postgresql_where=sa.text("status = 'confirmed' AND credited_nanos IS NULL"),
    )
    op.create_table(
        "webhook_attempts",
        sa.Column("delivery_id", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("attempted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["webhook_deliveries.id"], name=op.f("fk_webhook_attempts_delivery_id")
        ),
        sa.PrimaryKeyConstraint("delivery_id", "attempt", name=op.f("pk_webhook_attempts")),
    )
    for statement in (_LEDGER_GUARDS + _SEED).split("\n\n"):
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("webhook_attempts")
    op.drop_table("payments")
    op.drop_table("account_balances")
    op.drop_table("webhook_secrets")
    op.drop_table("webhook_deliveries")
    op.drop_table("service_keys")
    op.drop_table("scanners")
    op.drop_table("scanned_blocks")
    op.drop_table("payment_methods")
    op.drop_table("node_reports")
    op.drop_table("journal_lines")
    op.drop_table("demo_transfers")
    op.drop_table("demo_blocks")
    op.drop_table("charges")
    op.drop_table("accounts")
    op.drop_table("tenants")
    op.drop_table("system_secrets")
    op.drop_table("price_sources")
    op.drop_table("price_pins")
    op.drop_table("price_observations")
    op.drop_table("key_rings")
    op.drop_table("journal_entries")
    op.drop_table("idempotent_answers")
    op.drop_table("blockchains")
    op.drop_table("addresses")
    op.execute("DROP FUNCTION entry_must_balance, refuse_change_of_history")
