"""Several processes on one listening socket: forked after the imports, restarted when they die, ended together.

Forking after importing shares the dependencies' memory and starts a process in milliseconds; nothing that a fork would
break (event loops, threads, connections) is there yet. A child ends as soon as its parent is gone, however it went.
A child that fails is started again; one that ends in order was told to, and then all end: SIGTERM to any is to all.
"""

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping

import structlog

from keyserver.kit.supervise import Backoff

#: What one process does from start to end; returns its exit code.
Role = Callable[[], int]
_log = structlog.get_logger("keyserver.processes")
_LIVED_WELL = 10.0
#: A request makes hundreds of objects and hardly a cycle: looking for cycles less often leaves more time for requests.
GC_THRESHOLDS = (20_000, 20, 50)


def run_processes(roles: Mapping[str, Role], *, grace: float, on_exit: Callable[[int], None] = lambda _: None) -> int:
    """Runs each role in a process of its own until SIGTERM or SIGINT; returns the exit code.

    The signal may go to any of them; they then have `grace` seconds to finish. `on_exit` is told the id of each that
    has ended.
    """
    return _Parent(roles, grace=grace, on_exit=on_exit).run()


class _Parent:
    def __init__(self, roles: Mapping[str, Role], *, grace: float, on_exit: Callable[[int], None]) -> None:
        self._roles = roles
        self._grace = grace
        self._on_exit = on_exit
        self._children: dict[int, tuple[str, float]] = {}
        self._failures = dict.fromkeys(roles, 0)
        self._due: dict[str, float] = dict.fromkeys(roles, 0.0)
        self._alive_read, self._alive_write = os.pipe()

    def run(self) -> int:
        ends = {signal.SIGTERM, signal.SIGINT}
        # Blocked, so that none is lost between two looks; children unblock them again.
        signal.pthread_sigmask(signal.SIG_BLOCK, ends | {signal.SIGCHLD})
        while True:
            self._start_due()
            received = signal.sigtimedwait(ends | {signal.SIGCHLD}, self._until_due())
            told = self._reap() or (received is not None and received.si_signo in ends)
            if told:
                return self._end()

    def _start_due(self) -> None:
        now = time.monotonic()
        for name, due in list(self._due.items()):
            if due <= now:
                del self._due[name]
                self._children[self._fork(name)] = (name, now)

    def _until_due(self) -> float:
        return max(0.0, min(self._due.values()) - time.monotonic()) if self._due else 3600.0

    def _fork(self, name: str) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            os.close(self._alive_write)
            threading.Thread(target=_end_with_parent, args=(self._alive_read,), daemon=True).start()
            signal.pthread_sigmask(signal.SIG_SETMASK, set())
            gc.freeze()  # what the parent imported is never garbage: don't walk it, nor copy its pages
            gc.set_threshold(*GC_THRESHOLDS)
            code = self._roles[name]()
        except BaseException as error:  # noqa: BLE001 - the child must never return into the parent's code
            _log.error("process_failed", role=name, exc_info=error)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> bool:
        """Sees to it that what failed is started again; says whether one ended in order."""
        told = False
        while self._children:
            child, status = os.waitpid(-1, os.WNOHANG)
            if child == 0:
                break
            name, started = self._children.pop(child, ("", 0.0))
            self._on_exit(child)
            if not name:
                continue
            code = os.waitstatus_to_exitcode(status)
            if code == 0:
                told = True
                continue
            lived = time.monotonic() - started
            self._failures[name] = 1 if lived > _LIVED_WELL else self._failures[name] + 1
            delay = Backoff(first=0.2, most=30.0).delay(self._failures[name])
            self._due[name] = time.monotonic() + delay
            _log.error("process_ended", role=name, code=code, restart_in=round(delay, 1))
        return told

    def _end(self) -> int:
        for child in self._children:
            os.kill(child, signal.SIGTERM)
        deadline = time.monotonic() + self._grace
        while self._children and time.monotonic() < deadline:
            signal.sigtimedwait({signal.SIGCHLD}, 0.1)
            self._collect()
        for child in self._children:
            _log.error("process_killed", role=self._children[child][0])
            os.kill(child, signal.SIGKILL)
        return 0 if not self._children else 1

    def _collect(self) -> None:
        while self._children:
            child, _ = os.waitpid(-1, os.WNOHANG)
            if child == 0:
                return
            self._children.pop(child, None)
            self._on_exit(child)


def _end_with_parent(alive: int) -> None:
    """Blocks until the parent's end of the pipe is closed, which the kernel does when the parent is gone."""
    os.read(alive, 1)
    os._exit(1)
