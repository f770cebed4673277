"""What an EVM node means by an error. There are no agreed codes: clients and providers differ in codes and in words.

Pure. The words are those of geth, erigon, nethermind, besu, reth, bor, OpenEthereum, Infura, Alchemy and QuickNode.
"""

import re
from enum import StrEnum


class Refusal(StrEnum):
    UNKNOWN_BLOCK = "unknown block"
    UNSUPPORTED = "unsupported"
    BUSY = "busy"
    STATE_GONE = "state gone"
    OTHER = "other"


_METHOD_MISSING = -32601
_LIMIT_EXCEEDED = -32005  # EIP-1474; used for too many calls and for too long an answer alike
_TOO_MANY_REQUESTS = 429

_UNSUPPORTED = re.compile(
    r"(\bmethod\b|\b(eth|debug|trace)_\w+).*\b(not|unsupported|unknown|disabled|unavailable|restricted)\b"
    r"|\b(unsupported|unknown|invalid|no such)\b.*\bmethod\b",
    re.IGNORECASE | re.DOTALL,
)
_BUSY = re.compile(
    r"rate.?limit|too many requests|throttl|quota|capacity|request (count|limit)|try again later", re.IGNORECASE
)
_LONG_ANSWER = re.compile(r"\b(results|logs|response|range|time(d )?out|duration)\b", re.IGNORECASE)
_LONG_BATCH = re.compile(r"\bbatch(es|ing)?\b", re.IGNORECASE)
_STATE_GONE = re.compile(
    r"missing trie node|state pruning|\b(historical )?state\b.*\b(un|not )available\b|\bstate\b.*\bpruned\b"
    r"|\bno state\b|distance to target block|\barchive\b",
    re.IGNORECASE | re.DOTALL,
)
_BLOCK = r"(\b(\w*block(s|hash)?|header|epoch)\b|\b0x[0-9a-f]{64}\b)"
_UNKNOWN_BLOCK = re.compile(
    rf"\b(unknown|unfinalized|future|no such|(could ?|can)not (find|query)|unable to find)\b.*({_BLOCK}|\bdata\b)"
    rf"|{_BLOCK}.*\b((not|cannot) (be )?found|not known|unknown|does not exist|greater than|beyond|in the future)\b"
    r"|\bresource not found\b",
    re.IGNORECASE | re.DOTALL,
)


def classify(code: int, message: str) -> Refusal:
    """`code` and `message` of a JSON-RPC error.

    UNKNOWN_BLOCK: the node does not, or no longer, know the block. STATE_GONE: it has the block, but not what accounts
    held after it.
    """
    if _STATE_GONE.search(message):
        return Refusal.STATE_GONE
    if code == _METHOD_MISSING or _UNSUPPORTED.search(message):
        return Refusal.UNSUPPORTED
    limited = code == _LIMIT_EXCEEDED and not _LONG_ANSWER.search(message)
    if limited or code == _TOO_MANY_REQUESTS or _BUSY.search(message):
        return Refusal.BUSY
    return Refusal.UNKNOWN_BLOCK if _UNKNOWN_BLOCK.search(message) else Refusal.OTHER


def refuses_batch(message: str) -> bool:
    """Whether this many calls at a time were refused, and not the calls themselves."""
    return _LONG_BATCH.search(message) is not None
