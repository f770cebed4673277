"""Cursors: opaque, URL-safe, and about the last row seen, so that rows added meanwhile shift nothing."""

import base64
import binascii
from typing import Annotated

from fastapi import Query

from keyserver.kit.problems import BadRequest

MAX_LIMIT = 200
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Rows a page")]
Cursor = Annotated[str | None, Query(max_length=512, description="`nextCursor` of the page before")]


def encode_cursor(*parts: str) -> str:
    return base64.urlsafe_b64encode("\x1f".join(parts).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, *, parts: int = 1) -> tuple[str, ...]:
    """The parts of a cursor of ours; BadRequest for anything else."""
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        raw = ""
    found = tuple(raw.split("\x1f"))
    if len(found) != parts or not all(found) or "\x00" in raw:
        raise BadRequest.at("#query/cursor", "The cursor is not one we gave; leave it out to start anew")
    return found
