"""Connections that the server gives up, and what the environment must not add to requests."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from sandbox_sync_rest.api.envd import get_files, post_files
from sandbox_sync_rest.api.sandboxes import get_v2_sandboxes, post_v2_sandboxes
from sandbox_sync_rest.models.new_sandbox_v2 import NewSandboxV2
from sandbox_sync_rpc import process_pb2 as pb

from sandbox_sync import errors
from sandbox_sync.config import ConnectionConfig
from sandbox_sync.transport.envd import EnvdConnection
from sandbox_sync.transport.files import octets
from sandbox_sync.transport.rest import ControlPlane
from tests.unit.wire_server import END, STREAM_HEAD, Peer, Received, answering, chunk, frame, scripted

CHANGING = {"host", "connect-timeout-ms"}
"""Headers that are not the same in every run."""


def create(config: ConnectionConfig, nonce: str) -> object:
    plane = ControlPlane(config).within()
    return plane.send(post_v2_sandboxes.build(body=NewSandboxV2(template_id=nonce)))


def send_input(config: ConnectionConfig, nonce: str) -> object:
    envd = EnvdConnection(config, "i1")
    request = pb.SendInputRequest()
    request.process.tag = nonce
    return envd.unary(envd.process.SendInput, request)


def start(config: ConnectionConfig, nonce: str) -> object:
    envd = EnvdConnection(config, "i1")
    return list(envd.stream(envd.process.Start, pb.StartRequest(tag=nonce)))


def upload(config: ConnectionConfig, nonce: str) -> object:
    payload = octets(iter([nonce.encode()]))  # which can be read only once
    return EnvdConnection(config, "i1").upload(post_files.build(path="/a"), payload)


POSTS: dict[str, Callable[[ConnectionConfig, str], object]] = {
    "create without a key": create,
    "input": send_input,
    "start": start,
    "upload": upload,
}
every_post = pytest.mark.parametrize("post", POSTS.values(), ids=POSTS.keys())


def config_for(url: str) -> ConnectionConfig:
    return ConnectionConfig.resolve(api_key="k", api_url=url, sandbox_url=url, request_timeout=10)


def serve(peer: Peer, request: Received) -> None:
    if request.target.endswith(("/SendInput", "/List")):
        peer.answer(200, content_type="application/proto")
    elif request.target.endswith("/Start"):
        peer.send(STREAM_HEAD + chunk(frame(b"")) + chunk(END) + b"0\r\n\r\n")
    elif request.target.startswith("/files") and request.method == "GET":
        peer.answer(200, b"content")
    else:
        peer.answer(200, b"[]")


@every_post
def test_a_server_that_drops_idle_connections(post: Callable[[ConnectionConfig, str], object]) -> None:
    """G45: twenty times as fast as in its words: idle for 50 ms, called 40 times; each POST is seen once."""

    def drop_when_idle(peer: Peer) -> None:
        while True:
            request = peer.receive()
            if request is None:
                return
            server.requests.append(request)
            serve(peer, request)
            peer.sock.settimeout(0.05)
            try:
                peer.sock.recv(1)  # the client has nothing to say before the connection is dropped
            except TimeoutError:
                return

    with scripted(drop_when_idle) as server:
        for number in range(40):
            post(config_for(server.url), f"nonce-{number:02}")
            assert server.ended.acquire(timeout=10)
        bodies = b"".join(request.body for request in server.requests)
        assert len(server.requests) == 40
        assert {bodies.count(f"nonce-{number:02}".encode()) for number in range(40)} == {1}


@every_post
@pytest.mark.parametrize("end", [Peer.close, Peer.reset], ids=["closed", "reset"])
@pytest.mark.parametrize("fresh", [True, False], ids=["on a new connection", "on a used one"])
def test_a_request_that_was_received_is_not_sent_again(
    post: Callable[[ConnectionConfig, str], object], end: Callable[[Peer], None], fresh: bool
) -> None:
    """G45: the error says that it may have been executed."""
    seen: Counter[str] = Counter()

    def respond(peer: Peer, request: Received) -> None:
        if request.method == "GET":
            peer.answer(200, b"[]")
        else:
            seen["post"] += 1
            end(peer)

    with answering(respond) as server:
        config = config_for(server.url)
        if not fresh:
            ControlPlane(config).within().send(get_v2_sandboxes.build())
        with pytest.raises(errors.ConnectionException) as caught:
            post(config, "nonce")
        assert caught.value.maybe_executed
        assert seen["post"] == 1


def test_a_netrc_changes_nothing_on_any_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """G49: with a `default` entry, headers equal ours byte for byte."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("default login thief password stolen\nmachine 127.0.0.1 login thief password stolen\n")
    netrc.chmod(0o600)

    def headers_of_everything() -> list[dict[str, str]]:
        with answering(serve) as server:
            config = config_for(server.url)
            envd = EnvdConnection(config, "i1")
            ControlPlane(config).within().send(get_v2_sandboxes.build())
            envd.unary(envd.process.List, pb.ListRequest())
            envd.unary(envd.process.List, pb.ListRequest(), user="root")
            envd.download(get_files.build(path="/a")).read()
            envd.is_healthy()
            for post in POSTS.values():
                post(config, "nonce")
            return [
                {name: value for name, value in request.headers.items() if name not in CHANGING}
                for request in server.requests
            ]

    for name in ("HOME", "NETRC"):
        monkeypatch.setenv(name, os.devnull)
    before = headers_of_everything()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    assert headers_of_everything() == before
    assert [headers["authorization"] for headers in before if "authorization" in headers] == [
        "Basic cm9vdDo="
    ]
