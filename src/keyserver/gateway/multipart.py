"""The fields of a multipart form (RFC 7578), read beside the form itself, which is passed on as it came (pure)."""

import re
from dataclasses import dataclass

_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_NAME = re.compile(rb'[;\s]name="?([^";\r\n]*)"?', re.IGNORECASE)
_FILENAME = re.compile(rb"[;\s]filename\*?=", re.IGNORECASE)
_LONGEST_FIELD = 64 * 1024
_HEAD = 4096


@dataclass(frozen=True, slots=True)
class Form:
    """Text fields by name, the first of each; how long the file is, and its first bytes."""

    fields: dict[str, str]
    file_size: int
    file_head: bytes


def without_boundary(body: bytes, *, content_type: str) -> bytes:
    """The form without what only tells its parts apart: every client draws another boundary."""
    found = _BOUNDARY.search(content_type)
    return body if found is None else body.replace((found[1] or found[2]).encode(), b"")


def read_form(body: bytes, *, content_type: str) -> Form:
    """ValueError, one sentence, when this is no form that ends as it should."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise ValueError("The content type names no boundary")
    delimiter = b"\r\n--" + (found[1] or found[2]).encode()
    parts = (b"\r\n" + body).split(delimiter)
    if len(parts) < 3 or not parts[-1].startswith(b"--"):
        raise ValueError("The form has no end")
    fields: dict[str, str] = {}
    file_size, file_head = 0, b""
    for part in parts[1:-1]:
        head, separator, content = part.partition(b"\r\n\r\n")
        name = _NAME.search(head)
        if not separator or name is None:
            raise ValueError("A part of the form has no name")
        if _FILENAME.search(head):
            file_size, file_head = file_size + len(content), file_head or content[:_HEAD]
        elif len(content) <= _LONGEST_FIELD:
            field = name[1].decode(errors="replace")
            if field == "model" and field in fields:  # the upstream may read the one that we have not priced
                raise ValueError("model must be there once")
            fields.setdefault(field, content.decode(errors="replace"))
    return Form(fields, file_size, file_head)
