"""The control plane and the ports of real sandboxes."""

from __future__ import annotations

import base64
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import requests

from sandbox_local import LocalServer
from tests.processes import command, first_process, is_running, pids
from tests.raw_client import RawClient, RpcError, Sandbox

# An echo in the sandbox's own Python: /upper for HTTP, and for a tunnel after an upgrade.
ECHO = """
import http.server, sys
class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).upper()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.send_response(101)
        self.send_header("Connection", "upgrade")
        self.send_header("Upgrade", "echo")
        self.end_headers()
        while data := self.rfile.readline():
            self.wfile.write(data.upper())
        self.close_connection = True
    def log_message(self, *args): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
server = Server(("127.0.0.1", int(sys.argv[1])), Echo)
print("ready", flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def client(server: LocalServer) -> RawClient:
    return RawClient.of(server)


@pytest.fixture
def sandbox(client: RawClient) -> Iterator[Sandbox]:
    with client.create() as made:
        yield made


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


@contextmanager
def echo(sandbox: Sandbox, port: int) -> Iterator[None]:
    """An echo server on a port of a sandbox."""
    put(sandbox, "echo.py", ECHO)
    events = sandbox.start(f"exec python3 echo.py {port}")
    while "data" not in next(events):
        pass
    yield
    events.close()


def put(sandbox: Sandbox, path: str, text: str) -> None:
    answer = sandbox.ask(
        "POST", "/files", params={"path": path, "username": "user"}, files={"file": ("file", text.encode())}
    )
    assert answer.status_code == 200, answer.text


def test_sandboxes_are_apart_from_each_other_and_from_this_machine(client: RawClient) -> None:
    with client.create() as one, client.create() as other:
        one.run("echo mine > /tmp/file; setsid sleep 100 >/dev/null 2>&1 &")
        assert other.run("cat /tmp/file 2>/dev/null || echo none") == "none\n"
        assert "sleep" not in other.run("cat /proc/[0-9]*/comm")
        assert not os.path.exists("/tmp/file")


def test_an_error_has_the_documented_shape(client: RawClient) -> None:
    for response, code in (
        (client.ask("GET", "/sandboxes/i00000000000000000000"), 404),
        (client.ask("GET", "/nothing"), 404),
        (client.ask("PATCH", "/v2/sandboxes"), 405),
        (client.ask("POST", "/v2/sandboxes", data="{"), 400),
        (client.ask("POST", "/v2/sandboxes", data=b"x" * (2 << 20)), 413),
        (client.ask("GET", "/volumes"), 501),
        (RawClient(client.url, "wrong").ask("GET", "/v2/sandboxes"), 401),
        (requests.get(client.url + "/v2/sandboxes", timeout=30), 401),
    ):
        assert response.status_code == code
        assert response.headers["content-type"] == "application/json"
        assert response.json()["code"] == code
        assert response.json()["message"]


def test_the_secret_key_is_wanted_by_the_control_plane_and_not_by_the_sandbox(
    client: RawClient, sandbox: Sandbox
) -> None:
    """A client sends a sandbox its own token and never the key of the account."""
    health = sandbox.ask("GET", "/health", headers={"X-Access-Token": ""})
    assert health.status_code == 204
    refused = sandbox.ask("GET", "/envs", headers={"X-Access-Token": "wrong", "X-API-Key": "wrong"})
    assert (refused.status_code, refused.json()["code"]) == (401, 401)
    assert sandbox.ask("GET", "/envs").json()["E2B_SANDBOX_ID"] == sandbox.id


def test_fifty_sandboxes_are_made_and_ended_at_once(client: RawClient) -> None:
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: client.create(), range(50)))
        ids = [sandbox.id for sandbox in made]
        assert len(set(ids)) == 50
        assert list(pool.map(lambda sandbox: sandbox.run("echo $E2B_SANDBOX_ID").strip(), made)) == ids
        codes = pool.map(lambda sandbox: client.ask("DELETE", sandbox.path).status_code, made)
        assert set(codes) == {204}


def test_concurrent_creates_with_one_key_make_one_sandbox(client: RawClient) -> None:
    """G21: one sandbox for one Idempotency-Key, and a conflict for other parameters."""
    headers = {"Idempotency-Key": base64.b32encode(os.urandom(10)).decode().lower()}

    def create(timeout: int = 60) -> requests.Response:
        body = {"templateID": "base", "timeout": timeout}
        return client.ask("POST", "/v2/sandboxes", json=body, headers=headers)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: create(), range(16)))
    assert {answer.status_code for answer in answers} == {201}
    ids = {answer.json()["sandboxID"] for answer in answers}
    assert len(ids) == 1
    assert create(61).status_code == 409
    assert client.ask("DELETE", f"/sandboxes/{ids.pop()}").status_code == 204


def test_a_client_that_vanishes_in_a_create_leaves_no_sandbox(client: RawClient, server: LocalServer) -> None:
    """G22: nothing is left of a create whose answer nobody got."""
    mark = os.urandom(8).hex()
    body = b'{"templateID":"base","metadata":{"mark":"%s"}}' % mark.encode()
    host, port = server.url.removeprefix("http://").split(":")

    def listed() -> int:
        return len(client.ask("GET", "/v2/sandboxes", params={"metadata": f"mark={mark}"}).json())

    for _ in range(5):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(
                b"POST /v2/sandboxes HTTP/1.1\r\nHost: x\r\nX-API-Key: %b\r\nContent-Length: %d\r\n\r\n%b"
                % (server.api_key.encode(), len(body), body)
            )
    until(lambda: listed() == 0)
    time.sleep(0.2)
    assert listed() == 0


def test_a_sandbox_whose_first_process_dies_is_gone(client: RawClient) -> None:
    """G28: gone is said of what is gone, whoever ended it."""
    with client.create() as sandbox:
        mark = f"sleep 1000.{os.getpid()}"
        events = sandbox.start(f"exec {mark}")
        next(events)
        until(lambda: mark in [command(pid).strip() for pid in pids()])
        [sleeping] = [pid for pid in pids() if command(pid).strip() == mark]
        os.kill(first_process(sleeping), signal.SIGKILL)
        until(lambda: client.ask("GET", sandbox.path).status_code == 404)
        gone = sandbox.ask("GET", "/health")
        assert gone.status_code == 502
        assert gone.json() == {"code": 502, "message": "The sandbox was not found", "sandboxId": sandbox.id}
        assert not is_running(sleeping)


def test_a_paused_sandbox_stands_still_and_goes_on(client: RawClient, sandbox: Sandbox) -> None:
    events = sandbox.start("while echo tick; do sleep 0.02; done")
    ticks: list[float] = []

    def listen() -> str:
        try:
            for event in events:
                if "data" in event:
                    ticks.append(time.monotonic())
        except RpcError as error:
            return str(error)
        return "ended as if all were well"

    pool = ThreadPoolExecutor(1)
    end = pool.submit(listen)
    pool.shutdown(wait=False)
    until(lambda: len(ticks) > 3)
    assert client.ask("POST", sandbox.path + "/pause").status_code == 204
    assert client.ask("GET", sandbox.path).json()["state"] == "paused"
    assert sandbox.ask("GET", "/health").status_code == 502
    time.sleep(0.3)  # what was on its way arrives
    paused = len(ticks)
    time.sleep(0.5)
    assert len(ticks) == paused
    assert client.ask("POST", f"/v2{sandbox.path}/connect", json={}).status_code == 201
    until(lambda: len(ticks) > paused)
    assert client.ask("DELETE", sandbox.path).status_code == 204
    assert "was not found" in end.result(10), "a stream out of a sandbox ends with it, and says why"


def test_a_request_resumes_a_sandbox_that_was_made_to_resume(client: RawClient) -> None:
    with client.create(timeout=1, autoPause=True, autoResume={"enabled": True}) as sandbox:
        until(lambda: client.ask("GET", sandbox.path).json()["state"] == "paused")
        assert sandbox.run("echo awake") == "awake\n"


def test_the_timeout_of_a_sandbox_ends_it(client: RawClient) -> None:
    with client.create(timeout=1) as sandbox:
        events = sandbox.start("sleep 100")
        next(events)
        until(lambda: client.ask("GET", sandbox.path).status_code == 404)
        assert sandbox.ask("GET", "/health").status_code == 502


def test_metrics_follow_what_a_sandbox_does(client: RawClient, sandbox: Sandbox) -> None:
    def measure() -> dict[str, float]:
        [metric] = client.ask("GET", sandbox.path + "/metrics").json()
        return dict(metric)

    idle = measure()
    assert 0 < idle["memUsed"] < idle["memTotal"]
    sandbox.run("head -c 20000000 /dev/zero > big; timeout 1 sh -c 'while :; do :; done'; true")
    busy = measure()
    assert busy["diskUsed"] - idle["diskUsed"] > 19_000_000
    assert busy["cpuUsedPct"] > 5
    many = client.ask("GET", "/sandboxes/metrics", params={"sandbox_ids": sandbox.id}).json()
    assert set(many["sandboxes"]) == {sandbox.id}


def test_a_port_is_reached_by_host_name_and_by_headers(client: RawClient, sandbox: Sandbox) -> None:
    with echo(sandbox, 8000):
        by_headers = sandbox.ask("POST", "/", port=8000, data=b"by headers")
        host = {"Host": f"8000-{sandbox.id}.localhost"}
        by_host = requests.post(client.url, data=b"by host", headers=host, timeout=30)
    assert (by_headers.text, by_host.text) == ("BY HEADERS", "BY HOST")


def test_a_large_body_goes_through_a_port_and_back(sandbox: Sandbox) -> None:
    blob = os.urandom(1 << 20).hex().encode() * 8
    with echo(sandbox, 8000):
        assert sandbox.ask("POST", "/", port=8000, data=blob).content == blob.upper()


def test_a_tunnel_goes_through_a_port(client: RawClient, sandbox: Sandbox) -> None:
    host, port = client.url.removeprefix("http://").split(":")
    with (
        echo(sandbox, 8000),
        socket.create_connection((host, int(port)), 30) as connection,
        connection.makefile("rb") as stream,
    ):
        connection.sendall(
            b"GET / HTTP/1.1\r\nHost: 8000-%b.localhost\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
            % sandbox.id.encode()
        )
        assert stream.readline().startswith(b"HTTP/1.1 101 ")
        while stream.readline() != b"\r\n":
            pass
        for word in (b"one\n", b"two\n"):
            connection.sendall(word)
            assert stream.readline() == word.upper()


def test_a_port_that_is_closed_is_told_from_a_sandbox_that_is_gone(sandbox: Sandbox) -> None:
    """G28: port closed and gone are two errors."""
    answer = sandbox.ask("GET", "/", port=9)
    assert answer.status_code == 502
    assert answer.json() == {
        "code": 502,
        "message": "The sandbox is running but port is not open",
        "port": 9,
        "sandboxId": sandbox.id,
    }


def test_a_port_that_was_closed_to_the_public_wants_the_token(client: RawClient) -> None:
    with client.create(network={"allowPublicTraffic": False}) as sandbox, echo(sandbox, 8000):
        assert sandbox.ask("POST", "/", port=8000, data=b"x").status_code == 403
        token = {"e2b-traffic-access-token": sandbox.made["trafficAccessToken"]}
        assert sandbox.ask("POST", "/", port=8000, data=b"x", headers=token).text == "X"


def test_one_port_speaks_to_a_hundred_clients_at_once(sandbox: Sandbox) -> None:
    with echo(sandbox, 8000), ThreadPoolExecutor(25) as pool:
        answers = pool.map(lambda n: sandbox.ask("POST", "/", port=8000, data=f"n{n}").text, range(100))
        assert list(answers) == [f"N{n}" for n in range(100)]
