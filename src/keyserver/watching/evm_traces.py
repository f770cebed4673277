"""Coin that contracts passed on inside of a block's transactions, out of the node's traces of it.

Pure. Two forms of the same: the nested frames of geth's `callTracer` (debug_traceBlockByHash), and the flat list of
OpenEthereum's `trace_block`, which erigon, nethermind, besu and reth have too. Coin moves by CALL, by CREATE and by
SELFDESTRUCT, in frames of which neither they nor any frame around them failed; DELEGATECALL, CALLCODE and STATICCALL
bring nobody anything.

Only what moved coin from one account to another is counted, depth first, from 1: tracers differ in what else they list
(calls of precompiled contracts, calls that failed before they began), so both forms give the same numbers.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keyserver.chains.models import NATIVE
from keyserver.watching.evm_wire import (
    ADDRESS_BYTES,
    HASH_BYTES,
    FullBlock,
    hex_data,
    json_list,
    json_object,
    quantity,
    require_block,
)
from keyserver.watching.ports import NodeUnavailable, Transfer

_MOVING_FRAMES = frozenset({"CALL", "CREATE", "CREATE2", "SELFDESTRUCT"})
_OTHER_FRAMES = frozenset({"CALLCODE", "DELEGATECALL", "STATICCALL"})


class TraceNotBelieved(NodeUnavailable):
    """It is not of every transaction of the block, or speaks of something we don't know."""


@dataclass(frozen=True, slots=True)
class _Move:
    sender: str
    receiver: str
    units: int


def internal_calls_by_frames(answer: object, block: FullBlock) -> list[Transfer]:
    """Out of an answer to debug_traceBlockByHash with the callTracer."""
    frames: dict[str, Any] = {}
    for each in json_list(answer, "trace"):
        trace = json_object(each, "trace of a transaction")
        frames[_tx_hash(trace.get("txHash"))] = trace.get("result")
    _require_every_transaction(frames, block)
    return [
        transfer
        for transaction in block.transactions
        for transfer in _numbered(transaction.hash, _moves_in_frames(frames[transaction.hash]))
    ]


def internal_calls_by_traces(answer: object, block: FullBlock) -> list[Transfer]:
    """Out of an answer to trace_block. BlockNotFound when it is another block's."""
    traces: dict[str, list[Mapping[str, Any]]] = {}
    for each in json_list(answer, "trace"):
        trace = json_object(each, "trace")
        require_block(trace.get("blockHash"), block.header.hash)
        if trace.get("type") != "reward":
            traces.setdefault(_tx_hash(trace.get("transactionHash")), []).append(trace)
    _require_every_transaction(traces, block)
    return [
        transfer
        for transaction in block.transactions
        for transfer in _numbered(transaction.hash, _moves_in_traces(traces[transaction.hash]))
    ]


def _tx_hash(value: object) -> str:
    return hex_data(value, "transaction hash", size=HASH_BYTES)


def _require_every_transaction(traced: Mapping[str, object], block: FullBlock) -> None:
    if traced.keys() != {transaction.hash for transaction in block.transactions}:
        raise TraceNotBelieved(f"the node's trace of block {block.header.height} is not of its transactions")


def _numbered(tx_hash: str, moves: Iterable[_Move]) -> Iterator[Transfer]:
    effective = (move for move in moves if move.units > 0 and move.sender != move.receiver)
    for number, move in enumerate(effective, start=1):
        yield Transfer(tx_hash, number, NATIVE, move.receiver, move.units)


# --- frames -----------------------------------------------------------------------------------------------------


def _moves_in_frames(outermost: object) -> Iterator[_Move]:
    """Without recursion: contracts call each other up to 1,024 deep. The outermost frame is the transaction itself."""
    waiting = _inner_frames(json_object(outermost, "frame"))
    while waiting:
        frame = json_object(waiting.pop(), "frame")
        if frame.get("error") is not None:
            continue
        waiting += _inner_frames(frame)
        kind = frame.get("type")
        if kind in _MOVING_FRAMES:
            yield _Move(_address(frame.get("from")), _address(frame.get("to")), _units(frame.get("value", "0x0")))
        elif kind not in _OTHER_FRAMES:
            raise TraceNotBelieved(f"the node's trace holds a frame of the unknown type {str(kind)[:40]!r}")


def _inner_frames(frame: Mapping[str, Any]) -> list[Any]:
    """The last first, as a stack wants them; none when the frame failed, and took back what was done in it."""
    failed = frame.get("error") is not None
    return [] if failed else list(reversed(json_list(frame.get("calls", []), "list of calls")))


# --- traces -----------------------------------------------------------------------------------------------------


def _moves_in_traces(traces: Sequence[Mapping[str, Any]]) -> Iterator[_Move]:
    """A trace's address is its path from the transaction itself, whose own is empty."""
    by_path = {_path(trace.get("traceAddress")): trace for trace in traces}
    if () not in by_path:
        raise TraceNotBelieved("the node's trace of a transaction lacks the transaction itself")
    failed = {path for path, trace in by_path.items() if trace.get("error") is not None}
    for path in sorted(by_path):  # a path sorts before those below it: depth first
        if path and not any(path[:length] in failed for length in range(len(path) + 1)):
            yield from _move_of_trace(by_path[path])


def _path(value: object) -> tuple[int, ...]:
    steps = json_list(value, "trace address")
    if not all(isinstance(step, int) and not isinstance(step, bool) and step >= 0 for step in steps):
        raise TraceNotBelieved("the node's trace has an address that is no path")
    return tuple(steps)


def _move_of_trace(trace: Mapping[str, Any]) -> Iterator[_Move]:
    action, kind = json_object(trace.get("action"), "action"), trace.get("type")
    if kind == "call":
        if action.get("callType") == "call":
            yield _Move(_address(action.get("from")), _address(action.get("to")), _units(action.get("value")))
    elif kind == "create":
        created = json_object(trace.get("result"), "result of a creation").get("address")
        yield _Move(_address(action.get("from")), _address(created), _units(action.get("value")))
    elif kind == "suicide":
        heir = action.get("refundAddress")
        yield _Move(_address(action.get("address")), _address(heir), _units(action.get("balance")))
    else:
        raise TraceNotBelieved(f"the node's trace is of the unknown type {str(kind)[:40]!r}")


def _address(value: object) -> str:
    return hex_data(value, "address in a trace", size=ADDRESS_BYTES)


def _units(value: object) -> int:
    return quantity(value, "value in a trace")
