"""What the generated operations put on the wire."""

import datetime
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl, unquote

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sandbox_sync_rest.api.envd import get_files, post_files, post_files_compose
from sandbox_sync_rest.api.sandboxes import (
    delete_sandboxes_sandbox_id,
    get_sandboxes_metrics,
    get_sandboxes_sandbox_id,
    get_v2_sandboxes,
    post_sandboxes_sandbox_id_pause,
    post_v2_sandboxes,
    put_sandboxes_sandbox_id_network,
)
from sandbox_sync_rest.client import Request, pairs, segment
from sandbox_sync_rest.models.compose_request import ComposeRequest
from sandbox_sync_rest.models.new_sandbox_v2 import NewSandboxV2
from sandbox_sync_rest.models.sandbox_egress_proxy_config import SandboxEgressProxyConfig
from sandbox_sync_rest.models.sandbox_network_config import SandboxNetworkConfig
from sandbox_sync_rest.models.sandbox_network_update_config import SandboxNetworkUpdateConfig

NOON = datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.timezone.utc)


@pytest.mark.parametrize(
    ("operation", "arguments", "keywords", "expected"),
    [
        (
            get_sandboxes_sandbox_id,
            ["i1"],
            {},
            Request("get_sandboxes_sandbox_id", "GET", "/sandboxes/i1"),
        ),
        (
            get_v2_sandboxes,
            [],
            {"state": ["running", "paused"], "limit": 5, "started_after": NOON, "metadata": "a=b%20c&d=e"},
            Request(
                "get_v2_sandboxes",
                "GET",
                "/v2/sandboxes",
                params=[
                    ("metadata", "a=b%20c&d=e"),
                    ("state", "running,paused"),
                    ("startedAfter", "2026-11-23T12:00:00+00:00"),
                    ("limit", "5"),
                ],
            ),
        ),
        (
            get_sandboxes_metrics,
            [],
            {"sandbox_ids": ["i1", "i2"]},
            Request("get_sandboxes_metrics", "GET", "/sandboxes/metrics", params=[("sandbox_ids", "i1,i2")]),
        ),
        (
            post_v2_sandboxes,
            [],
            {"body": NewSandboxV2(template_id="base"), "idempotency_key": "k-1"},
            Request(
                "post_v2_sandboxes",
                "POST",
                "/v2/sandboxes",
                headers={"Idempotency-Key": "k-1"},
                json={"templateID": "base"},
            ),
        ),
        (
            post_sandboxes_sandbox_id_pause,
            ["i1"],
            {},
            Request("post_sandboxes_sandbox_id_pause", "POST", "/sandboxes/i1/pause"),
        ),
        (
            get_files,
            [],
            {"path": "a b/ü", "signature": "v1_+/", "signature_expiration": 7},
            Request(
                "get_files",
                "GET",
                "/files",
                params=[("path", "a b/ü"), ("signature", "v1_+/"), ("signature_expiration", "7")],
            ),
        ),
        (
            post_files_compose,
            [],
            {"body": ComposeRequest(source_paths=["a", "b"], destination="c")},
            Request(
                "post_files_compose",
                "POST",
                "/files/compose",
                json={"source_paths": ["a", "b"], "destination": "c"},
            ),
        ),
    ],
    ids=lambda value: value.__name__.rpartition(".")[2] if isinstance(value, ModuleType) else "",
)
def test_an_operation_makes_the_request_of_the_contract(
    operation: Any, arguments: list[Any], keywords: dict[str, Any], expected: Request
) -> None:
    assert operation.build(*arguments, **keywords) == expected


@given(st.text(min_size=1).filter(lambda value: value not in (".", "..")))
def test_any_id_stays_one_segment_of_the_path(value: str) -> None:
    try:
        encoded = segment("sandboxID", value)
    except UnicodeEncodeError:
        assert any("\ud800" <= character <= "\udfff" for character in value)
        return
    assert unquote(encoded) == value
    assert not set(encoded) & set("/?#;@: \\")
    assert encoded.isascii()


@pytest.mark.parametrize("value", ["", ".", ".."])
def test_an_id_that_would_name_another_path_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="sandboxID cannot be"):
        delete_sandboxes_sandbox_id.build(value)


def test_a_time_without_an_offset_is_refused() -> None:
    with pytest.raises(ValueError, match="has no UTC offset"):
        get_v2_sandboxes.build(started_after=NOON.replace(tzinfo=None))


def test_values_are_written_as_the_wire_wants_them() -> None:
    written = pairs(("yes", True), ("no", False), ("zero", 0), ("empty", ""), ("none", None), ("pi", 3.5))
    assert written == [("yes", "true"), ("no", "false"), ("zero", "0"), ("empty", ""), ("pi", "3.5")]


def test_unset_fields_are_not_sent_and_null_is_sent_only_where_the_contract_knows_it() -> None:
    body = NewSandboxV2(template_id="base", network=None, allow_internet_access=None, mcp=None)
    assert body.to_wire() == {"templateID": "base", "mcp": None}
    cleared = put_sandboxes_sandbox_id_network.build(
        "i1", body=SandboxNetworkUpdateConfig(egress_proxy=None, allow_out=[], rules=None)
    )
    assert cleared.json == {"egressProxy": None, "allowOut": []}


def test_defaults_are_known_and_not_sent() -> None:
    body = NewSandboxV2(template_id="base")
    assert (body.timeout, body.auto_pause, body.auto_pause_memory) == (300, False, True)
    assert body.to_wire() == {"templateID": "base"}


def test_nested_objects_follow_the_same_rules() -> None:
    proxy = SandboxEgressProxyConfig(address="proxy:1080", username=None)
    body = NewSandboxV2(template_id="base", network=SandboxNetworkConfig(egress_proxy=proxy))
    assert body.to_wire() == {"templateID": "base", "network": {"egressProxy": {"address": "proxy:1080"}}}


@pytest.mark.parametrize(
    "wire",
    [
        {},
        {"templateID": None},
        {"templateID": "base", "timeout": -1},
        {"templateID": "base", "timeout": 2**31},
        {"templateID": "base", "timeout": None},
        {"templateID": "base", "metadata": {"a": 1}},
        {"templateID": "base", "volumeMounts": [{"name": "v"}]},
        {"templateID": "base", "network": {"egressProxy": {"address": "a", "username": "u" * 256}}},
    ],
)
def test_a_request_that_breaks_the_contract_is_refused(wire: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NewSandboxV2.model_validate(wire)


def test_no_representation_shows_a_secret() -> None:
    proxy = SandboxEgressProxyConfig(address="proxy:1080", password="s3cret")
    body = NewSandboxV2.model_validate(
        {"templateID": "base", "envVars": {"TOKEN": "s3cret"}, "newSecret": "s3cret"}
    )
    body.network = SandboxNetworkConfig(egress_proxy=proxy)
    request = post_v2_sandboxes.build(body=body, idempotency_key="k")
    signed = get_files.build(path="a", signature="s3cret")
    for text in map(repr, (proxy, body, request, signed)):
        assert "s3cret" not in text
    with pytest.raises(ValidationError) as caught:
        NewSandboxV2.model_validate({"templateID": ["s3cret"], "envVars": ["s3cret"]})
    assert "s3cret" not in str(caught.value)


class Recorder(BaseHTTPRequestHandler):
    """Answers every request as if a sandbox had been made, and keeps its line, headers and body."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, Any, bytes]]

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.append((self.command, self.path, self.headers, body))
        answer = json.dumps({"sandboxID": "i1"}).encode() if self.command == "POST" else b""
        self.send_response(201 if answer else 204)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_DELETE = do_PUT = answer

    def log_message(self, *arguments: object) -> None:
        """Keep the test's output clean."""


class SessionClient:
    """The least a client can be."""

    def __init__(self, session: requests.Session, url: str) -> None:
        self.session = session
        self.url = url

    def send(self, request: Request) -> requests.Response:
        return self.session.request(
            request.method,
            self.url + request.path,
            params=request.params,
            headers=request.headers,
            json=request.json,
            timeout=10,
        )


@pytest.fixture
def wire() -> Iterator[tuple[SessionClient, list[tuple[str, str, Any, bytes]]]]:
    seen: list[tuple[str, str, Any, bytes]] = []
    handler = type("Handler", (Recorder,), {"seen": seen})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, requests.Session() as session:
        session.trust_env = False
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield SessionClient(session, f"http://127.0.0.1:{server.server_port}"), seen
        server.shutdown()


def test_a_call_crosses_a_real_connection_unchanged(wire: Any) -> None:
    client, seen = wire
    made = post_v2_sandboxes.call(client, body=NewSandboxV2(template_id="ü"), idempotency_key="k-1")
    assert made is not None
    assert made.sandbox_id == "i1"
    [(method, path, headers, body)] = seen
    assert (method, path, headers["Idempotency-Key"]) == ("POST", "/v2/sandboxes", "k-1")
    assert json.loads(body) == {"templateID": "ü"}


@pytest.mark.parametrize("odd", ["a/../b", "%2e%2e", "?x=1#y", "ü ö", "..%2f..", "a\\b"])
def test_an_odd_id_reaches_the_server_as_one_segment(wire: Any, odd: str) -> None:
    client, seen = wire
    delete_sandboxes_sandbox_id.call(client, odd)
    [(method, path, _, body)] = seen
    assert (method, body) == ("DELETE", b"")
    parts = path.split("/")
    assert parts[:2] == ["", "sandboxes"]
    assert len(parts) == 3
    assert unquote(parts[2]) == odd


def test_query_values_reach_the_server_unchanged(wire: Any) -> None:
    client, seen = wire
    client.send(post_files.build(path="dir with space/ü+&=%.txt", username="me", signature="v1_a+/b"))
    [(_, path, _, _)] = seen
    assert parse_qsl(path.partition("?")[2]) == [
        ("path", "dir with space/ü+&=%.txt"),
        ("username", "me"),
        ("signature", "v1_a+/b"),
    ]
