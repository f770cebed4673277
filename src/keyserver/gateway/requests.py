"""A call as it came in: read within its limit, and understood as far as billing needs."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from keyserver.gateway.call_errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType
from keyserver.gateway.capabilities import Capability
from keyserver.gateway.multipart import read_form
from keyserver.kit.problems import BadRequest
from keyserver.kit.strict_json import parse_json

MEBIBYTE = 1024 * 1024
#: Bytes of a body. A transcription's file may have 25 MiB, and the form round it some more.
LIMITS: Mapping[Capability, int] = {
    Capability.CHAT: 10 * MEBIBYTE,
    Capability.COMPLETIONS: 10 * MEBIBYTE,
    Capability.EMBEDDINGS: 10 * MEBIBYTE,
    Capability.IMAGES: 10 * MEBIBYTE,
    Capability.SPEECH: 10 * MEBIBYTE,
    Capability.TRANSCRIPTIONS: 25 * MEBIBYTE + 64 * 1024,
}
_REPORTS_USAGE_WHEN_ASKED = frozenset({Capability.CHAT, Capability.COMPLETIONS})
_MODEL = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,256}")
#: Nobody writes letters so, but who wants to hide one.
_ESCAPED_LETTER = re.compile(rb"\\u00[46]")
_ASK = b'{"stream_options":{"include_usage":true}'


@dataclass(frozen=True, slots=True)
class Incoming:
    """`body` goes up; `document` is its JSON, or the fields of a form whose file has `size` bytes and this `head`."""

    model: str
    body: bytes
    document: Mapping[str, Any]
    size: int
    head: bytes
    streamed: bool
    usage_asked: bool
    is_form: bool = False


async def read_request(request: Request, capability: Capability) -> Incoming:
    """Raises PayloadTooLarge before more than the limit is read, UnsupportedMediaType and InvalidRequest."""
    content_type = request.headers.get("content-type", "")
    wants_form = capability is Capability.TRANSCRIPTIONS
    _check_media_type(request, content_type, wants_form=wants_form)
    body = await read_body(request, limit=LIMITS[capability])
    return _form(body, content_type) if wants_form else _json(body, capability)


async def read_body(request: Request, *, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise PayloadTooLarge(f"The request body is over {limit} bytes")
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise InvalidRequest("The request ended before its body did")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise PayloadTooLarge(f"The request body is over {limit} bytes")
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _check_media_type(request: Request, content_type: str, *, wants_form: bool) -> None:
    media_type = content_type.partition(";")[0].strip().lower()
    if wants_form and media_type != "multipart/form-data":
        raise UnsupportedMediaType("The content type must be multipart/form-data")
    if not wants_form and media_type != "application/json":
        raise UnsupportedMediaType("The content type must be application/json")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("The body must not be compressed")


def _form(body: bytes, content_type: str) -> Incoming:
    try:
        form = read_form(body, content_type=content_type)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None
    return Incoming(
        model=_model(form.fields.get("model")),
        body=body,
        document=form.fields,
        size=form.file_size,
        head=form.file_head,
        streamed=form.fields.get("stream", "").lower() in {"true", "1"},
        usage_asked=True,
        is_form=True,
    )


def _json(body: bytes, capability: Capability) -> Incoming:
    try:
        document = parse_json(body, stored=False)
    except BadRequest as error:
        raise InvalidRequest(error.error, code="invalid_json") from None
    if not isinstance(document, dict):
        raise InvalidRequest("The body must be a JSON object", code="invalid_json")
    _check_one_model(body)
    model = _model(document.get("model"))
    streamed = document.get("stream") is True
    usage_asked = True
    if streamed and capability in _REPORTS_USAGE_WHEN_ASKED:
        body, usage_asked = _asking_for_usage(body, document)
    return Incoming(
        model=model,
        body=body,
        document=document,
        size=len(body),
        head=b"",
        streamed=streamed,
        usage_asked=usage_asked,
    )


def _check_one_model(body: bytes) -> None:
    """Of two members named `model` the upstream may read the one that we have not priced."""
    if body.count(b'"model"') < 2 and not _ESCAPED_LETTER.search(body):
        return
    outermost: list[list[tuple[str, Any]]] = []

    def note(members: list[tuple[str, Any]]) -> dict[str, Any]:
        outermost[:] = [members]  # objects end from the inside out
        return dict(members)

    json.loads(body, object_pairs_hook=note)
    if [name for name, _ in outermost[0]].count("model") > 1:
        raise InvalidRequest("model must be there once", code="invalid_model", param="model")


def _model(value: object) -> str:
    if value is None or value == "":
        raise InvalidRequest("You must provide a model parameter", code="missing_model", param="model")
    if not isinstance(value, str) or not _MODEL.fullmatch(value):
        raise InvalidRequest("model must be a string of 1 to 256 characters", code="invalid_model", param="model")
    return value


def _asking_for_usage(body: bytes, document: Mapping[str, Any]) -> tuple[bytes, bool]:
    """The body with `stream_options.include_usage`, and whether the caller had asked for it.

    Put in front of the other members, so that these stay the bytes they were. Only a caller's own `stream_options`
    that do not ask make it necessary to write the body anew.
    """
    options = document.get("stream_options")
    if options is None and "stream_options" not in document:
        inside = body.lstrip()[1:]
        return _ASK + (b"," if document else b"") + inside, False
    if options is not None and not isinstance(options, dict):
        raise InvalidRequest("stream_options must be an object", code="invalid_type", param="stream_options")
    if options and options.get("include_usage") is True:
        return body, True
    asking = {**document, "stream_options": {**(options or {}), "include_usage": True}}
    return json.dumps(asking, ensure_ascii=True, separators=(",", ":")).encode(), False
