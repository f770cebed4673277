"""The registry: which blockchains there are, and which payment methods are offered on them."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, LargeBinary, SmallInteger, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from keyserver.kit.orm import Base, Words, words_check

#: `payment_methods.asset` of a chain's own coin; a token has its contract's address there.
NATIVE = "native"


class Finality(StrEnum):
    """What makes a payment final besides its confirmations: nothing more, or the chain's own word for its block."""

    DEPTH = "depth"
    SAFE = "safe"
    FINALIZED = "finalized"


class Blockchain(Base):
    """One chain and network that is followed once, however many payment methods live on it."""

    __tablename__ = "blockchains"
    __table_args__ = (
        UniqueConstraint("chain", "network"),
        CheckConstraint(words_check("finality", Finality), name="finality_known"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    chain: Mapped[str]
    network: Mapped[str]
    family: Mapped[str]
    #: The node's own identity (genesis hash, EVM chain id), pinned at first contact.
    node_identity: Mapped[str | None]
    start_height: Mapped[int | None]
    poll_seconds: Mapped[float | None]
    finality: Mapped[Finality] = mapped_column(Words(Finality), server_default=text("'depth'"))
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class PaymentMethod(Base):
    """What a client asks for: one asset on one blockchain, derived from one key ring in one script type.

    `id` is the client's name for it. Rows are disabled, never deleted. `rpc_url` (one URL a line) and `rpc_headers` may
    hold the nodes' passwords, and are encrypted with the master key.
    """

    __tablename__ = "payment_methods"
    __table_args__ = (
        CheckConstraint("decimals BETWEEN 0 AND 36", name="decimals_sane"),
        CheckConstraint("confirmations >= 1", name="confirmations_positive"),
        UniqueConstraint("blockchain_id", "asset", "address_type", "key_ring_id", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    blockchain_id: Mapped[str] = mapped_column(ForeignKey("blockchains.id"), index=True)
    key_ring_id: Mapped[str] = mapped_column(ForeignKey("key_rings.id"), index=True)
    type: Mapped[str]
    token: Mapped[str]
    asset: Mapped[str]
    contract_address: Mapped[str | None]
    decimals: Mapped[int] = mapped_column(SmallInteger)
    address_type: Mapped[str]
    display_name: Mapped[str]
    display_order: Mapped[int] = mapped_column(server_default=text("0"))
    icon_url: Mapped[str | None]
    is_testnet: Mapped[bool]
    confirmations: Mapped[int]
    rpc_url_encrypted: Mapped[bytes | None] = mapped_column(LargeBinary)
    rpc_headers_encrypted: Mapped[bytes | None] = mapped_column(LargeBinary)
    oracle_address: Mapped[str | None]
    oracle_asset_id: Mapped[str | None]
    enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
