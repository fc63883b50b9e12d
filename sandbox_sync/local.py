"""This user's own sandbox server on this machine: join the one that runs, or start it.

Server and clients meet in a directory that only this user can enter. The server keeps its address and key in
a file there for as long as it can be used, and goes by itself when idle. A lock in the same directory makes
sure that of many programs that find no server, one starts it.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sandbox_sync.deadlines import Deadline
from sandbox_sync.errors import SandboxException
from sandbox_sync.transport import forks

START_SECONDS = 30.0
IDLE_EXIT_SECONDS = 60
_ANSWER_SECONDS = 5.0
_POLL_SECONDS = 0.01

_STATE = "server.json"
_LOCK = "server.lock"
_LOG = "server.log"

# The variable that asks for a server whose sandboxes have a network. It is a server of its own: neither do
# sandboxes get a network that nobody asked for, nor have those none that need it.
_INTERNET = "SANDBOX_LOCAL_INTERNET"

# The server outlives the program that happens to start it, so it gets none of its secrets.
_VARIABLES = {"PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV"}
_VARIABLE_PREFIXES = ("LC_", "XDG_", "PYTHON", "SANDBOX_LOCAL_")

# Leaves the server to init, so that it is nobody's child here: no zombie, nothing that os.wait() could meet.
_DETACH = """
import os, sys
pid = os.fork()
if pid:
    print(pid)
else:
    os.dup2(2, 1)
    os.execv(sys.argv[1], sys.argv[1:])
"""


class LocalEndpoint(NamedTuple):
    """Where the local server is, and the key it wants.

    Attributes:
        url: Its base URL, of the control plane and of all sandboxes.
        api_key: The key for its control plane.
    """

    url: str
    api_key: str

    def __repr__(self) -> str:
        return f"LocalEndpoint(url={self.url!r})"


def endpoint() -> LocalEndpoint:
    """Where this user's local server is; it is started if none runs.

    Raises:
        SandboxException: It could not be started; the message holds what it said.
    """
    if not sys.platform.startswith("linux"):
        raise SandboxException(
            f"The local sandbox server needs Linux, and this is {sys.platform}; "
            "use a remote service (set E2B_API_KEY)"
        )
    internet = _wants_internet()
    directory = _directory("sandbox-sync-internet" if internet else "sandbox-sync")
    running = _running(directory)
    if running is not None:
        return running
    deadline = Deadline.after(START_SECONDS)
    with _lock(directory, deadline):
        return _running(directory) or _start(directory, deadline, internet)


def _wants_internet() -> bool:
    value = os.environ.get(_INTERNET, "")
    if value not in ("", "0", "1"):
        raise SandboxException(
            f"{_INTERNET} is {value!r}; it takes 1, for sandboxes with a network, or 0, for such without"
        )
    return value == "1"


def _directory(name: str) -> Path:
    uid = os.getuid()
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isdir(runtime) and os.stat(runtime).st_uid == uid:
        path = Path(runtime, name)
    else:
        path = Path(tempfile.gettempdir(), f"{name}-{uid}")
    try:
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            pass
        status = path.lstat()
    except OSError as error:
        raise SandboxException(
            f"Cannot make {path}, where the local sandbox server is found: {error}"
        ) from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != uid or status.st_mode & 0o077:
        raise SandboxException(
            f"{path} is not a directory that belongs to this user and that nobody else can enter. Remove it: "
            "whoever made it could pose as the local sandbox server"
        )
    return path


class _Probe(NamedTuple):
    """A question to a server that may not be ready, and what came of it."""

    url: str
    status: int | None
    said: str


def _running(directory: Path, probes: list[_Probe] | None = None) -> LocalEndpoint | None:
    """The server that the state file tells of, if it can be used; `probes` is told what it said if not."""
    state = _read_state(directory)
    # A server that is going takes its file away before anything else, and one that answered while it had the
    # file stays for another idle period: what is still there after an answer can be relied on.
    if state is not None and _answers(state, probes) and _read_state(directory) == state:
        return state
    return None


def _read_state(directory: Path) -> LocalEndpoint | None:
    try:
        state = json.loads((directory / _STATE).read_bytes())
        return LocalEndpoint(str(state["url"]), str(state["api_key"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _answers(server: LocalEndpoint, probes: list[_Probe] | None) -> bool:
    """Whether the server is alive and takes the key."""
    import http.client
    from urllib.parse import urlencode, urlsplit

    from sandbox_sync_rest.api.sandboxes import get_v2_sandboxes

    address = urlsplit(server.url)
    request = get_v2_sandboxes.build(limit=1)
    target = f"{request.path}?{urlencode(request.params)}"
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=_ANSWER_SECONDS)
    status = None
    try:
        connection.request(request.method, target, headers={"X-API-Key": server.api_key})
        status = connection.getresponse().status
        said = f"HTTP status {status}"
    except (OSError, http.client.HTTPException) as error:
        said = str(error) or type(error).__name__
    finally:
        connection.close()
    if probes is not None:
        probes.append(_Probe(f"{server.url}{request.path}", status, said))
    return status == 200


@contextmanager
def _lock(directory: Path, deadline: Deadline) -> Iterator[None]:
    """Keep other processes and threads out; the kernel lets go for a process that dies."""
    import fcntl

    descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    _held.add(descriptor)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if deadline.expired:
                    raise SandboxException(
                        "Another program has been starting the local sandbox server for "
                        f"{START_SECONDS:g} s; see {directory / _LOG}"
                    ) from None
                time.sleep(_POLL_SECONDS)
        yield
    finally:
        if descriptor in _held:  # not so in a fork
            _held.discard(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a fork may have a copy all the same
            os.close(descriptor)


_held: set[int] = set()
"""Descriptors of this process to which the lock may belong."""


def _let_go() -> None:
    """In a forked child: close its copies, which would keep the lock when the parent has died."""
    while _held:
        os.close(_held.pop())


forks.in_child(_let_go)


def _start(directory: Path, deadline: Deadline, internet: bool) -> LocalEndpoint:
    pid = _spawn(directory, internet)
    probes: list[_Probe] = []
    while True:
        ended = not _is_alive(pid)
        running = _running(directory, probes)
        if running is not None:
            return running
        if ended:
            raise _not_started(directory, "did not start", probes)
        if deadline.expired:
            raise _not_started(directory, f"was not ready within {START_SECONDS:g} s", probes)
        time.sleep(_POLL_SECONDS)


def _spawn(directory: Path, internet: bool) -> int:
    """Start a server in a session of its own, with nothing of this process's but its output file."""
    python = sys.executable
    if "python" not in os.path.basename(python or ""):  # inside uWSGI and the like it names their program
        python = os.path.join(sys.exec_prefix, "bin", "python3")
    serve = [python, "-m", "sandbox_local", "serve", "--port", "0"]
    serve += ["--idle-exit", str(IDLE_EXIT_SECONDS), "--state-file", str(directory / _STATE)]
    if internet:
        serve.append("--internet")
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in _VARIABLES or name.startswith(_VARIABLE_PREFIXES)
    }
    log = os.open(directory / _LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        launched = subprocess.run(
            [python, "-I", "-S", "-c", _DETACH, *serve],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=directory,
            env=environment,
            start_new_session=True,
            timeout=START_SECONDS,
            check=False,
        )
        return int(launched.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise _not_started(directory, f"could not be launched with {python}", []) from error
    finally:
        os.close(log)


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"  # ended, and an init that does not care has not collected it


def _not_started(directory: Path, what: str, probes: list[_Probe]) -> SandboxException:
    try:
        said = (directory / _LOG).read_text(errors="replace")[-4000:].strip()
    except OSError as error:
        said = str(error)
    hint = "\nInstall what it needs: pip install 'sandbox-sync[local]'" if "No module named" in said else ""
    asked = "It never told its address."
    if probes:
        asked = f"Asked at {probes[-1].url}, it last answered: {probes[-1].said}."
    return SandboxException(
        f"The local sandbox server {what}. {asked} It said:\n{said or '(nothing)'}{hint}",
        status=probes[-1].status if probes else None,
    )
