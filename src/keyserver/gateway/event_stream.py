"""Server-sent events as bytes: where one ends, what it says (pure). WHATWG HTML, section 9.2."""

import re

#: A blank line. A CR that is the last byte known may be half of a CRLF, so it waits for the next.
_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?=[^\n]))(?:\r\n|\n|\r(?=[^\n]))")
_LINE = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"
_LONGEST_BREAK = 4
#: What never ends is passed on as it is, instead of being kept in memory. An image of the largest size has 25 MiB.
_LONGEST_EVENT = 32 * 1024 * 1024


class EventSplitter:
    """Cuts a stream into its events, whose bytes together are the stream's; works on any division into chunks."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._seen = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that are complete now, each with the blank line that ends it."""
        self._rest += chunk
        events = []
        begin = 0
        search_from = max(0, self._seen - _LONGEST_BREAK)
        while (end := _BLANK_LINE.search(self._rest, search_from)) is not None:
            events.append(bytes(self._rest[begin : end.end()]))
            begin = search_from = end.end()
        del self._rest[:begin]
        self._seen = len(self._rest)
        if self._seen > _LONGEST_EVENT:
            events.append(self.rest())
        return events

    def rest(self) -> bytes:
        """What came after the last complete event."""
        rest = bytes(self._rest)
        self._rest.clear()
        self._seen = 0
        return rest


def data_of(event: bytes) -> bytes | None:
    """An event's data, its lines joined by LF; None when it has none, as a comment that keeps a connection open."""
    lines = [
        line[5:].removeprefix(b" ")
        for line in _LINE.split(event.removeprefix(_BOM))
        if line.startswith(b"data:") or line == b"data"
    ]
    return b"\n".join(lines) if lines else None
