"""What the image promises, read from its Dockerfile; the build itself is CI's."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from tests.packaging.checkout import exec_form, instructions, last_stage, sent_to_the_build

from keyserver.settings import Settings


def words(instruction: str) -> list[list[str]]:
    return [shlex.split(rest) for word, rest in instructions() if word == instruction]


def test_every_stage_is_one_python_of_a_certain_version() -> None:
    (base, *others) = words("FROM")
    image, _, stage = base

    assert image.startswith("docker.io/library/python:3.") and "-slim-" in image
    assert others and {other[0] for other in others} == {stage}


def test_the_image_is_not_root() -> None:
    user = last_stage()["USER"].split(":")

    assert [part for part in user if not part.isdecimal() or part == "0"] == []


def test_what_is_installed_from_an_index_has_its_hash() -> None:
    installs = [part.split() for rest in words("RUN") for part in " ".join(rest).split("&&") if " install " in part]
    from_files = [install for install in installs if "-r" in install]

    assert from_files
    assert all("--require-hashes" in install and "--only-binary=:all:" in install for install in from_files)
    assert all("--no-index" in install and "--no-deps" in install for install in installs if install not in from_files)


def test_the_last_stage_installs_nothing_and_copies_only_the_environment() -> None:
    stage = last_stage()

    assert "pip" not in stage["RUN"] and "apt" not in stage["RUN"]
    assert stage["COPY"] == "--from=builder /opt/keyserver /opt/keyserver"


def test_serve_is_the_default_of_all_the_commands_and_gets_its_signals() -> None:
    stage = last_stage()

    assert exec_form(stage["ENTRYPOINT"]) == ["keyserver"]
    assert exec_form(stage["CMD"]) == ["serve"]


def test_the_port_is_the_one_that_is_exposed_and_open_to_other_machines() -> None:
    stage = last_stage()
    environment = dict(pair.split("=", 1) for pair in shlex.split(stage["ENV"]))

    assert stage["EXPOSE"] == environment["PORT"] == str(Settings.model_fields["port"].default)
    assert environment["HOST"] == "0.0.0.0"  # noqa: S104 - the container's own network


def test_the_build_is_sent_everything_that_it_copies_and_nothing_more() -> None:
    copied = {source for rest in words("COPY") if not rest[0].startswith("--from") for source in rest[:-1]}

    assert copied == sent_to_the_build()


# --- the health check, run as it stands ------------------------------------------------------------------------------


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A server on loopback whose /chains answers so; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/chains" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def health_check(port: int) -> int:
    """Exit code of the image's health check, by this Python."""
    command = exec_form(last_stage()["HEALTHCHECK"].partition("CMD ")[2])
    assert command[0] == "python"
    ran = subprocess.run(
        [sys.executable, *command[1:]], env=os.environ | {"PORT": str(port)}, stderr=subprocess.DEVNULL, check=False
    )
    return ran.returncode


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (404, False)])
def test_the_health_check_asks_chains(status: int, healthy: bool) -> None:
    with answering(status) as port:
        assert (health_check(port) == 0) is healthy


def test_a_server_that_is_not_there_is_not_healthy() -> None:
    with answering(200) as port:
        pass
    assert health_check(port) != 0
