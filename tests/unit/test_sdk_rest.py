"""The control plane: what is sent, what is repeated, and what a failure becomes."""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sandbox_sync_rest.api.sandboxes import (
    delete_sandboxes_sandbox_id,
    get_sandboxes_sandbox_id,
    get_v2_sandboxes,
    post_sandboxes_sandbox_id_timeout,
    post_v2_sandboxes,
)
from sandbox_sync_rest.models.new_sandbox_v2 import NewSandboxV2

from sandbox_sync import errors
from sandbox_sync.config import ConnectionConfig
from sandbox_sync.transport.rest import ControlPlane
from tests.unit.wire_server import Peer, Received, WireServer, answering, chunk, scripted

CREATED = json.dumps(
    {"sandboxID": "i1", "templateID": "base", "clientID": "c", "envdVersion": "0.6.13"}
).encode()
NEW = NewSandboxV2(template_id="base")


def plane_at(server: WireServer, **options: object) -> ControlPlane:
    settings = {"api_key": "e2b_secret", "api_url": server.url, **options}
    return ControlPlane(ConnectionConfig.resolve(**settings))  # type: ignore[arg-type]


def statuses(*answers: int, **headers: str) -> Callable[[Peer, Received], None]:
    """Answer with one status after the other."""
    left = iter(answers)

    def respond(peer: Peer, request: Received) -> None:
        status = next(left)
        body = CREATED if status == 201 else b'{"code":0,"message":"said the server"}'
        peer.answer(status, b"" if status == 204 else body, **headers)

    return respond


def test_a_request_on_the_wire() -> None:
    with answering(statuses(201)) as server:
        client = plane_at(server, headers={"X-Extra": "yes"}).within(5, idempotency_key="key-1")
        created = post_v2_sandboxes.call(client, body=NEW)
        assert created is not None
        assert created.sandbox_id == "i1"
    (request,) = server.requests
    assert (request.method, request.target) == ("POST", "/v2/sandboxes")
    assert json.loads(request.body) == {"templateID": "base"}
    headers = request.headers
    assert headers["x-api-key"] == "e2b_secret"
    assert headers["idempotency-key"] == "key-1"
    assert headers["x-extra"] == "yes"
    assert headers["content-type"] == "application/json"
    assert headers["accept-encoding"] == "identity"
    assert headers["user-agent"].startswith("sandbox-sync/")
    assert headers["lang"] == "python"


def test_a_base_url_with_a_path_is_kept() -> None:
    with answering(statuses(200)) as server:
        client = plane_at(server, api_url=f"{server.url}/gateway/e2b/").within(5)
        client.send(get_v2_sandboxes.build(state=["running", "paused"], metadata="a%20b=c"))
    assert (
        server.requests[0].target == "/gateway/e2b/v2/sandboxes?metadata=a%2520b%3Dc&state=running%2Cpaused"
    )


def test_a_sandbox_id_cannot_leave_its_place_in_the_path() -> None:
    with answering(statuses(204)) as server:
        delete_sandboxes_sandbox_id.call(plane_at(server).within(5), "../x/y?z#")
    assert server.requests[0].target == "/sandboxes/..%2Fx%2Fy%3Fz%23"


def test_create_is_repeated_with_one_key_until_it_works() -> None:
    """G21: the same Idempotency-Key on every attempt of one create."""
    with answering(statuses(504, 503, 201)) as server:
        assert post_v2_sandboxes.call(plane_at(server).within(30, idempotency_key="k1"), body=NEW) is not None
    assert [request.headers["idempotency-key"] for request in server.requests] == ["k1"] * 3
    assert len({request.body for request in server.requests}) == 1


def test_a_post_without_a_key_is_not_repeated() -> None:
    with answering(statuses(504, 201)) as server:
        with pytest.raises(errors.SandboxException) as caught:
            post_v2_sandboxes.call(plane_at(server).within(30), body=NEW)
        assert caught.value.maybe_executed
        assert len(server.requests) == 1


def test_a_post_that_is_said_to_be_repeatable_is() -> None:
    with answering(statuses(502, 204)) as server:
        client = plane_at(server).within(30, sandbox_id="i1", repeatable=True)
        client.send(post_sandboxes_sandbox_id_timeout.build("i1"))
        assert len(server.requests) == 2


def test_a_kill_whose_first_answer_was_lost_says_so() -> None:
    """G59: 404 after a 502 may mean that the first attempt worked."""
    with answering(statuses(502, 404)) as server:
        with pytest.raises(errors.SandboxNotFoundException) as caught:
            delete_sandboxes_sandbox_id.call(plane_at(server).within(30, sandbox_id="i1"), "i1")
        assert caught.value.maybe_executed
    with answering(statuses(404)) as server:
        with pytest.raises(errors.SandboxNotFoundException) as caught:
            delete_sandboxes_sandbox_id.call(plane_at(server).within(30, sandbox_id="i1"), "i1")
        assert not caught.value.maybe_executed


def test_retry_after_is_waited_for() -> None:
    """G20."""
    with answering(statuses(429, 200, retry_after="1")) as server:
        begin = time.monotonic()
        plane_at(server).within(5).send(get_v2_sandboxes.build())
        assert 1.0 <= time.monotonic() - begin < 2.0


def test_a_wait_that_does_not_fit_is_not_begun() -> None:
    """G20: raise at once, with the time to come back."""
    with answering(statuses(429, retry_after="30")) as server:
        begin = time.monotonic()
        with pytest.raises(errors.RateLimitException) as caught:
            plane_at(server).within(5).send(get_v2_sandboxes.build())
        assert time.monotonic() - begin < 1.0
    assert caught.value.retry_after == 30.0


def test_not_found_is_a_sandbox_that_was_asked_for_by_id() -> None:
    with answering(statuses(404, 404)) as server:
        plane = plane_at(server)
        with pytest.raises(errors.SandboxNotFoundException) as caught:
            plane.within(5, sandbox_id="i1").send(get_sandboxes_sandbox_id.build("i1"))
        assert caught.value.sandbox_id == "i1"
        with pytest.raises(errors.NotFoundException) as other:
            plane.within(5).send(get_v2_sandboxes.build())
        assert type(other.value) is errors.NotFoundException


def test_a_redirect_is_not_followed_with_the_key() -> None:
    """G46: neither the key nor an emptied body goes where a redirect points."""
    with answering(statuses(200)) as elsewhere, answering(statuses(307, location=elsewhere.url)) as server:
        with pytest.raises(errors.SandboxException) as caught:
            post_v2_sandboxes.call(plane_at(server).within(5), body=NEW)
        assert caught.value.status == 307
        assert elsewhere.requests == []


def test_one_clock_runs_for_all_requests_of_a_call() -> None:
    """G4: retries and several requests share request_timeout."""

    def slow(peer: Peer, request: Received) -> None:
        time.sleep(0.3)
        peer.answer(200, b"[]")

    with answering(slow) as server:
        client = plane_at(server).within(0.8)
        begin = time.monotonic()
        client.send(get_v2_sandboxes.build())
        client.send(get_v2_sandboxes.build())
        with pytest.raises(errors.RequestTimeoutException) as caught:
            client.send(get_v2_sandboxes.build())
        assert 0.8 <= time.monotonic() - begin < 1.3
    assert caught.value.limit == 0.8


def test_the_configured_request_timeout_is_the_default() -> None:
    with scripted(lambda peer: peer.wait_for_end()) as server:
        begin = time.monotonic()
        with pytest.raises(errors.RequestTimeoutException) as caught:
            plane_at(server, request_timeout=0.4).within().send(get_v2_sandboxes.build())
        assert 0.4 <= time.monotonic() - begin < 0.9
    assert "`request_timeout` (0.4 s)" in str(caught.value)


def test_nothing_of_the_libraries_comes_out_when_nobody_listens() -> None:
    config = ConnectionConfig.resolve(api_key="k", api_url="http://127.0.0.1:1")
    with pytest.raises(errors.ConnectionException, match="refused") as caught:
        ControlPlane(config).within(2).send(get_v2_sandboxes.build())
    assert caught.value.__cause__ is None
    assert not caught.value.maybe_executed


@pytest.mark.parametrize("key", ["e2b_secret\r\nx: y", "e2b_secret\u20ac"])
def test_a_key_that_cannot_be_sent_is_refused_without_being_shown(key: str) -> None:
    with answering(statuses(200)) as server, pytest.raises(errors.InvalidArgumentException) as caught:
        plane_at(server, api_key=key).within(5).send(get_v2_sandboxes.build())
    assert "e2b_secret" not in str(caught.value)


def test_a_key_that_the_server_quotes_is_not_in_the_error() -> None:
    def respond(peer: Peer, request: Received) -> None:
        peer.answer(401, json.dumps({"message": f"no such key: {request.headers['x-api-key']}"}).encode())

    with (
        answering(respond) as server,
        pytest.raises(errors.AuthenticationException, match=r"\*\*\*") as caught,
    ):
        plane_at(server).within(5).send(get_v2_sandboxes.build())
    assert "e2b_secret" not in str(caught.value)


def test_the_request_id_of_the_service_is_in_the_error() -> None:
    with (
        answering(statuses(500, x_request_id="req-7")) as server,
        pytest.raises(errors.SandboxException) as caught,
    ):
        plane_at(server).within(5).send(get_v2_sandboxes.build())
    assert caught.value.request_id == "req-7"
    assert "said the server" in str(caught.value)


def test_netrc_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """G49: headers are ours byte for byte."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login thief password stolen\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    os.link(netrc, tmp_path / ".netrc")
    with answering(statuses(200)) as server:
        plane_at(server).within(5).send(get_v2_sandboxes.build())
    assert "authorization" not in server.requests[0].headers


def test_cookies_are_not_kept() -> None:
    """G16: nothing of one caller's session reaches another's."""
    with answering(statuses(200, 200, set_cookie="session=1; Path=/")) as server:
        plane = plane_at(server)
        for _ in range(2):
            plane.within(5).send(get_v2_sandboxes.build())
    assert "cookie" not in server.requests[1].headers


def test_answers_are_read_however_they_are_sent() -> None:
    packed = gzip.compress(b"[]")
    answers = [
        b"content-length: 2\r\n\r\n[]",
        b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n%b" % (len(packed), packed),
        b"transfer-encoding: chunked\r\n\r\n" + chunk(b"[") + chunk(b"]") + b"0\r\n\r\n",
        b"content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(packed) + b"0\r\n\r\n",
    ]
    left = iter(answers)
    with answering(lambda peer, request: peer.send(b"HTTP/1.1 200 OK\r\n" + next(left))) as server:
        for _ in answers:
            assert plane_at(server).within(5).send(get_v2_sandboxes.build()).json() == []
