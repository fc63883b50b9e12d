"""Servers that tests may hurt: each of a test's own, started as root or as a user without privileges."""

from __future__ import annotations

import functools
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import sandbox_local
from tests.faults.client import Client
from tests.processes import is_running, parents

_SPARE_ID = 54321
_START_SECONDS = 30.0
_END_SECONDS = 15.0
_MAIN = "\nimport sys\nfrom sandbox_local.__main__ import main\nsys.exit(main())\n"

ROOT = Path(sandbox_local.__file__).resolve().parent.parent


class Identity(NamedTuple):
    """Whom servers run as.

    Attributes:
        name: "root" or "unprivileged".
        uid: User and group to become, or None to stay who the tests are.
        python: The interpreter.
    """

    name: str
    uid: int | None
    python: str

    def popen_options(self) -> dict[str, object]:
        """What `subprocess` needs to start a program as this user."""
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.uid, "extra_groups": []}

    def own(self, path: Path) -> Path:
        """Give a path to this user; returns it."""
        if self.uid is not None:
            os.chown(path, self.uid, self.uid)
        return path


def environment() -> dict[str, str]:
    """The variables of a server: the project and what it needs are found by a Python that has neither."""
    paths = [str(ROOT), str(ROOT / "generated"), *(path for path in sys.path if path.endswith("-packages"))]
    return {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(paths), "PYTHONDONTWRITEBYTECODE": "1"}


@functools.cache
def identity(name: str) -> Identity | str:
    """Somebody to run servers as, or why there is nobody."""
    if name == "root":
        return Identity(name, None, sys.executable) if os.geteuid() == 0 else "the tests do not run as root"
    if os.geteuid() != 0:
        return Identity(name, None, sys.executable)
    version = f"python3.{sys.version_info[1]}"
    for python in (sys.executable, *filter(None, (shutil.which(version, path="/usr/local/bin:/usr/bin"),))):
        found = Identity(name, _SPARE_ID, python)
        try:
            tried = subprocess.run(
                [python, "-c", "import sandbox_local.serve"],
                cwd="/",
                env=environment(),
                capture_output=True,
                timeout=60,
                check=False,
                **found.popen_options(),  # type: ignore[call-overload]
            )
        except PermissionError:
            continue
        if tried.returncode == 0:
            return found
    return f"no {version} of this machine, with the project and what it needs, is for everybody"


class FaultServer:
    """A server in a process of its own.

    Args:
        who: Whom it runs as.
        prelude: Python to run before the server's own program.
        arguments: More of `serve`'s.
        env: More variables.
    """

    def __init__(
        self,
        who: Identity,
        *,
        prelude: str = "",
        arguments: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.who = who
        # What the server leaves of its own would be here.
        self.temporary = who.own(Path(tempfile.mkdtemp(prefix="faults-", dir="/tmp")))
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        lifeline, self._lifeline = os.pipe()  # whatever ends the tests ends the server
        self._process = subprocess.Popen(
            [who.python, "-c", prelude + _MAIN, "serve", "--print-env", f"--lifeline={lifeline}", *arguments],
            pass_fds=[lifeline],
            cwd="/",
            env={**environment(), "TMPDIR": str(self.temporary), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
            **who.popen_options(),  # type: ignore[call-overload]
        )
        os.close(lifeline)
        self.pid = self._process.pid
        try:
            self._ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def _ready(self) -> None:
        assert self._process.stdout is not None
        output = b""
        deadline = time.monotonic() + _START_SECONDS
        while output.count(b"\n") < 3:
            readable = select.select([self._process.stdout], [], [], max(0, deadline - time.monotonic()))[0]
            chunk = os.read(self._process.stdout.fileno(), 4096) if readable else b""
            if not chunk:
                raise NotStarted(self._process.wait(_END_SECONDS) if readable else None, self.log)
            output += chunk
        found = dict(line.split("=", 1) for line in output.decode().splitlines())
        self.url, self.api_key = found["E2B_API_URL"], found["E2B_API_KEY"]
        self.port = int(self.url.rpartition(":")[2])

    def __enter__(self) -> FaultServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            os.kill(self.pid, signal.SIGCONT)
            self._process.terminate()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"the server did not end; it said: {self.log}") from error
        finally:
            assert self._process.stdout is not None
            self._process.stdout.close()
            os.close(self._lifeline)
            log = self.log
            self._log.close()
            left = list(self.temporary.iterdir())
            shutil.rmtree(self.temporary)
        if error is None:
            assert left == [], "the server left files"
            assert "Traceback" not in log, log
            assert "never retrieved" not in log, log

    @property
    def log(self) -> str:
        """What it has written to its standard error."""
        end = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), end, 0).decode(errors="replace")

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def client(self) -> Client:
        """Somebody who speaks to it over a connection of its own."""
        return Client(self.port, self.api_key)

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Send it a signal; waits for its end if that was SIGKILL."""
        os.kill(self.pid, signum)
        if signum == signal.SIGKILL:
            self._process.wait(_END_SECONDS)

    def launchers(self) -> list[int]:
        """The launcher of its sandboxes: the process that it started, and that one's child, the zygote."""
        parent_of = parents()
        outer = [pid for pid, parent in parent_of.items() if parent == self.pid and is_running(pid)]
        return [*outer, *(pid for pid, parent in parent_of.items() if parent in outer and is_running(pid))]

    def agents(self) -> list[int]:
        """The first processes of its sandboxes, those that are being made included."""
        zygote = self.launchers()[1:]
        return [pid for pid, parent in parents().items() if parent in zygote]


class NotStarted(Exception):
    """The server did not start; holds its log."""

    def __init__(self, code: int | None, log: str) -> None:
        super().__init__(code, log)
        self.code = code
        self.log = log
