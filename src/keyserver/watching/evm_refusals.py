"""What an EVM node means by an error. There are no agreed codes: clients and providers differ in codes and in words.

Pure. The words are those of geth, erigon, nethermind, besu, reth, bor, OpenEthereum, Infura, Alchemy and QuickNode.
"""

import re
from enum import StrEnum


class Refusal(StrEnum):
    UNKNOWN_BLOCK = "unknown block"
    UNSUPPORTED = "unsupported"
    BUSY = "busy"
    OTHER = "other"


_METHOD_MISSING = -32601
_LIMIT_EXCEEDED = -32005  # EIP-1474; used for too many calls and for too long an answer alike
_TOO_MANY_REQUESTS = 429

_UNSUPPORTED = re.compile(
    r"(\bmethod\b|\beth_\w+).*\b(not|unsupported|unknown|disabled|unavailable|restricted)\b"
    r"|\b(unsupported|unknown|invalid|no such)\b.*\bmethod\b",
    re.IGNORECASE | re.DOTALL,
)
_BUSY = re.compile(
    r"rate.?limit|too many requests|throttl|quota|capacity|request (count|limit)|try again later", re.IGNORECASE
)
_LONG_ANSWER = re.compile(r"\b(results|logs|response|range)\b", re.IGNORECASE)
_BLOCK = r"(\b(\w*block(s|hash)?|header|epoch)\b|\b0x[0-9a-f]{64}\b)"
_UNKNOWN_BLOCK = re.compile(
    rf"\b(unknown|unfinalized|future|no such|(could ?|can)not (find|query)|unable to find)\b.*({_BLOCK}|\bdata\b)"
    rf"|{_BLOCK}.*\b((not|cannot) (be )?found|not known|unknown|does not exist|greater than|beyond|in the future)\b",
    re.IGNORECASE | re.DOTALL,
)


def classify(code: int, message: str) -> Refusal:
    """`code` and `message` of a JSON-RPC error. UNKNOWN_BLOCK: the node does not, or no longer, know the block."""
    if code == _METHOD_MISSING or _UNSUPPORTED.search(message):
        return Refusal.UNSUPPORTED
    limited = code == _LIMIT_EXCEEDED and not _LONG_ANSWER.search(message)
    if limited or code == _TOO_MANY_REQUESTS or _BUSY.search(message):
        return Refusal.BUSY
    return Refusal.UNKNOWN_BLOCK if _UNKNOWN_BLOCK.search(message) else Refusal.OTHER
