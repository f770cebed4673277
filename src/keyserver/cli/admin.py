"""A running service's admin API, and its refusals as one clear line."""

import json
import os
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Annotated, Any, NoReturn
from urllib.parse import quote, urlsplit

import typer

from keyserver.cli.output import fail

_TIMEOUT = 15.0

Url = Annotated[
    str,
    typer.Option("--url", envvar="KEYSERVER_URL", help="The running service.", show_default="http://127.0.0.1:3100"),
]
DEFAULT_URL = "http://127.0.0.1:3100"


class AdminApi:
    """Every method gives the parsed answer, or ends the command with what went wrong."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        token = os.environ.get("ADMIN_TOKEN", "")
        if not token:
            fail("ADMIN_TOKEN is not set: set it to the token that the service was started with")
        if not (token.isascii() and token.isprintable()):
            fail("ADMIN_TOKEN holds characters that no token has: set it to the token of the service")
        parts = _split(self._url)
        if parts is None:
            fail("The service's URL must be like http://host:3100: mend KEYSERVER_URL or --url")
        self._token = token
        self._host = parts

    def get(self, path: str, **query: str) -> Any:
        return self._ask("GET", path, query=query)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._ask("POST", path, body=body)

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._ask("PUT", path, body=body)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._ask("PATCH", path, body=body)

    def delete(self, path: str) -> None:
        self._ask("DELETE", path)

    def pages(self, path: str, member: str, **filters: str) -> Iterator[Any]:
        """Every row of a cursor-paged list, of the member that holds them."""
        query = {**filters, "limit": "200"}
        while True:
            page = self.get(path, **query)
            yield from page[member]
            if page.get("next_cursor") is None:
                return
            query["cursor"] = page["next_cursor"]

    def _ask(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> Any:
        import httpx

        headers = {"authorization": f"Bearer {self._token}"}
        try:
            answer = httpx.request(
                method,
                f"{self._url}{path}",
                params=query,
                json=body,
                headers=headers,
                timeout=_TIMEOUT,
                trust_env=not _is_loopback(self._host),
            )
        except httpx.TimeoutException:
            fail(f"{self._url} did not answer within {_TIMEOUT:.0f} seconds: see its log and its database")
        except httpx.ConnectError:
            fail(f"Nothing answers at {self._url}: is the service running, and is KEYSERVER_URL right?")
        except httpx.RequestError as error:
            fail(f"{self._url} broke off the connection ({type(error).__name__})")
        if not answer.is_success:
            self._refused(answer.status_code, answer.content)
        return self._document(answer.content)

    def _document(self, content: bytes) -> Any:
        if not content:
            return None
        try:
            return json.loads(content)
        except ValueError:
            self._other_program()

    def _refused(self, status: int, content: bytes) -> NoReturn:
        try:
            problem = json.loads(content)
            sentence = str(problem["error"])
        except (ValueError, KeyError, TypeError):
            self._other_program(status)
        match status:
            case 401:
                fail(f"{self._url} does not accept this ADMIN_TOKEN (401): give the one that it was started with")
            case 403 if problem.get("code") == "admin_api_disabled":
                fail(f"{self._url} was started without ADMIN_TOKEN, which disables its admin API (403)")
            case 400 if len(problem.get("errors") or ()) > 1:
                fail("; ".join(_located(each) for each in problem["errors"]))
            case _:
                fail(f"{sentence} ({status})")

    def _other_program(self, status: int = 200) -> NoReturn:
        fail(f"{self._url} answers {status}, but not as a key server does: is KEYSERVER_URL right?")


def _located(error: Mapping[str, Any]) -> str:
    name = str(error.get("pointer", "")).rpartition("/")[2]
    return f"{name}: {error.get('detail')}" if name else str(error.get("detail"))


def segment(text: str) -> str:
    """A text as one segment of a path."""
    return quote(text, safe="")


def _split(url: str) -> str | None:
    """The host of a usable http(s) URL; None for any other text."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.port != 0
    except ValueError:
        return None
    return parts.hostname if usable else None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
