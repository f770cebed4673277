"""Reading bitcoind's mempool: only what is new, and of that only so much at once."""

from collections.abc import Sequence
from itertools import islice

from keyserver.watching.bitcoind_rpc import NodeRpc
from keyserver.watching.bitcoind_transactions import BATCH, read_transactions
from keyserver.watching.bitcoind_wire import read_transfers, understanding
from keyserver.watching.ports import Mempool, Transfer

#: Transactions looked at for one answer, and how often the mempool is read anew when the tip moves meanwhile.
MOST_AT_ONCE = 5_000
ATTEMPTS = 3


async def read_mempool(rpc: NodeRpc, *, known: frozenset[str]) -> Mempool | None:
    """As the port's `mempool`.

    None when the tip kept moving while we read, or the node is still reading its mempool from disk: nobody may
    conclude from such an answer that a transaction is gone.
    """
    looked_at: dict[str, Sequence[Transfer]] = {}
    for _ in range(ATTEMPTS):
        tip_hash = await rpc.call("getbestblockhash")
        listed = await _listed(rpc)
        if listed is None:
            return None
        unread = listed - known - looked_at.keys()
        asked = sorted(islice(unread, MOST_AT_ONCE - len(looked_at)))
        for start in range(0, len(asked), BATCH):
            looked_at |= await _look_at(rpc, asked[start : start + BATCH])
        if await rpc.call("getbestblockhash") == tip_hash:
            present = listed - (frozenset(asked) - looked_at.keys())  # the others left while we asked for them
            shown = [transfer for tx_hash in looked_at if tx_hash in present for transfer in looked_at[tx_hash]]
            return Mempool(tip_hash=tip_hash, tx_hashes=present, transfers=shown, unread=unread - frozenset(asked))
    return None


async def _listed(rpc: NodeRpc) -> frozenset[str] | None:
    """Every transaction of the mempool; None while the node still loads it."""
    info = await rpc.call("getmempoolinfo")
    listed = await rpc.call("getrawmempool")
    with understanding("getrawmempool"):
        return frozenset(listed) if info.get("loaded", True) else None


async def _look_at(rpc: NodeRpc, tx_hashes: Sequence[str]) -> dict[str, Sequence[Transfer]]:
    """Transfers by transaction, without those that left the mempool meanwhile. The answers themselves are let go."""
    answers = await read_transactions(rpc, tx_hashes)
    found: dict[str, Sequence[Transfer]] = {}
    for tx_hash, answer in answers.items():
        with understanding(f"getrawtransaction of {tx_hash}"):
            found[tx_hash] = read_transfers(answer)
    return found
