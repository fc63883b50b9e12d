"""`LocalServer`: an embedded server as a child process, for as long as a `with` block lasts."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from types import TracebackType
from typing import IO

# What EX_CONFIG means to sysexits.h: this machine is not set up for it.
EXIT_NO_ISOLATION = 78

START_SECONDS = 30.0
STOP_SECONDS = 10.0

_servers: weakref.WeakSet[LocalServer] = weakref.WeakSet()


class ServerError(RuntimeError):
    """The embedded server did not start; the message holds what it said."""


class LocalServer:
    """An embedded sandbox server in a child process.

    The server, and every sandbox in it, ends with `stop`, with the `with` block, and when this process ends
    for whatever reason, SIGKILL included. A forked child of this process may use the server but does not own
    it: nothing that it does to this object, nor its end, stops the server.

    Args:
        host: Address to listen on. On anything but loopback, other machines can reach the server.
        port: Port to listen on; 0 lets the kernel choose one.
        memory: What each sandbox may have of memory, its files included: bytes, or a size such as "512M" or
            "2G". By default half of the machine's, but no more than 8 GiB.
        disk: What it may write to files, likewise. By default half of its memory, but no more than 4 GiB.
        processes: How many processes its commands may have at once, threads included.
        cpus: The time of how many processors it may use; of all by default.
        sandboxes: How many sandboxes may live at once; 500 by default.
        internet: Whether sandboxes have a network, as their rules allow it.
        templates: Directory that templates are kept in, if not the usual one.
        isolation: Whose kernel commands run on: this machine's ("namespaces"), or gVisor's ("gvisor"), which
            needs its program `runsc` on PATH.

    Example:
        >>> with LocalServer() as server:
        ...     os.environ.update(server.env)
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        memory: int | str | None = None,
        disk: int | str | None = None,
        processes: int | None = None,
        cpus: float | None = None,
        sandboxes: int | None = None,
        internet: bool = False,
        templates: str | os.PathLike[str] | None = None,
        isolation: str = "namespaces",
    ) -> None:
        self._host = host
        self._port = port
        self._isolation = isolation
        self._limits = {
            "memory": memory,
            "disk": disk,
            "processes": processes,
            "cpus": cpus,
            "sandboxes": sandboxes,
        }
        self._internet = internet
        self._templates = templates
        self._lock = threading.Lock()
        self._owner: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: int | None = None
        self._log: IO[bytes] | None = None
        self._env: dict[str, str] = {}
        _servers.add(self)

    def __repr__(self) -> str:
        where = self._env.get("E2B_API_URL", "not running")
        return f"<LocalServer {where}>"

    def __enter__(self) -> LocalServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def env(self) -> dict[str, str]:
        """What a client needs in its environment: E2B_API_URL, E2B_SANDBOX_URL and E2B_API_KEY.

        Raises:
            RuntimeError: The server does not run.
        """
        if not self._env:
            raise RuntimeError("the local server does not run; call start() or use it in a with statement")
        return dict(self._env)

    @property
    def url(self) -> str:
        """Its URL; the control plane and the sandboxes are at the same. Raises as `env`."""
        return self.env["E2B_API_URL"]

    @property
    def api_key(self) -> str:
        """The key that its control plane asks for. Raises as `env`."""
        return self.env["E2B_API_KEY"]

    @property
    def pid(self) -> int:
        """Its process id. Raises as `env`."""
        process = self._process
        if process is None:
            raise RuntimeError("the local server does not run; call start() or use it in a with statement")
        return process.pid

    def start(self) -> None:
        """Start the server and wait until it is ready. Does nothing if it runs.

        Raises:
            IsolationError: This machine does not allow sandboxes; the message says why and what to do.
            ServerError: It did not start for another reason, or not within 30 seconds.
        """
        with self._lock:
            if self._process is None:
                try:
                    self._start()
                except BaseException:
                    self._stop()
                    raise

    def stop(self) -> None:
        """End the server and every sandbox in it. Does nothing if it does not run, or in a forked child."""
        with self._lock:
            if self._owner == os.getpid():
                self._stop()

    def _start(self) -> None:
        self._owner = os.getpid()
        # Standard error goes to a file without a name: a pipe would have to be drained by a thread.
        try:
            self._log = tempfile.TemporaryFile()  # noqa: SIM115
        except OSError as error:
            raise ServerError(f"there is no room for the local server's log: {error.strerror}") from error
        child_end, self._lifeline = os.pipe()
        command = [sys.executable, "-m", "sandbox_local", "serve", "--print-env"]
        command += ["--host", self._host, "--port", str(self._port), "--lifeline", str(child_end)]
        command += ["--isolation", self._isolation]
        command += [f"--{name}={value}" for name, value in self._limits.items() if value is not None]
        if self._internet:
            command.append("--internet")
        if self._templates is not None:
            command += ["--templates", os.fspath(self._templates)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._log,
                pass_fds=[child_end],
                # Ctrl-C in a terminal is for this process, which may still want to clean up its sandboxes.
                start_new_session=True,
            )
        finally:
            os.close(child_end)
        self._env = self._read_env(self._process)

    def _read_env(self, process: subprocess.Popen[bytes]) -> dict[str, str]:
        assert process.stdout is not None
        deadline = time.monotonic() + START_SECONDS
        output = b""
        with process.stdout as stdout, selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while output.count(b"\n") < 3:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise ServerError(
                        f"the local server was not ready in {START_SECONDS:g} s; it said: {self.log}"
                    )
                chunk = os.read(stdout.fileno(), 4096)
                if not chunk:
                    raise self._failure(process)
                output += chunk
        return dict(line.split("=", 1) for line in output.decode().splitlines())

    def _failure(self, process: subprocess.Popen[bytes]) -> Exception:
        code = process.wait(STOP_SECONDS)
        if code == EXIT_NO_ISOLATION:
            from sandbox_local.isolation.errors import IsolationError

            return IsolationError(self.log)
        return ServerError(
            f"the local server did not start (exit code {code}); it said: {self.log or 'nothing'}"
        )

    @property
    def log(self) -> str:
        """The last 64 KiB of what the server has written to its standard error."""
        if self._log is None:
            return ""
        descriptor = self._log.fileno()
        end = os.fstat(descriptor).st_size
        start = max(0, end - (64 << 10))
        return os.pread(descriptor, end - start, start).decode(errors="replace").strip()

    def _stop(self) -> None:
        self._env = {}
        self._let_go()
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None

    def _let_go(self) -> None:
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None


def _after_fork_in_child() -> None:
    # A child that kept the lifeline open would keep the server alive after the owner's death. And a thread
    # that is not in the child may have held the lock.
    for server in list(_servers):
        server._let_go()
        server._lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
