"""Cursors: what we gave comes back as it was, anything else is refused."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyserver.kit.paging import decode_cursor, encode_cursor
from keyserver.kit.problems import BadRequest

PARTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00\x1f"), min_size=1, max_size=40)


@given(st.lists(PARTS, min_size=1, max_size=3))
def test_a_cursor_gives_its_parts_back_and_fits_in_a_url(parts: list[str]) -> None:
    cursor = encode_cursor(*parts)
    assert decode_cursor(cursor, parts=len(parts)) == tuple(parts)
    assert cursor.replace("-", "").replace("_", "").isalnum()


@given(st.text(max_size=60))
def test_any_other_text_is_refused_or_read_and_never_an_error_of_ours(text: str) -> None:
    with contextlib.suppress(BadRequest):
        parts = decode_cursor(text, parts=2)
        assert len(parts) == 2 and all(parts)


@pytest.mark.parametrize("cursor", ["", "!", "é", encode_cursor("a\x00"), encode_cursor("a", "b"), "////"])
def test_what_we_never_gave_is_refused(cursor: str) -> None:
    with pytest.raises(BadRequest):
        decode_cursor(cursor)
