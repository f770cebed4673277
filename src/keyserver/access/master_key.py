"""Where the master key comes from."""

import structlog
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.access.models import SystemSecret
from keyserver.kit.secrets import MasterKey, new_master_key

_NAME = "master_key"
_log = structlog.get_logger("keyserver.master_key")


async def load_master_key(session: AsyncSession, configured: str | None) -> MasterKey:
    """The operator's key; else the one made at first start. With both, the latter still decrypts what it encrypted."""
    if configured is None:
        made = {"name": _NAME, "value": new_master_key()}
        await session.execute(insert(SystemSecret).values(made).on_conflict_do_nothing())
        _log.warning(
            "master_key_in_database",
            why="KEYSERVER_SECRET_KEY is not set: whoever reads a copy of the database can read node credentials and "
            "upstream keys, and sign webhooks. Set it to a long random text kept outside the database",
        )
    stored = await session.scalar(select(SystemSecret.value).where(SystemSecret.name == _NAME))
    if configured is None:
        assert stored is not None
        return MasterKey(stored)
    return MasterKey(configured, former=[stored] if stored else [])
