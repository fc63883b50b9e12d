"""Every call of the SDK that reaches the network, and what runs all of them against one broken server.

A new call is one more line of `CALLS`; it is then held to all that the tests of faults expect.
"""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from sandbox_sync import PtySize, Sandbox, SandboxException
from sandbox_sync.access import Access
from sandbox_sync.config import ConnectionConfig
from sandbox_sync.inside import Inside
from tests.unit.wire_server import Peer, Received

API_KEY = "key-of-the-account"
TOKEN = "token-of-the-sandbox"

Kind = Literal["control", "rpc", "stream", "get", "post", "health"]

# More at once would measure the machine.
_AT_ONCE = 8


class Target:
    """One sandbox behind a server, and the options that lead there."""

    def __init__(self, url: str, sandbox_id: str, transport: str) -> None:
        self.sandbox_id = sandbox_id
        self.options: dict[str, Any] = {
            "api_key": API_KEY,
            "api_url": url,
            "sandbox_url": url,
            "transport": transport,
        }
        config = ConnectionConfig.resolve(**self.options)
        inside = Inside.reached_with(config, Access(sandbox_id, None, TOKEN))
        self.envd = inside.envd
        self.sandbox = Sandbox(config, sandbox_id, inside)


@dataclass(frozen=True)
class Call:
    """One call of the SDK.

    Attributes:
        name: As a reader knows it.
        kind: The way it takes: the control plane, an RPC, a stream of one, a file in either direction, or the
            health check.
        method: HTTP method.
        path: Path, with {id} for the sandbox's.
        make: Makes it, with this request_timeout.
        idempotent: Whether it is made again when it may have run.
        missing: What it returns when the service says "not found"; an exception if nothing.
        of_sandbox: Whether it is for one sandbox, which its errors then name.
        clock: The option that its time is set with.
    """

    name: str
    kind: Kind
    method: str
    path: str
    make: Callable[[Target, float], object]
    idempotent: bool
    missing: object = SandboxException
    of_sandbox: bool = True
    clock: Literal["request_timeout", "timeout"] = "request_timeout"

    @property
    def streams_up(self) -> bool:
        """Whether it sends what can be read but once."""
        return "iterable" in self.name or "stream_input" in self.name

    @property
    def starts(self) -> bool:
        """Whether it starts a command, which must not be left running when the call fails."""
        return self.path == "/process.Process/Start"


def _control(name: str, method: str, path: str, make: Callable[[Target, float], object], **more: Any) -> Call:
    return Call(name, "control", method, path, make, **{"idempotent": True, **more})


def _process(name: str, rpc: str, make: Callable[[Target, float], object], **more: Any) -> Call:
    return Call(name, "rpc", "POST", f"/process.Process/{rpc}", make, **{"idempotent": False, **more})


def _filesystem(name: str, rpc: str, make: Callable[[Target, float], object], **more: Any) -> Call:
    return Call(name, "rpc", "POST", f"/filesystem.Filesystem/{rpc}", make, **{"idempotent": True, **more})


def _get(name: str, make: Callable[[Target, float], object]) -> Call:
    return Call(name, "get", "GET", "/files", make, idempotent=True)


def _post(name: str, make: Callable[[Target, float], object], **more: Any) -> Call:
    return Call(name, "post", "POST", "/files", make, **{"idempotent": True, **more})


def _stream(name: str, rpc: str, make: Callable[[Target, float], object], **more: Any) -> Call:
    return Call(name, "stream", "POST", rpc, make, **{"idempotent": False, **more})


def _walk(listing: Any) -> object:
    return listing.next_items()


CALLS: tuple[Call, ...] = (
    _control(
        "Sandbox.create()",
        "POST",
        "/v2/sandboxes",
        lambda at, limit: Sandbox.create(**at.options, request_timeout=limit),
        of_sandbox=False,
    ),
    _control(
        "Sandbox.connect(id)",
        "POST",
        "/v2/sandboxes/{id}/connect",
        lambda at, limit: Sandbox.connect(at.sandbox_id, **at.options, request_timeout=limit),
    ),
    _control(
        "sandbox.connect()",
        "POST",
        "/v2/sandboxes/{id}/connect",
        lambda at, limit: at.sandbox.connect(request_timeout=limit),
    ),
    _control(
        "Sandbox.kill(id)",
        "DELETE",
        "/sandboxes/{id}",
        lambda at, limit: Sandbox.kill(at.sandbox_id, **at.options, request_timeout=limit),
        missing=False,
    ),
    _control(
        "sandbox.kill()",
        "DELETE",
        "/sandboxes/{id}",
        lambda at, limit: at.sandbox.kill(request_timeout=limit),
        missing=False,
    ),
    _control(
        "Sandbox.set_timeout(id)",
        "POST",
        "/sandboxes/{id}/timeout",
        lambda at, limit: Sandbox.set_timeout(at.sandbox_id, 60, **at.options, request_timeout=limit),
    ),
    _control(
        "sandbox.set_timeout()",
        "POST",
        "/sandboxes/{id}/timeout",
        lambda at, limit: at.sandbox.set_timeout(60, request_timeout=limit),
    ),
    _control(
        "Sandbox.get_info(id)",
        "GET",
        "/sandboxes/{id}",
        lambda at, limit: Sandbox.get_info(at.sandbox_id, **at.options, request_timeout=limit),
    ),
    _control(
        "sandbox.get_info()",
        "GET",
        "/sandboxes/{id}",
        lambda at, limit: at.sandbox.get_info(request_timeout=limit),
    ),
    _control(
        "Sandbox.list()",
        "GET",
        "/v2/sandboxes",
        lambda at, limit: _walk(Sandbox.list(**at.options, request_timeout=limit)),
        of_sandbox=False,
    ),
    _control(
        "sandbox.pause()",
        "POST",
        "/sandboxes/{id}/pause",
        lambda at, limit: at.sandbox.pause(request_timeout=limit),
    ),
    _control(
        "sandbox.get_metrics()",
        "GET",
        "/sandboxes/{id}/metrics",
        lambda at, limit: at.sandbox.get_metrics(request_timeout=limit),
    ),
    _control(
        "sandbox.update_network()",
        "PUT",
        "/sandboxes/{id}/network",
        lambda at, limit: at.sandbox.update_network({"deny_out": ["10.0.0.0/8"]}, request_timeout=limit),
    ),
    _control(
        "sandbox.create_snapshot()",
        "POST",
        "/sandboxes/{id}/snapshots",
        lambda at, limit: at.sandbox.create_snapshot(request_timeout=limit),
        idempotent=False,
    ),
    _control(
        "Sandbox.list_snapshots()",
        "GET",
        "/snapshots",
        lambda at, limit: _walk(Sandbox.list_snapshots(**at.options, request_timeout=limit)),
        of_sandbox=False,
    ),
    _control(
        "Sandbox.fork(id)",
        "POST",
        "/sandboxes/{id}/fork",
        lambda at, limit: Sandbox.fork(at.sandbox_id, **at.options, request_timeout=limit),
        idempotent=False,
    ),
    _control(
        "sandbox.fork()",
        "POST",
        "/sandboxes/{id}/fork",
        lambda at, limit: at.sandbox.fork(request_timeout=limit),
        idempotent=False,
    ),
    Call(
        "sandbox.is_running()",
        "health",
        "GET",
        "/health",
        lambda at, limit: at.sandbox.is_running(request_timeout=limit),
        idempotent=True,
    ),
    _process(
        "commands.list()",
        "List",
        lambda at, limit: at.sandbox.commands.list(request_timeout=limit),
        idempotent=True,
    ),
    _process(
        "commands.kill()",
        "SendSignal",
        lambda at, limit: at.sandbox.commands.kill(7, request_timeout=limit),
        missing=False,
    ),
    _process(
        "commands.send_stdin()",
        "SendInput",
        lambda at, limit: at.sandbox.commands.send_stdin(7, "x", request_timeout=limit),
    ),
    _process(
        "commands.close_stdin()",
        "CloseStdin",
        lambda at, limit: at.sandbox.commands.close_stdin(7, request_timeout=limit),
        idempotent=True,
    ),
    _stream(
        "commands.run()",
        "/process.Process/Start",
        lambda at, limit: at.sandbox.commands.run("true", request_timeout=limit),
    ),
    _stream(
        "commands.run(background=True)",
        "/process.Process/Start",
        lambda at, limit: at.sandbox.commands.run("true", background=True, request_timeout=limit),
    ),
    _stream(
        "commands.connect()",
        "/process.Process/Connect",
        lambda at, limit: at.sandbox.commands.connect(7, request_timeout=limit),
        idempotent=True,
    ),
    _stream(
        "commands.stream_input()",
        "/process.Process/StreamInput",
        lambda at, limit: at.sandbox.commands.stream_input(7, iter(["x", "y"]), timeout=limit),
        clock="timeout",
    ),
    _stream(
        "pty.create()",
        "/process.Process/Start",
        lambda at, limit: at.sandbox.pty.create(PtySize(rows=24, cols=80), request_timeout=limit),
    ),
    _stream(
        "pty.connect()",
        "/process.Process/Connect",
        lambda at, limit: at.sandbox.pty.connect(7, request_timeout=limit),
        idempotent=True,
    ),
    _process(
        "pty.send_stdin()",
        "SendInput",
        lambda at, limit: at.sandbox.pty.send_stdin(7, b"x", request_timeout=limit),
    ),
    _process(
        "pty.resize()",
        "Update",
        lambda at, limit: at.sandbox.pty.resize(7, PtySize(rows=24, cols=80), request_timeout=limit),
        idempotent=True,
    ),
    _process(
        "pty.kill()",
        "SendSignal",
        lambda at, limit: at.sandbox.pty.kill(7, request_timeout=limit),
        missing=False,
    ),
    _stream(
        "files.watch_dir()",
        "/filesystem.Filesystem/WatchDir",
        lambda at, limit: at.sandbox.files.watch_dir("d", request_timeout=limit),
        idempotent=True,
    ),
    _filesystem(
        "files.list()", "ListDir", lambda at, limit: at.sandbox.files.list("d", request_timeout=limit)
    ),
    _filesystem(
        "files.exists()",
        "Stat",
        lambda at, limit: at.sandbox.files.exists("f", request_timeout=limit),
        missing=False,
    ),
    _filesystem(
        "files.get_info()", "Stat", lambda at, limit: at.sandbox.files.get_info("f", request_timeout=limit)
    ),
    _filesystem(
        "files.remove()", "Remove", lambda at, limit: at.sandbox.files.remove("f", request_timeout=limit)
    ),
    _filesystem(
        "files.rename()",
        "Move",
        lambda at, limit: at.sandbox.files.rename("f", "g", request_timeout=limit),
        idempotent=False,
    ),
    _filesystem(
        "files.make_dir()",
        "MakeDir",
        lambda at, limit: at.sandbox.files.make_dir("d", request_timeout=limit),
        idempotent=False,
    ),
    _get("files.read()", lambda at, limit: at.sandbox.files.read("f", request_timeout=limit)),
    _get(
        'files.read(format="bytes")',
        lambda at, limit: at.sandbox.files.read("f", format="bytes", request_timeout=limit),
    ),
    _get(
        'files.read(format="stream")',
        lambda at, limit: at.sandbox.files.read("f", format="stream", request_timeout=limit).read(),
    ),
    _post("files.write()", lambda at, limit: at.sandbox.files.write("f", "text", request_timeout=limit)),
    _post(
        "files.write(file)",
        lambda at, limit: at.sandbox.files.write("f", io.BytesIO(b"x" * 300_000), request_timeout=limit),
    ),
    _post(
        "files.write(iterable)",
        lambda at, limit: at.sandbox.files.write("f", iter([b"x"] * 3), request_timeout=limit),
        idempotent=False,
    ),
    _post(
        "files.write([...])",
        lambda at, limit: at.sandbox.files.write(
            [{"path": "f", "data": "x"}, {"path": "g", "data": b"y"}], request_timeout=limit
        ),
    ),
)

RPCS = tuple(call for call in CALLS if call.kind in ("rpc", "stream"))
"""Those that go over gRPC when that is chosen."""


@dataclass
class Outcome:
    """How one call ended.

    Attributes:
        call: The call.
        target: What it was made on.
        seconds: How long it took.
        answer: What it returned, if it did.
        error: What it raised, if it did.
    """

    call: Call
    target: Target
    seconds: float = 0.0
    answer: object = None
    error: BaseException | None = None
    problems: list[str] = field(default_factory=list)

    def expect(self, what: str, seen: object, wanted: object) -> None:
        """Note it if what was seen is not what was wanted."""
        if seen != wanted:
            self.problems.append(f"{self.call.name}: {what} is {seen!r} and should be {wanted!r}")

    def fails_as(self, kind: type[SandboxException], **fields: object) -> None:
        """Note it unless the call raised exactly this, complete in all that an error tells of its call."""
        error = self.error
        if type(error) is not kind:
            shown = self.answer if error is None else error
            self.problems.append(f"{self.call.name}: ended with {shown!r} and not with {kind.__name__}")
            return
        path = self.call.path.format(id=self.target.sandbox_id)
        wanted = {"method": self.call.method, "path": path, "sandbox_id": None, **fields}
        if self.call.of_sandbox:
            wanted["sandbox_id"] = self.target.sandbox_id
        for name, value in wanted.items():
            self.expect(name, getattr(error, name), value)
        words = str(error)
        for known in (path, wanted["sandbox_id"]):
            if known and str(known) not in words:
                self.problems.append(f"{self.call.name}: the words do not tell of {known}: {words}")
        for secret in (API_KEY, TOKEN):
            if secret in words:
                self.problems.append(f"{self.call.name}: the words give a secret away: {words}")
        if error.__cause__ is not None:
            self.problems.append(f"{self.call.name}: it shows {error.__cause__!r} as its cause")

    def takes(self, least: float, most: float) -> None:
        """Note it unless the call took so many seconds. Machines may stall: a late one gets a second try."""
        if self.seconds > most:
            again = attempt(self.call, self.target, least)
            self.seconds = again.seconds
        if not least <= self.seconds <= most:
            self.problems.append(
                f"{self.call.name}: took {self.seconds:.3f} s and not {least:g} to {most:.3f} s"
            )


def at_the_limit(limit: float) -> tuple[float, float]:
    """The time that a call may take which ends at a limit of so many seconds."""
    return limit, limit * 1.1 + 0.05


def attempt(call: Call, target: Target, limit: float) -> Outcome:
    """Make a call once."""
    outcome = Outcome(call, target)
    begin = time.monotonic()
    try:
        outcome.answer = call.make(target, limit)
    except BaseException as error:  # noqa: BLE001 - it is what the test is about
        outcome.error = error
    outcome.seconds = time.monotonic() - begin
    return outcome


def run_all(
    url: str,
    limit: float | Callable[[Call], float],
    calls: Iterable[Call] = CALLS,
    *,
    transport: str = "connect",
) -> list[Outcome]:
    """Make all calls, each on a sandbox of its own and with its `limit` of seconds, a few at a time."""

    def run(call: Call, target: Target) -> Outcome:
        return attempt(call, target, limit(call) if callable(limit) else limit)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        targets = [(call, Target(url, f"i{number}", transport)) for number, call in enumerate(calls)]
        return list(pool.map(run, *zip(*targets, strict=True)))


def verdict(outcomes: Iterable[Outcome]) -> list[str]:
    """What was wrong with any of them."""
    return [problem for outcome in outcomes for problem in outcome.problems]


class Playing:
    """What a server needs to know of the calls that are made on it: `run_all` gives each another sandbox.

    Args:
        calls: The calls, in the order in which `run_all` got them.
        health: What the sandboxes' health check answers where it is not the call itself: status and body.
    """

    def __init__(self, calls: Sequence[Call] = CALLS, health: tuple[int, bytes] = (204, b"")) -> None:
        self._calls = calls
        self._health = health
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()

    def is_aside(self, peer: Peer, request: Received) -> bool:
        """Answer what a call asks for beside its own request: is the sandbox alive, has a command started."""
        if self.counts(request):
            return False
        if request.target == "/health":
            peer.answer(*self._health)
        else:
            peer.answer(body=b"", content_type="application/proto")
        return True

    def counts(self, request: Received) -> bool:
        """Whether this is a call's own request, which is counted then."""
        path = request.target.partition("?")[0]
        call = self._call_of(request, path)
        if path != call.path.format(id=self._id_of(request, path)):
            return False
        with self._lock:
            self._counts[call.name] = self._counts.get(call.name, 0) + 1
        return True

    def of(self, outcome: Outcome) -> int:
        """How many requests a call has made."""
        return self._counts.get(outcome.call.name, 0)

    def _call_of(self, request: Received, path: str) -> Call:
        name = self._id_of(request, path)
        if name is not None:
            return self._calls[int(name[1:])]
        return next(call for call in self._calls if (call.method, call.path) == (request.method, path))

    def _id_of(self, request: Received, path: str) -> str | None:
        known = request.headers.get("e2b-sandbox-id")
        return known or next((part for part in path.split("/") if re.fullmatch(r"i\d+", part)), None)
