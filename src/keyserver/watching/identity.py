"""Who a blockchain's nodes are: the first that answers says it, and every other must say the same."""

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from keyserver.chains.models import Blockchain
from keyserver.watching.ports import Node, WrongNode


async def pin_identity(session: AsyncSession, blockchain_id: str, node: Node) -> None:
    """WrongNode when the blockchain was followed on another chain so far."""
    unpinned = update(Blockchain).where(Blockchain.id == blockchain_id, Blockchain.node_identity.is_(None))
    await session.execute(unpinned.values(node_identity=node.identity))
    known = await session.scalar(select(Blockchain.node_identity).where(Blockchain.id == blockchain_id))
    if known != node.identity:
        raise WrongNode(f"the node is on chain {node.identity}, but {blockchain_id} was followed on {known} so far")
