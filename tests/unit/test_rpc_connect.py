"""The Connect protocol on the wire."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from sandbox_sync_rpc import process_pb2

from sandbox_local.rpc import Code
from sandbox_local.rpc.envelope import Unpacker, pack
from sandbox_local.rpc.payload import MESSAGE_BYTES
from tests.unit.engine_testbed import LOOPS, Answer, Running, Wire, serving
from tests.unit.http2_client import Http2
from tests.unit.rpc_testbed import Site, data, start_request

LIST = "/process.Process/List"
SEND = "/process.Process/SendInput"
START = "/process.Process/Start"
CONNECT = "/process.Process/Connect"
STREAM = "/process.Process/StreamInput"


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture(params=LOOPS)
def server(request: pytest.FixtureRequest, site: Site) -> Iterator[Running]:
    with serving(site, loop=request.param) as running:
        yield running


@pytest.fixture
def wire(server: Running) -> Iterator[Wire]:
    with server.connect() as wire:
        yield wire


def post(path: str, content_type: str, body: bytes, **headers: str) -> bytes:
    """A request; underscores in the names of headers stand for dashes."""
    fields = {"content_type": content_type, "content_length": str(len(body)), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\nhost: h\r\n{lines}\r\n".encode() + body


def encoded(message: Message, form: str) -> bytes:
    return message.SerializeToString() if form == "proto" else json_format.MessageToJson(message).encode()


def decoded(data: bytes, kind: type[Message], form: str) -> Message:
    return kind.FromString(data) if form == "proto" else json_format.Parse(data, kind())


def call(wire: Wire, path: str, message: Message, form: str = "proto", **headers: str) -> Answer:
    """A call of a unary method."""
    return wire.ask(post(path, f"application/{form}", encoded(message, form), **headers))


def stream(wire: Wire, path: str, *messages: Message, form: str = "proto", **headers: str) -> Answer:
    """A call of a streaming method."""
    body = b"".join(pack(0, encoded(message, form)) for message in messages)
    return wire.ask(post(path, f"application/connect+{form}", body, **headers))


def events(answer: Answer, form: str = "proto") -> tuple[list[Message], dict[str, Any]]:
    """The messages of a stream, and its end."""
    *frames, (flags, end) = Unpacker().feed(answer.body)
    assert flags == 2
    assert all(flags == 0 for flags, _ in frames)
    return [decoded(payload, process_pb2.StartResponse, form) for _, payload in frames], json.loads(end)


def error(answer: Answer) -> tuple[int, str, str]:
    assert answer.headers["content-type"] == "application/json"
    told = json.loads(answer.body)
    return answer.status, told["code"], told.get("message", "")


FORMS = ["proto", "json"]


@pytest.mark.parametrize("form", FORMS)
def test_unary_call_is_answered_in_the_form_it_came(wire: Wire, form: str) -> None:
    for _ in range(2):
        answer = call(wire, LIST, process_pb2.ListRequest(), form)
        assert (answer.status, answer.headers["content-type"]) == (200, f"application/{form}")
        assert decoded(answer.body, process_pb2.ListResponse, form).processes[0].pid == 7  # type: ignore[attr-defined]


def test_content_type_may_have_parameters_and_any_case(wire: Wire) -> None:
    for content_type in ("application/json; charset=utf-8", "Application/JSON"):
        assert wire.ask(post(LIST, content_type, b"{}")).body == b'{"processes":[{"pid":7,"tag":"t"}]}'


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("code", Code)
def test_unary_error_has_the_status_of_its_code_and_is_always_json(wire: Wire, form: str, code: Code) -> None:
    request = process_pb2.SendInputRequest(process=process_pb2.ProcessSelector(tag=code.name))
    answer = call(wire, SEND, request, form)
    assert error(answer) == (code.http_status, code.label, "100 % näh\n")
    assert call(wire, LIST, process_pb2.ListRequest()).status == 200


def test_codes_have_the_statuses_of_the_protocol() -> None:
    assert {code.label: code.http_status for code in Code} == {
        "canceled": 499,
        "unknown": 500,
        "invalid_argument": 400,
        "deadline_exceeded": 504,
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
    assert [code.number for code in Code] == list(range(1, 17))


def test_bug_of_a_handler_is_an_internal_error_without_details(wire: Wire) -> None:
    request = process_pb2.SendInputRequest(process=process_pb2.ProcessSelector(tag="bug"))
    assert error(call(wire, SEND, request)) == (500, "internal", "internal error")
    _, end = events(stream(wire, START, start_request("fail", 0, "BUG")))
    assert end == {"error": {"code": "internal", "message": "internal error"}}


MALFORMED_UNARY = {
    "empty json": (post(LIST, "application/json", b""), 400, "invalid_argument"),
    "no json": (post(LIST, "application/json", b"{"), 400, "invalid_argument"),
    "no protobuf": (post(LIST, "application/proto", b"\xff"), 400, "invalid_argument"),
    "unknown version": (
        post(LIST, "application/json", b"{}", connect_protocol_version="2"),
        400,
        "invalid_argument",
    ),
    "no timeout": (post(LIST, "application/json", b"{}", connect_timeout_ms="x"), 400, "invalid_argument"),
    "long timeout": (
        post(LIST, "application/json", b"{}", connect_timeout_ms="12345678901"),
        400,
        "invalid_argument",
    ),
    "expired": (post(LIST, "application/json", b"{}", connect_timeout_ms="0"), 504, "deadline_exceeded"),
    "unknown encoding": (post(LIST, "application/json", b"{}", content_encoding="br"), 501, "unimplemented"),
    "no gzip": (post(LIST, "application/json", b"{}", content_encoding="gzip"), 400, "invalid_argument"),
    "too long": (
        post(LIST, "application/proto", b"", content_length=str(MESSAGE_BYTES + 1)),
        400,
        "invalid_argument",
    ),
}


@pytest.mark.parametrize(("request_", "status", "code"), MALFORMED_UNARY.values(), ids=MALFORMED_UNARY)
def test_malformed_unary_call_is_refused_in_the_words_of_the_protocol(
    wire: Wire, request_: bytes, status: int, code: str
) -> None:
    assert error(wire.ask(request_))[:2] == (status, code)


def test_unary_call_accepts_what_it_should(wire: Wire) -> None:
    for request in (
        post(LIST, "application/proto", b""),
        post(LIST, "application/json", b'{"unknown":[1]}', connect_protocol_version="1"),
        post(LIST, "application/json", gzip.compress(b"{}"), content_encoding="gzip"),
        post(LIST, "application/json", b"{}", content_encoding="identity"),
        post(LIST, "application/json", b"{}", connect_timeout_ms="9999999999"),
    ):
        assert wire.ask(request).status == 200


def test_context_tells_sandbox_user_timeout_and_headers(wire: Wire, site: Site) -> None:
    call(wire, LIST, process_pb2.ListRequest(), Authorization="Basic dXNlcjo=", connect_timeout_ms="5000")
    context = site.contexts.get(timeout=5)
    assert (context.sandbox, context.user, context.timeout_ms) == ("the sandbox", "user", 5000)
    assert context.headers["Connect-Timeout-Ms"] == "5000"


def test_other_methods_of_http_and_other_content_types_are_refused_with_what_is_accepted(wire: Wire) -> None:
    answer = wire.ask(f"GET {LIST} HTTP/1.1\r\nhost: h\r\n\r\n".encode())
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    answer = wire.ask(post(LIST, "text/plain", b""))
    assert answer.status == 415
    assert "application/json" in answer.headers["accept-post"]
    answer = wire.ask(post(START, "application/json", b"{}"))
    assert answer.status == 415
    assert "application/connect+json" in answer.headers["accept-post"]
    answer = wire.ask(post(LIST, "application/connect+json", b""))
    assert answer.status == 415
    assert wire.ask(post("/process.Process/None", "application/json", b"{}")).status == 404


@pytest.mark.parametrize("form", FORMS)
def test_server_stream_ends_with_an_empty_end_of_stream(wire: Wire, form: str) -> None:
    for count in (0, 3):
        answer = stream(wire, START, start_request("count", count, 5), form=form)
        assert (answer.status, answer.headers["content-type"]) == (200, f"application/connect+{form}")
        assert events(answer, form) == ([data(b"xxxxx")] * count, {})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [0, 2])
def test_error_of_a_stream_travels_in_its_end_with_status_200(wire: Wire, form: str, count: int) -> None:
    answer = stream(wire, START, start_request("fail", count, "NOT_FOUND"), form=form)
    found, end = events(answer, form)
    assert (answer.status, len(found)) == (200, count)
    assert end == {"error": {"code": "not_found", "message": "100 % näh\n"}}


def test_request_of_a_stream_may_come_in_chunks_cut_anywhere(wire: Wire) -> None:
    body = pack(0, start_request("count", 1, 1).SerializeToString())
    head = f"POST {START} HTTP/1.1\r\nhost: h\r\ncontent-type: application/connect+proto\r\n".encode()
    for cut in range(1, len(body)):
        wire.send(head + b"transfer-encoding: chunked\r\n\r\n")
        wire.send(b"%x\r\n%b\r\n" % (cut, body[:cut]))
        wire.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body) - cut, body[cut:]))
        assert events(wire.answer()) == ([data(b"x")], {})


MESSAGE = start_request("count", 1, 1).SerializeToString()


MALFORMED = {
    "no message": (b"", {}, "unimplemented"),
    "two messages": (pack(0, MESSAGE) * 2, {}, "unimplemented"),
    "cut message": (pack(0, MESSAGE)[:-1], {}, "invalid_argument"),
    "cut prefix": (pack(0, MESSAGE)[:3], {}, "invalid_argument"),
    "no protobuf": (pack(0, b"\xff"), {}, "invalid_argument"),
    "end of stream": (pack(2, b"{}"), {}, "invalid_argument"),
    "unknown flag": (pack(64, MESSAGE), {}, "invalid_argument"),
    "too long": (b"\0" + (MESSAGE_BYTES + 1).to_bytes(4, "big") + MESSAGE, {}, "invalid_argument"),
    "compressed unannounced": (pack(1, gzip.compress(MESSAGE)), {}, "invalid_argument"),
    "no gzip": (pack(1, MESSAGE), {"connect_content_encoding": "gzip"}, "invalid_argument"),
    "unknown encoding": (pack(0, MESSAGE), {"connect_content_encoding": "br"}, "unimplemented"),
    "unknown version": (pack(0, MESSAGE), {"connect_protocol_version": "2"}, "invalid_argument"),
    "long timeout": (pack(0, MESSAGE), {"connect_timeout_ms": "12345678901"}, "invalid_argument"),
    "expired": (pack(0, MESSAGE), {"connect_timeout_ms": "0"}, "deadline_exceeded"),
}


@pytest.mark.parametrize(("body", "headers", "code"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_stream_is_refused_in_its_end(
    wire: Wire, body: bytes, headers: dict[str, str], code: str
) -> None:
    answer = wire.ask(post(START, "application/connect+proto", body, **headers))
    assert answer.status == 200
    found, end = events(answer)
    assert (found, end["error"]["code"]) == ([], code)


def test_messages_of_a_stream_may_be_compressed_one_by_one(wire: Wire) -> None:
    for body in (pack(1, gzip.compress(MESSAGE)), pack(0, MESSAGE)):
        answer = wire.ask(post(START, "application/connect+proto", body, connect_content_encoding="gzip"))
        assert events(answer) == ([data(b"x")], {})


@pytest.mark.parametrize("form", FORMS)
def test_client_stream_is_read_to_its_end_and_answered_with_one_message(
    wire: Wire, site: Site, form: str
) -> None:
    messages = [
        process_pb2.StreamInputRequest(
            data=process_pb2.StreamInputRequest.DataEvent(input=process_pb2.ProcessInput(stdin=piece))
        )
        for piece in (b"a", b"", b"bc")
    ]
    for count in (3, 0):
        answer = stream(wire, STREAM, *messages[:count], form=form)
        (message, end) = Unpacker().feed(answer.body)
        assert message == (0, b"" if form == "proto" else b"{}")
        assert end == (2, b"{}")
        assert site.events.get(timeout=5) == ("abc" if count else "")


def test_client_stream_that_breaks_reaches_its_handler_as_an_error(wire: Wire) -> None:
    answer = wire.ask(post(STREAM, "application/connect+proto", pack(0, b"") + b"\0\0"))
    assert events(answer)[1]["error"]["code"] == "invalid_argument"


def test_deadline_ends_unary_calls_and_streams(wire: Wire, site: Site) -> None:
    request = process_pb2.SendInputRequest(process=process_pb2.ProcessSelector(tag="sleep"))
    began = time.monotonic()
    assert error(call(wire, SEND, request, connect_timeout_ms="100"))[:2] == (504, "deadline_exceeded")
    assert site.events.get(timeout=5) == "cancelled"
    found, end = events(stream(wire, START, start_request("wait"), connect_timeout_ms="100"))
    assert (found, end["error"]["code"]) == ([data(b"first")], "deadline_exceeded")
    assert site.events.get(timeout=5) == "closed"
    assert 0.2 <= time.monotonic() - began < 5


def test_deadline_of_a_client_stream_ends_the_wait_for_its_messages(wire: Wire, site: Site) -> None:
    wire.send(
        f"POST {STREAM} HTTP/1.1\r\nhost: h\r\ncontent-type: application/connect+proto\r\n"
        "transfer-encoding: chunked\r\nconnect-timeout-ms: 100\r\n\r\n".encode()
    )
    assert events(wire.answer())[1]["error"]["code"] == "deadline_exceeded"
    assert site.events.get(timeout=5) == "cancelled"


def test_handler_that_owns_its_deadline_ends_the_call_in_its_own_way(wire: Wire) -> None:
    answer = stream(wire, CONNECT, process_pb2.ConnectRequest(), connect_timeout_ms="100")
    assert events(answer)[1] == {"error": {"code": "deadline_exceeded", "message": "in its own words"}}
    answer = stream(wire, CONNECT, process_pb2.ConnectRequest(), connect_timeout_ms="0")
    assert events(answer)[1]["error"]["message"] != "in its own words"


def test_client_that_goes_away_ends_its_calls(server: Running, site: Site) -> None:
    request = process_pb2.SendInputRequest(process=process_pb2.ProcessSelector(tag="sleep"))
    with server.connect() as wire:
        wire.send(post(SEND, "application/proto", request.SerializeToString()))
        server.settle()
    assert site.events.get(timeout=5) == "cancelled"
    with server.connect() as wire:
        body = pack(0, start_request("wait").SerializeToString())
        wire.send(post(START, "application/connect+proto", body))
        wire.until(b"first")
    assert site.events.get(timeout=5) == "closed"
    with server.connect() as wire:
        wire.send(post(STREAM, "application/connect+proto", pack(0, b""), content_length="100"))
        server.settle()
    assert site.events.get(timeout=5) == "cancelled"


def test_connect_is_spoken_over_http2_as_well(server: Running) -> None:
    with Http2(server.port) as http2:
        answer = http2.ask("POST", LIST, headers={"content-type": "application/json"}, body=b"{}")
        assert answer.body == b'{"processes":[{"pid":7,"tag":"t"}]}'
        headers = {"content-type": "application/connect+proto"}
        answer = http2.ask("POST", START, headers=headers, body=pack(0, MESSAGE))
        assert answer.body == pack(0, data(b"x").SerializeToString()) + pack(2, b"{}")
