"""What clients may send, and pages in browsers, and clients that want to hold up the others."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import requests

from sandbox_local import LocalServer
from tests.raw_client import RawClient, Sandbox

_SECURED = {"secure": True}
_AS_ROOT = {"Authorization": "Basic " + base64.b64encode(b"root:").decode()}


@pytest.fixture(scope="module")
def client(server: LocalServer) -> RawClient:
    return RawClient.of(server)


@pytest.fixture(scope="module")
def box(client: RawClient) -> Iterator[Sandbox]:
    with client.create(timeout=300, **_SECURED) as box:
        yield box


def _exchange(client: RawClient, message: bytes) -> bytes:
    """What the server answers to bytes, until it closes."""
    url = urlsplit(client.url)
    with socket.create_connection((url.hostname or "", url.port or 0), timeout=10) as sock:
        sock.sendall(message)
        answer = b""
        while piece := sock.recv(1 << 16):
            answer += piece
        return answer


def _status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


_NOT_PATHS = ["a\0b", "/" + "x" * 300, "/x" * 4000, "~other/x", "\udc80"]


@pytest.mark.parametrize("path", _NOT_PATHS, ids=range(len(_NOT_PATHS)))
@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("Stat", ["path"]),
        ("ListDir", ["path"]),
        ("MakeDir", ["path"]),
        ("Remove", ["path"]),
        ("Move", ["source", "destination"]),
        ("CreateWatcher", ["path"]),
    ],
)
def test_what_is_no_path_is_refused_in_every_call(
    box: Sandbox, method: str, fields: list[str], path: str
) -> None:
    for field in fields:
        message = {**dict.fromkeys(fields, "/tmp"), field: path}
        answer = box.ask(
            "POST",
            f"/filesystem.Filesystem/{method}",
            data=json.dumps(message).encode(),
            headers={"Content-Type": "application/json"},
        )
        assert answer.status_code == 400, answer.text
        assert answer.json()["code"] == "invalid_argument"


def test_what_is_no_path_is_refused_over_http(box: Sandbox) -> None:
    for path in ("a%00b", "%2F" + "x" * 300, "~other/x", "%ff", "%ed%b2%80"):
        assert box.ask("GET", f"/files?path={path}").status_code == 400
        wrote = box.ask(
            "POST", f"/files?path={path}", data=b"x", headers={"Content-Type": "application/octet-stream"}
        )
        assert wrote.status_code == 400
    for name in ('"a%00b"', '"' + "x" * 300 + '"'):
        form = f'--B\r\nContent-Disposition: form-data; name="file"; filename={name}\r\n\r\nx\r\n--B--\r\n'
        wrote = box.ask(
            "POST", "/files", data=form.encode(), headers={"Content-Type": "multipart/form-data; boundary=B"}
        )
        assert wrote.status_code == 400
    for paths in ({"source_paths": ["a\0b"]}, {"destination": "a\0b"}):
        composed = box.ask(
            "POST", "/files/compose", json={"source_paths": ["a"], "destination": "b", **paths}
        )
        assert composed.status_code == 400


def test_dots_lead_to_the_sandboxs_own_root(box: Sandbox) -> None:
    for path in (
        "../../../../../../../../etc/passwd",
        "%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/../../etc/passwd",
    ):
        answer = box.ask("GET", f"/files?path={path}")
        assert answer.status_code == 200
        assert "user:x:1000" in answer.text


_LEADS = [
    *("{}", "/{up}{}", "{up}{}", "top{}", "agent{}", "own{}"),
    *("/proc/self/root{}", "/proc/thread-self/cwd/{up}{}"),
]


@pytest.mark.parametrize("lead", _LEADS, ids=range(len(_LEADS)))
def test_no_path_field_of_any_call_leads_to_the_host(box: Sandbox, tmp_path: Path, lead: str) -> None:
    """Absolute, by dots, by links of the sandbox, by magic links: read, written, moved, removed, watched."""
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    box.run("cd; ln -sfn / top; ln -sfn /proc/1/root agent; ln -sfn /proc/self/root own; echo x > mine")
    file, made = (lead.format(path, up="../" * 40) for path in (secret, tmp_path / "made"))
    form = f'--B\r\nContent-Disposition: form-data; name="file"; filename="{made}"\r\n\r\nx\r\n--B--\r\n'
    octets, parts = "application/octet-stream", "multipart/form-data; boundary=B"
    calls: list[tuple[str, str, Any, str]] = [
        ("GET", f"/files?path={quote(file)}", None, octets),
        ("POST", f"/files?path={quote(file)}", b"x", octets),
        ("POST", f"/files?path={quote(made)}", b"x", octets),
        ("POST", "/files", form.encode(), parts),
        ("POST", "/files/compose", {"source_paths": [file], "destination": "taken"}, ""),
        ("POST", "/files/compose", {"source_paths": ["mine"], "destination": made}, ""),
        *(
            ("POST", f"/filesystem.Filesystem/{method}", fields, "")
            for method, fields in [
                ("Stat", {"path": file}),
                ("ListDir", {"path": file.removesuffix("/secret"), "depth": 3}),
                ("MakeDir", {"path": made + "/deep"}),
                ("Move", {"source": file, "destination": "taken"}),
                ("Move", {"source": "mine", "destination": made + "/moved"}),
                ("CreateWatcher", {"path": file.removesuffix("/secret")}),
                ("Remove", {"path": file}),
                ("Remove", {"path": file.removesuffix("/secret")}),
            ]
        ),
    ]
    for method, path, body, kind in calls:
        content = json.dumps(body).encode() if isinstance(body, dict) else body
        answer = box.ask(
            method, path, data=content, headers={"Content-Type": kind or "application/json", **_AS_ROOT}
        )
        assert answer.status_code < 501, (path, answer.text)
        assert b"of the host" not in answer.content, path
        assert os.listdir(tmp_path) == ["secret"], path
        assert secret.read_text() == "of the host", path
    assert "of the host" not in box.run("cat ~/taken 2>&1 || true", "root")


def test_the_token_of_one_sandbox_opens_no_other(client: RawClient, box: Sandbox) -> None:
    with client.create(**_SECURED) as other:
        token = other.made["envdAccessToken"]
        for wrong in (
            token,
            "",
            token[:-1],
            box.made["envdAccessToken"][:-1],
            box.made["envdAccessToken"] + "x",
        ):
            headers = {"X-Access-Token": wrong}
            for method, path in (
                ("GET", "/files?path=x"),
                ("GET", "/metrics"),
                ("POST", "/process.Process/List"),
            ):
                assert box.ask(method, path, headers=headers).status_code == 401


def _signature(path: str, operation: str, user: str, token: str, expiration: int | None = None) -> str:
    parts = [path, operation, user, token, *([] if expiration is None else [str(expiration)])]
    digest = hashlib.sha256(":".join(parts).encode()).digest()
    return "v1_" + base64.b64encode(digest).decode().rstrip("=")


def test_a_signature_is_good_for_what_it_says_only(client: RawClient, box: Sandbox) -> None:
    token = str(box.made["envdAccessToken"])
    box.run("echo mine > ~/f; cp ~/f ~/g")
    later, before = int(time.time()) + 60, int(time.time()) - 1

    def ask(method: str, path: str, user: str, signed: str, expiration: int | None = None) -> int:
        query = {"path": path, "username": user, "signature": signed}
        if expiration is not None:
            query["signature_expiration"] = str(expiration)
        headers = {
            "E2b-Sandbox-Id": box.id,
            "E2b-Sandbox-Port": "49983",
            "Content-Type": "application/octet-stream",
        }
        url = client.url + "/files"
        return requests.request(method, url, params=query, headers=headers, data=b"x", timeout=30).status_code

    good = _signature("f", "read", "user", token, later)
    assert ask("GET", "f", "user", good, later) == 200
    assert ask("GET", "f", "user", good, later) == 200, "a link may be used again until it expires"
    assert ask("GET", "g", "user", good, later) == 401
    assert ask("GET", "f", "root", good, later) == 401
    assert ask("POST", "f", "user", good, later) == 401
    assert ask("GET", "f", "user", good, later + 1) == 401
    assert ask("GET", "f", "user", good) == 401
    assert ask("GET", "f", "user", good[:-1], later) == 401
    assert ask("GET", "f", "user", _signature("f", "read", "user", token, before), before) == 401
    assert ask("GET", "f", "user", _signature("f", "read", "user", token[::-1], later), later) == 401


def test_closed_ports_want_their_own_token(client: RawClient) -> None:
    with client.create(**_SECURED, network={"allowPublicTraffic": False}) as closed:
        for headers in ({}, {"E2b-Traffic-Access-Token": "x"}, {"E2b-Traffic-Access-Token": "\xff"}):
            assert closed.ask("GET", "/", port=8000, headers=headers).status_code == 403


def test_the_control_plane_wants_its_key_from_everybody(client: RawClient) -> None:
    """A page in a browser has no key, whatever name it has given to this machine."""
    host = urlsplit(client.url).netloc
    for named in (
        host,
        "localhost",
        "evil.example",
        "evil.example.",
        "127.0.0.1.evil.example:80",
        "a" * 5000,
    ):
        for key in ("", "X-API-Key: e2b_wrong\r\n", "X-API-Key: \r\n"):
            answer = _exchange(
                client,
                f"GET /v2/sandboxes HTTP/1.1\r\nHost: {named}\r\n{key}Connection: close\r\n\r\n".encode(),
            )
            assert _status(answer) == 401
            assert b"sandboxID" not in answer


def test_the_control_plane_is_not_open_to_pages_of_other_origins(client: RawClient) -> None:
    for method in ("OPTIONS", "GET", "POST"):
        answer = requests.request(
            method,
            client.url + "/v2/sandboxes",
            headers={
                "Origin": "https://evil.example",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "x-api-key",
            },
            timeout=30,
        )
        assert answer.status_code in (401, 405)
        assert not any(name.lower().startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    "host",
    [
        *("49983-{id}@evil", "user:pass@49983-{id}.x", "49983-{id}%00.x", "0-{id}.x", "99999-{id}.x"),
        *("49983-{ID}.x", "49983-.x", "49983-{id}x.y", "49983-{id}/../x", "\uff14\uff19983-{id}.x"),
    ],
)
def test_a_host_that_names_no_sandbox_reaches_none(client: RawClient, box: Sandbox, host: str) -> None:
    named = host.format(id=box.id, ID=box.id.upper()).encode()
    answer = _exchange(client, b"GET /health HTTP/1.1\r\nHost: " + named + b"\r\nConnection: close\r\n\r\n")
    assert _status(answer) in (204, 400, 502)
    if _status(answer) == 204:
        assert b"no-store" not in answer, "that is the sandbox's own answer"


_NUMBERS = ["NaN", "Infinity", "-Infinity", "1e400", "9" * 400, "-1", "1.5", "true", '"60"', "[]", "9" * 5000]


@pytest.mark.parametrize("number", _NUMBERS, ids=range(len(_NUMBERS)))
def test_numbers_that_are_none_are_bad_requests(client: RawClient, number: str) -> None:
    body = f'{{"templateID": "base", "timeout": {number}}}'
    headers = {"Content-Type": "application/json"}
    assert client.ask("POST", "/v2/sandboxes", data=body.encode(), headers=headers).status_code == 400


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b"\0", b'"' + b"x" * (9 << 20)]
)
def test_bodies_that_are_no_json_are_bad_requests(client: RawClient, body: bytes) -> None:
    answer = client.ask("POST", "/v2/sandboxes", data=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 413)


@pytest.mark.parametrize("codec", ["json", "proto"])
def test_messages_nested_without_end_are_bad_requests(box: Sandbox, codec: str) -> None:
    """Where a message may hold anything, in fields that nobody knows, it still has a bounded depth."""
    depth = 100_000
    if codec == "json":
        message = b'{"path": "/tmp", "x": ' + b'{"x": ' * depth + b"1" + b"}" * depth + b"}"
    else:
        message = b"\x0a\x04/tmp" + b"\x7b" * depth + b"\x7c" * depth  # field 15, as groups in groups
    answer = box.ask(
        "POST",
        "/filesystem.Filesystem/Stat",
        data=message,
        headers={"Content-Type": f"application/{codec}"},
    )
    assert answer.status_code == 400, answer.text
    assert answer.json()["code"] == "invalid_argument"
    assert box.run("echo here") == "here\n"


def test_thousands_of_idle_and_slow_connections_hold_up_nobody(client: RawClient, box: Sandbox) -> None:
    """Idle ones, heads that are not complete, and uploads that do not go on."""
    url = urlsplit(client.url)
    upload = (
        "POST /files?path=stalled HTTP/1.1\r\nHost: x\r\nE2b-Sandbox-Port: 49983\r\n"
        f"E2b-Sandbox-Id: {box.id}\r\n"
        f"X-Access-Token: {box.made['envdAccessToken']}\r\nContent-Type: application/octet-stream\r\n"
        "Content-Length: 99\r\n\r\nx"
    ).encode()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for number in range(3000):
            sock = socket.create_connection((url.hostname or "", url.port or 0), timeout=10)
            stack.enter_context(sock)
            if number % 30 == 0:
                sock.sendall(b"GET / HTTP/1.1\r\nHos")
            elif number % 30 == 1:
                sock.sendall(upload)
        started = time.monotonic()
        assert box.run("echo ok") == "ok\n"
        assert client.ask("GET", "/v2/sandboxes").status_code == 200
        assert time.monotonic() - started < 5
