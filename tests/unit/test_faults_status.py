"""Answers that refuse, from the service and from what stands before it, and every call of the SDK."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from sandbox_sync import Sandbox, errors
from sandbox_sync.config import DEFAULT_RETRIES
from tests.unit import grpc_wire
from tests.unit.fault_table import CALLS, RPCS, Call, Outcome, Playing, Target, run_all, verdict
from tests.unit.grpc_wire import GrpcPeer
from tests.unit.wire_server import STREAM_HEAD, Peer, Received, answering, chunk, frame

LIMIT = 10.0
REQUEST_ID = "req-7"
GONE = "The sandbox was not found"
CLOSED = "The sandbox is running but port is not open"


def wordy(status: int, message: str = "said the server") -> bytes:
    """An error as the service and its proxies write it, with the status for a code."""
    return json.dumps({"code": status, "message": message}).encode()


@dataclass(frozen=True)
class Refusal:
    """An answer, and what it means.

    Attributes:
        status: HTTP status.
        body: Body; a JSON object with the status for a code when None.
        kinds: The errors of calls of the control plane, of remote procedure calls, and of files and health.
        code: The code of the errors of remote procedure calls.
        transient: Whether idempotent calls are made again.
        doubt: Whether the call may have run.
        more: What else errors about a sandbox's own answers carry.
    """

    status: int
    kinds: tuple[type[errors.SandboxException], ...]
    code: str
    body: bytes | None = None
    transient: bool = False
    doubt: bool = False
    more: dict[str, object] = field(default_factory=dict)

    def expected(self, call: Call) -> type[errors.SandboxException]:
        """The class of a call's error."""
        kind = self.kinds[{"control": 0, "rpc": 1, "stream": 1}.get(call.kind, 2)]
        if kind is errors.NotFoundException:
            if call.kind == "control" and call.of_sandbox:
                return errors.SandboxNotFoundException
            if call.path.startswith(("/files", "/filesystem")):
                return errors.FileNotFoundException
        return kind


E = errors
ALIVE: dict[str, object] = {"sandbox_state": "alive"}
HTML = b"<html><h1>Oh</h1></html>"

REFUSALS = {
    "400": Refusal(400, (E.InvalidArgumentException,) * 3, "invalid_argument"),
    "401": Refusal(401, (E.AuthenticationException,) * 3, "unauthenticated"),
    "403": Refusal(403, (E.AuthenticationException,) * 3, "permission_denied"),
    "404": Refusal(404, (E.NotFoundException,) * 3, "not_found"),
    "404, a page": Refusal(404, (E.SandboxException,) * 3, "not_found", HTML),
    "409": Refusal(409, (E.ConflictException,) * 3, "aborted"),
    "429": Refusal(429, (E.RateLimitException,) * 3, "resource_exhausted", transient=True),
    "500": Refusal(500, (E.SandboxException,) * 3, "internal", doubt=True),
    "500, a page": Refusal(500, (E.SandboxException,) * 3, "internal", HTML, doubt=True),
    "502": Refusal(
        502,
        (E.SandboxException, E.SandboxUnreachableException, E.SandboxUnreachableException),
        "unavailable",
        HTML,
        transient=True,
        doubt=True,
        more=ALIVE,
    ),
    "502, gone": Refusal(
        502,
        (E.SandboxException, E.SandboxNotRunningException, E.SandboxNotRunningException),
        "unavailable",
        wordy(502, GONE),
        doubt=True,
    ),
    "502, port closed": Refusal(
        502,
        (E.SandboxException, E.PortNotOpenException, E.PortNotOpenException),
        "unavailable",
        wordy(502, CLOSED),
        transient=True,
        doubt=True,
        more=ALIVE,
    ),
    "503": Refusal(
        503,
        (E.ServiceBusyException, E.SandboxUnreachableException, E.ServiceBusyException),
        "unavailable",
        transient=True,
        doubt=True,
    ),
    "504": Refusal(
        504,
        (E.SandboxException, E.RequestTimeoutException, E.SandboxException),
        "deadline_exceeded",
        transient=True,
        doubt=True,
    ),
    "507": Refusal(
        507, (E.NotEnoughSpaceException, E.SandboxException, E.NotEnoughSpaceException), "unknown"
    ),
    "307": Refusal(307, (E.SandboxException,) * 3, "unknown", b"", doubt=True),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_every_refusal_has_its_class(name: str) -> None:
    """G28, G45, G59: the same status means the same in every call, and what is repeated does no harm."""
    refusal = REFUSALS[name]
    # Pausing what is paused is a conflict that is none: it asks for the state first. What is streamed to a
    # command has a timeout of its own, whose error is not a server's.
    apart = {"409": "sandbox.pause()", "504": "commands.stream_input()"}
    calls = [call for call in CALLS if call.name != apart.get(name)]
    seen = Playing(calls)

    def respond(peer: Peer, request: Received) -> None:
        if not seen.is_aside(peer, request):
            body = wordy(refusal.status) if refusal.body is None else refusal.body
            peer.answer(refusal.status, body, content_type="application/json", x_request_id=REQUEST_ID)

    with answering(respond) as server:
        outcomes = run_all(server.url, LIMIT, calls)
    for outcome in outcomes:
        judge(name, refusal, outcome)
        again = refusal.transient and once_is_not_enough(outcome.call, refusal.code)
        outcome.expect("number of requests", seen.of(outcome), 1 + DEFAULT_RETRIES * again)
        outcome.takes(0.0, 2.0)
    assert verdict(outcomes) == []


def quiet(name: str, call: Call) -> bool | None:
    """What a call returns for this instead of raising."""
    if (name == "404" and call.missing is False) or (name == "502, gone" and call.kind == "health"):
        return False
    return True if name == "502, port closed" and call.kind == "health" else None


def judge(name: str, refusal: Refusal, outcome: Outcome) -> None:
    call = outcome.call
    answer = quiet(name, call)
    if answer is not None:
        outcome.expect("outcome", outcome.error or outcome.answer, answer)
        return
    fields = dict(refusal.more) if call.kind not in ("control", "health") else {}
    if call.kind in ("rpc", "stream"):
        fields["code"] = refusal.code
    outcome.fails_as(
        refusal.expected(call),
        status=refusal.status,
        request_id=REQUEST_ID,
        maybe_executed=refusal.doubt,
        **fields,
    )


GRPC_CODES: dict[int, tuple[str, type[errors.SandboxException], bool, bool]] = {
    # The code, the class, whether idempotent calls are made again, whether the call may have run
    2: ("unknown", E.SandboxException, False, True),
    3: ("invalid_argument", E.InvalidArgumentException, False, False),
    5: ("not_found", E.NotFoundException, False, False),
    6: ("already_exists", E.SandboxException, False, False),
    7: ("permission_denied", E.AuthenticationException, False, False),
    8: ("resource_exhausted", E.RateLimitException, True, False),
    9: ("failed_precondition", E.SandboxException, False, False),
    10: ("aborted", E.ConflictException, False, False),
    11: ("out_of_range", E.SandboxException, False, False),
    12: ("unimplemented", E.SandboxException, False, False),
    13: ("internal", E.SandboxException, False, True),
    14: ("unavailable", E.SandboxUnreachableException, True, True),
    15: ("data_loss", E.SandboxException, False, True),
    16: ("unauthenticated", E.AuthenticationException, False, False),
}


def same_over_both(code: int) -> dict[str, Callable[..., object]]:
    """What says this code over either wire: as a call's own answer, and at the end of a stream."""
    name = GRPC_CODES[code][0]
    error = {"code": name, "message": "said the server"}
    told = {"x_request_id": REQUEST_ID}

    def over_connect(peer: Peer, request: Received) -> None:
        if request.headers["content-type"] == "application/proto":
            body = json.dumps(error).encode()
            peer.answer(CONNECT_STATUS[name], body, content_type="application/json", **told)
        else:
            end = json.dumps({"error": error, "metadata": {"X-Request-Id": [REQUEST_ID]}}).encode()
            peer.send(STREAM_HEAD + chunk(frame(end, 2)) + b"0\r\n\r\n")

    def over_grpc(peer: GrpcPeer, stream: int, request: Received) -> None:
        peer.refuse(stream, code, "said the server", **told)

    return {"connect": over_connect, "grpc": over_grpc}


CONNECT_STATUS = {
    "unknown": 500,
    "invalid_argument": 400,
    "not_found": 404,
    "already_exists": 409,
    "permission_denied": 403,
    "resource_exhausted": 429,
    "failed_precondition": 400,
    "aborted": 409,
    "out_of_range": 400,
    "unimplemented": 501,
    "internal": 500,
    "unavailable": 503,
    "data_loss": 500,
    "unauthenticated": 401,
}


@pytest.mark.parametrize("transport", ["connect", "grpc"])
@pytest.mark.parametrize("code", GRPC_CODES)
def test_every_code_means_the_same_over_both_wires(code: int, transport: str) -> None:
    """G28, G45, G60: class, code, request id, doubt and the number of attempts."""
    name, kind, transient, doubt = GRPC_CODES[code]
    calls = [call for call in RPCS if not (name == "already_exists" and call.name == "files.make_dir()")]
    seen = Playing(calls)
    answer = same_over_both(code)[transport]

    def over_connect(peer: Peer, request: Received) -> None:
        if not seen.is_aside(peer, request):
            answer(peer, request)

    def over_grpc(peer: GrpcPeer, stream: int, request: Received) -> None:
        if seen.counts(request):
            answer(peer, stream, request)
        else:
            peer.head(stream)
            peer.data(stream, grpc_wire.message(b""))
            peer.trailers(stream)

    serving = (
        answering(over_connect)
        if transport == "connect"
        else grpc_wire.serving(grpc_wire.answering(over_grpc))
    )
    with serving as server:
        outcomes = run_all(server.url, LIMIT, calls, transport=transport)
    for outcome in outcomes:
        call = outcome.call
        if name == "not_found" and call.missing is False:
            outcome.expect("outcome", outcome.error or outcome.answer, False)
        else:
            of_files = kind is E.NotFoundException and call.path.startswith("/filesystem")
            outcome.fails_as(
                E.FileNotFoundException if of_files else kind,
                code=name,
                request_id=REQUEST_ID,
                maybe_executed=doubt,
            )
        again = transient and once_is_not_enough(call, name)
        outcome.expect("number of requests", seen.of(outcome), 1 + DEFAULT_RETRIES * again)
    assert verdict(outcomes) == []


def once_is_not_enough(call: Call, code: str) -> bool:
    """Whether a call is made again: what it streams can be read but once, and most may have run."""
    return not call.streams_up and (call.idempotent or code == "resource_exhausted")


def test_what_can_be_read_but_once_is_sent_once() -> None:
    """G46: an upload that was refused is not sent again without its content."""

    def respond(peer: Peer, request: Received) -> None:
        answer = statuses.pop(0)
        peer.answer(answer, b'[{"path":"/f"}]' if answer == 200 else b"", should_retry="true")

    for status in (429, 503):
        statuses = [status, 200]
        with answering(respond) as server:
            target = Target(server.url, "i1", "connect")
            with pytest.raises(errors.SandboxException) as caught:
                target.sandbox.files.write("f", iter([b"content"]))
        assert caught.value.status == status
        assert len(server.requests) == 1


def http_date(seconds: float) -> str:
    return format_datetime(datetime.now(timezone.utc) + timedelta(seconds=seconds), usegmt=True)


RETRY_AFTER: dict[str, Callable[[int], str]] = {"seconds": str, "a date": http_date}


@pytest.mark.parametrize("form", RETRY_AFTER)
@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_that_does_not_fit_is_told_at_once(status: int, form: str) -> None:
    """G20: budget shorter than the wait: every call raises at once, with `retry_after`."""
    seen = Playing()

    def respond(peer: Peer, request: Received) -> None:
        if not seen.is_aside(peer, request):
            peer.answer(status, wordy(status), retry_after=RETRY_AFTER[form](40))

    with answering(respond) as server:
        outcomes = run_all(server.url, LIMIT)
    for outcome in outcomes:
        told = getattr(outcome.error, "retry_after", None)
        if told is None or not 35 <= told <= 40:
            outcome.problems.append(f"{outcome.call.name}: retry_after is {told}")
        if f"try again in {told:g} s" not in str(outcome.error):
            outcome.problems.append(f"{outcome.call.name}: does not say when to come back: {outcome.error}")
        outcome.expect("number of requests", seen.of(outcome), 1)
        outcome.takes(0.0, 1.0)
    assert verdict(outcomes) == []


@pytest.mark.parametrize("transport", ["connect", "grpc"])
@pytest.mark.parametrize("form", RETRY_AFTER)
def test_a_wait_that_fits_is_kept(form: str, transport: str) -> None:
    """G20: two waits as long as the service asked for, within the budget; then the call is given up."""
    calls = [call for call in CALLS if call.idempotent] if transport == "connect" else RPCS
    # One of each way is enough: what they share is what waits.
    calls = list({call.kind: call for call in calls if not call.starts and not call.streams_up}.values())
    seen = Playing(calls)
    # A date has whole seconds: one that is more than 1 s ahead is between 1 and 2 s away.
    asked = 1 if form == "seconds" else 2

    def respond(peer: Peer, request: Received) -> None:
        if not seen.is_aside(peer, request):
            peer.answer(429, wordy(429), retry_after=RETRY_AFTER[form](asked))

    def refuse(peer: GrpcPeer, stream: int, request: Received) -> None:
        seen.counts(request)
        peer.refuse(stream, 8, "slow down", retry_after=RETRY_AFTER[form](asked))

    limit = 2.0 * asked + 0.7
    serving = answering(respond) if transport == "connect" else grpc_wire.serving(grpc_wire.answering(refuse))
    with serving as server:
        outcomes = run_all(server.url, limit, calls, transport=transport)
    for outcome in outcomes:
        outcome.fails_as(errors.RateLimitException, maybe_executed=False)
        if form == "seconds":
            outcome.expect("number of requests", seen.of(outcome), 3)
        if not 2.0 <= outcome.seconds <= limit:
            outcome.problems.append(f"{outcome.call.name}: gave up after {outcome.seconds:.2f} s")
    assert verdict(outcomes) == []


@pytest.mark.parametrize("should", ["true", "false"])
def test_the_service_knows_whether_to_try_again(should: str) -> None:
    """G45: Should-Retry counts more than what the status and the call would say."""
    status = 500 if should == "true" else 503
    seen = Playing()

    def respond(peer: Peer, request: Received) -> None:
        if not seen.is_aside(peer, request):
            peer.answer(status, wordy(status), should_retry=should)

    with answering(respond) as server:
        outcomes = run_all(server.url, LIMIT)
    for outcome in outcomes:
        again = should == "true" and not outcome.call.streams_up
        outcome.expect("number of requests", seen.of(outcome), 1 + DEFAULT_RETRIES * again)
        outcome.expect("status", getattr(outcome.error, "status", None), status)
    assert verdict(outcomes) == []


def test_one_creation_keeps_its_key_whatever_happens_to_its_connections() -> None:
    """G21: the same Idempotency-Key on every attempt, across answers and broken connections."""
    created = {"sandboxID": "i1", "templateID": "base", "clientID": "c", "envdVersion": "0.6.13"}
    keys: list[str] = []

    def script(peer: Peer, request: Received) -> None:
        keys.append(request.headers["idempotency-key"])
        if len(keys) in (1, 4):
            peer.reset()
        elif len(keys) == 2:
            peer.answer(503, b"", retry_after="0")
        else:
            peer.answer(201, json.dumps(created).encode())

    with answering(script) as server:
        target = Target(server.url, "i1", "connect")
        assert Sandbox.create(**target.options, request_timeout=LIMIT).sandbox_id == "i1"
        Sandbox.create(**target.options, request_timeout=LIMIT)
    assert len(keys) == 5
    assert len(set(keys[:3])) == len(set(keys[3:])) == 1
    assert keys[0] != keys[3], "another creation is another"
