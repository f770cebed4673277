"""Reading a form beside itself, held against the form writers of two clients."""

import contextlib

import aiohttp
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyserver.gateway.multipart import read_form

_FILE = bytes(range(256)) * 64


def written_by_httpx(fields: dict[str, str], file: bytes) -> tuple[bytes, str]:
    request = httpx.Request("POST", "http://x", data=fields, files={"file": ("a.wav", file, "audio/wav")})
    return request.read(), request.headers["content-type"]


def test_fields_are_read_and_the_file_is_measured() -> None:
    body, content_type = written_by_httpx({"model": "whisper-1", "language": "de"}, _FILE)
    form = read_form(body, content_type=content_type)

    assert form.fields == {"model": "whisper-1", "language": "de"}
    assert form.file_size == len(_FILE)
    assert form.file_head == _FILE[:4096]


async def test_the_form_of_another_writer_is_read_as_well() -> None:
    data = aiohttp.FormData()
    data.add_field("file", _FILE, filename='a "quoted".mp3')
    data.add_field("model", "whisper-1")
    payload = data()
    form = read_form(await payload.as_bytes(), content_type=payload.headers["content-type"])

    assert (form.fields, form.file_size) == ({"model": "whisper-1"}, len(_FILE))


@given(st.binary(max_size=300), st.text(max_size=40))
def test_no_content_of_the_file_changes_what_is_read(file: bytes, language: str) -> None:
    language = language.replace("\r", "").replace("\n", "").encode(errors="ignore").decode()
    body, content_type = written_by_httpx({"model": "whisper-1", "language": language}, file)
    form = read_form(body, content_type=content_type)

    assert form.fields["model"] == "whisper-1"
    assert form.fields["language"] == language
    assert form.file_size == len(file)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "multipart/form-data; boundary=b"),
        (b"--b\r\n", "multipart/form-data; boundary=b"),
        (b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm', "multipart/form-data; boundary=b"),
        (b"--b\r\nnothing\r\n--b--", "multipart/form-data; boundary=b"),
        (b"--b--", "multipart/form-data"),
        (b"--b--", 'multipart/form-data; boundary=""'),
    ],
)
def test_what_is_no_form_is_refused(body: bytes, content_type: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_form(body, content_type=content_type)


@given(st.binary(max_size=200))
def test_nothing_but_a_value_error_comes_of_any_bytes(body: bytes) -> None:
    with contextlib.suppress(ValueError):
        read_form(b"--b\r\n" + body, content_type="multipart/form-data; boundary=b")
