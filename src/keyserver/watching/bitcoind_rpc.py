"""Asking one bitcoind: how it is reached, and what its refusals mean to an operator."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from keyserver.kit.jsonrpc import AnswerTooLarge, JsonRpc, RpcError, RpcFailure, RpcUnavailable
from keyserver.watching.ports import BlockNotFound, NodeUnavailable, SourceError

# Error codes, from Bitcoin Core's src/rpc/protocol.h; its relatives share them.
MISC_ERROR = -1
INVALID_ADDRESS_OR_KEY = -5
INVALID_PARAMETER = -8
IN_WARMUP = -28
METHOD_NOT_FOUND = -32601

#: Sent as bare text, with status 500 until Bitcoin Core 22 and 503 since.
_QUEUE_FULL = "work queue depth exceeded"

_COOKIE_PREFIX = "__cookie__:"
_COOKIE_MAX_CHARACTERS = 256


class AnswerTooLong(NodeUnavailable):
    """More than we read at once: the same may be had in smaller parts."""


class Refused(NodeUnavailable):
    """The node's own error in answer to one call: `code` and `words` as it sent them."""

    def __init__(self, message: str, error: RpcError) -> None:
        super().__init__(message)
        self.code = error.code
        self.words = error.message


class NodeRpc:
    """One node, whose failures are raised as a SourceError with one sentence. Arguments as BitcoindSource has them."""

    def __init__(self, url: str, *, headers: Mapping[str, str] | None, timeout: float) -> None:
        self._rpc = connect(url, headers=headers, timeout=timeout)
        self._login = "the cookie in the file that its URL names" if _cookie_of(url) else "our user name and password"

    async def call(self, method: str, *params: Any, missing: Mapping[int, str] | None = None) -> Any:
        """The answer. `missing`: error codes that mean BlockNotFound, with what to say then."""
        try:
            return await self._rpc.call(method, *params)
        except RpcFailure as error:
            raise self.failure(method, error, missing=missing) from error

    async def batch(self, method: str, calls: Sequence[Sequence[Any]]) -> list[Any]:
        """Answers in the order of the calls, by one request; an RpcError stands where its call was refused."""
        try:
            return await self._rpc.batch([(method, params) for params in calls], return_errors=True)
        except RpcFailure as error:
            raise self.failure(method, error) from error

    async def close(self) -> None:
        await self._rpc.close()

    def failure(self, method: str, error: RpcFailure, *, missing: Mapping[int, str] | None = None) -> SourceError:
        """What went wrong, to an operator."""
        if isinstance(error, RpcError) and missing and error.code in missing:
            return BlockNotFound(missing[error.code])
        if isinstance(error, RpcError | RpcUnavailable) and error.status in (401, 403):
            return NodeUnavailable(f"the node refused {self._login} for {method} (HTTP {error.status})")
        if isinstance(error, RpcError):
            starting = error.code == IN_WARMUP
            return Refused(f"the node is starting: {error.message}" if starting else f"{method}: {error}", error)
        wished = error.retry_after if isinstance(error, RpcUnavailable) else None
        if isinstance(error, RpcUnavailable) and _QUEUE_FULL in error.text.lower():
            return NodeUnavailable(
                f"the node is busy ({_QUEUE_FULL}): if that lasts, raise its -rpcworkqueue and -rpcthreads",
                retry_after=wished,
            )
        kind = AnswerTooLong if isinstance(error, AnswerTooLarge) else NodeUnavailable
        return kind(str(error), retry_after=wished)


def connect(url: str, *, headers: Mapping[str, str] | None = None, timeout: float = 30.0) -> JsonRpc:
    """JSON-RPC to `url`, with the credentials in it or those of the cookie file it names (see BitcoindSource)."""
    path = _cookie_of(url)
    if path is None:
        return JsonRpc(url, headers=headers, timeout=timeout)
    parts = urlsplit(url)
    kept = "&".join(field for field in parts.query.split("&") if not field.startswith("cookie="))
    return JsonRpc(
        urlunsplit(parts._replace(query=kept)), headers=headers, timeout=timeout, auth=lambda: read_cookie(path)
    )


def _cookie_of(url: str) -> Path | None:
    """The cookie file that the URL's query names, if it names one. Raises ValueError for what is no URL."""
    try:
        fields = urlsplit(url).query.split("&")
    except ValueError:  # whose words hold the password
        raise ValueError("the node's address is not a URL like http://user:password@host:port/") from None
    cookies = [field.removeprefix("cookie=") for field in fields if field.startswith("cookie=")]
    return Path(unquote(cookies[-1])) if cookies else None


def read_cookie(path: Path) -> tuple[str, str]:
    """User and password out of a node's cookie file. Raises RpcUnavailable, for the node may be just starting.

    Any other kind of file is refused: a registration must not be a way to have one sent to somewhere.
    """
    try:
        if not path.is_file():  # a pipe would hang
            raise FileNotFoundError
        with path.open(encoding="ascii") as file:
            cookie = file.read(_COOKIE_MAX_CHARACTERS).strip()
    except (OSError, ValueError):
        raise RpcUnavailable(f"the cookie file {path} cannot be read; is the node running?") from None
    if not cookie.startswith(_COOKIE_PREFIX) or not cookie.removeprefix(_COOKIE_PREFIX).isalnum():
        raise RpcUnavailable(f"{path} is not a node's cookie file")
    user, _, password = cookie.partition(":")
    return user, password
