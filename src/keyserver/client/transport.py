"""What both clients share of httpx: its settings, and its words for what went wrong."""

from typing import Any

import httpx

from keyserver.client.exchange import Access, Lost, Reply

DEFAULT_TIMEOUT = 10.0
DEFAULT_RETRIES = 2
_CONNECT_TIMEOUT = 3.0


def options(access: Access, *, timeout: float) -> dict[str, Any]:
    """Arguments for httpx's clients. A proxy of the environment is for other hosts than this one."""
    return {
        "timeout": httpx.Timeout(timeout, connect=min(timeout, _CONNECT_TIMEOUT)),
        "follow_redirects": False,
        "trust_env": not access.is_loopback,
    }


def reply_of(response: httpx.Response) -> Reply:
    return Reply(response.status_code, dict(response.headers), response.content)


def lost(error: httpx.RequestError) -> Lost:
    if isinstance(error, httpx.TimeoutException):
        return Lost("did not answer in time")
    if isinstance(error, httpx.ConnectError):
        return Lost("cannot be connected to: is it running, and is the URL right?")
    return Lost(f"broke off the connection ({type(error).__name__})")
