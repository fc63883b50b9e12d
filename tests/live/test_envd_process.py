"""envd's processes in real sandboxes: what depends on isolation, sockets and load."""

from __future__ import annotations

import base64
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_local import LocalServer
from tests.raw_client import RawClient, Sandbox


@pytest.fixture
def box(server: LocalServer) -> Iterator[Sandbox]:
    with RawClient.of(server).create() as sandbox:
        yield sandbox


class Stream:
    """A call of a streaming method over a socket of its own, which nobody reads unless told to."""

    def __init__(self, sandbox: Sandbox, method: str, message: dict[str, Any], **headers: str) -> None:
        payload = json.dumps(message).encode()
        fields = {
            "content-type": "application/connect+json",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        body = struct.pack(">BI", 0, len(payload)) + payload
        self.response = sandbox.ask(
            "POST", f"/process.Process/{method}", data=body, headers=fields, stream=True
        )
        self.error: dict[str, Any] = {}
        self.end: dict[str, Any] = {}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        raw = self.response.raw
        with self.response:
            while True:
                flags, length = struct.unpack(">BI", raw.read(5))
                content = json.loads(raw.read(length) or b"{}")
                if flags & 2:
                    self.error = content.get("error", {})
                    return
                self.end = content["event"].get("end", self.end)
                yield content["event"]

    def read(self) -> bytes:
        """All that the process writes to its standard output until the stream ends."""
        return b"".join(base64.b64decode(event.get("data", {}).get("stdout", "")) for event in self)


def start(sandbox: Sandbox, script: str, *, user: str = "", **fields: Any) -> Stream:
    headers = fields.pop("headers", {})
    if user:
        headers = {**headers, "authorization": "Basic " + base64.b64encode(f"{user}:".encode()).decode()}
    message = {"process": {"cmd": "/bin/bash", "args": ["-c", script]}, "stdin": False, **fields}
    return Stream(sandbox, "Start", message, **headers)


def call(sandbox: Sandbox, method: str, **message: Any) -> Any:
    response = sandbox.ask("POST", f"/process.Process/{method}", json=message)
    assert response.status_code == 200, response.text
    return response.json()


def until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# -- what a process is given


def test_a_process_runs_as_its_user_in_its_home_with_its_environment(box: Sandbox) -> None:
    script = 'id -un; id -gn; pwd; echo "$HOME $USER $LOGNAME $E2B_SANDBOX $E2B_SANDBOX_ID $E2B_TEMPLATE_ID"'
    assert start(box, script).read().decode().split() == [
        *("user", "user", "/home/user"),
        *("/home/user", "user", "user", "true", box.id, box.made["templateID"]),
    ]
    assert start(box, script, user="root").read().decode().split()[:5] == [
        "root",
        "root",
        "/root",
        "/root",
        "root",
    ]
    assert start(box, "sudo -n id -u").read() == b"0\n"


def test_the_environment_of_the_sandbox_and_of_the_request(server: LocalServer) -> None:
    with RawClient.of(server).create(envVars={"A": "sandbox", "B": "sandbox"}) as sandbox:
        message = {"cmd": "/bin/sh", "args": ["-c", "echo $A $B"], "envs": {"B": "request"}}
        assert Stream(sandbox, "Start", {"process": message}).read() == b"sandbox request\n"
        assert sandbox.ask("GET", "/envs").json()["A"] == "sandbox"


def test_the_working_directory(box: Sandbox) -> None:
    for cwd, expected in (("", "/home/user"), ("~", "/home/user"), ("/tmp", "/tmp"), ("../..", "/")):
        stream = Stream(box, "Start", {"process": {"cmd": "pwd", "cwd": cwd}})
        assert stream.read().decode().strip() == expected
    stream = Stream(box, "Start", {"process": {"cmd": "pwd", "cwd": "no/such"}})
    assert stream.read() == b""
    assert stream.error == {"code": "invalid_argument", "message": "cwd 'no/such' does not exist"}


def test_an_unknown_user_is_unauthenticated(box: Sandbox) -> None:
    stream = start(box, "true", user="nobody-here")
    assert stream.read() == b""
    assert stream.error["code"] == "unauthenticated"
    headers = {"authorization": "Basic " + base64.b64encode(b"nobody-here:").decode()}
    assert box.ask("POST", "/process.Process/List", json={}, headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("program", "code", "reason"),
    [
        ("/no/such/program", 127, "no such file"),
        ("no-such-program", 127, "not found"),
        ("/etc/passwd", 126, "permission"),
    ],
)
def test_a_program_that_cannot_run_is_no_rpc_error(
    box: Sandbox, program: str, code: int, reason: str
) -> None:
    stream = Stream(box, "Start", {"process": {"cmd": program}})
    events = list(stream)
    stderr = b"".join(base64.b64decode(event.get("data", {}).get("stderr", "")) for event in events)
    assert "start" in events[0]
    assert stream.end["exitCode"] == code
    assert reason in stderr.decode().lower()


@pytest.mark.parametrize(
    "process",
    [
        {"cmd": "a\0b"},
        {"cmd": "true", "args": ["\0"]},
        {"cmd": "true", "cwd": "\0"},
        {"cmd": "true", "envs": {"A\0": ""}},
        {"cmd": "true", "envs": {"A": "\0"}},
        {"cmd": "true", "envs": {"": "x"}},
        {"cmd": "true", "envs": {"A=B": "x"}},
        {"cmd": "true", "cwd": "~root"},
    ],
)
def test_what_no_process_can_be_given_is_an_invalid_argument(box: Sandbox, process: dict[str, Any]) -> None:
    stream = Stream(box, "Start", {"process": process})
    assert stream.read() == b""
    assert stream.error["code"] == "invalid_argument"


# -- ends


FAMILY = """
    python3 -c 'import time; time.sleep(600)' family-member &
    setsid python3 -c '
import os, socket, sys, time
if os.fork(): sys.exit()
os.setsid()
if os.fork(): os._exit(0)
s = socket.create_server(("127.0.0.1", 8123))
for fd in range(3): os.close(fd)
time.sleep(600)' family-member
    until_open() { until (exec 3<>/dev/tcp/127.0.0.1/8123) 2>/dev/null; do sleep 0.02; done; }
    until_open; echo ready; exec python3 -c 'import time; time.sleep(600)' family-member
"""


def family(box: Sandbox) -> int:
    """How many of them live."""
    return int(start(box, "grep -als '[f]amily-member' /proc/[0-9]*/cmdline | wc -l", user="root").read())


def port_is_free(box: Sandbox) -> bool:
    return start(box, "(exec 3<>/dev/tcp/127.0.0.1/8123) 2>/dev/null; echo $?").read() == b"1\n"


@pytest.mark.parametrize("how", ["timeout", "SIGNAL_SIGKILL"])
def test_no_descendant_outlives_a_timeout_or_a_kill(box: Sandbox, how: str) -> None:
    """G6: children, sessions of their own, daemons; and their ports are free."""
    stream = start(box, FAMILY, headers={"connect_timeout_ms": "3000"} if how == "timeout" else {})
    events = iter(stream)
    pid = next(events)["start"]["pid"]
    assert base64.b64decode(next(events)["data"]["stdout"]) == b"ready\n"
    until(lambda: family(box) == 3)
    if how == "timeout":
        assert list(events) == []
        assert stream.error["code"] == "deadline_exceeded"
    else:
        call(box, "SendSignal", process={"pid": pid}, signal=how)
        assert [event["end"]["status"] for event in events] == ["signal: killed"]
    assert family(box) == 0
    assert port_is_free(box)
    assert call(box, "List") == {}


def test_sigterm_goes_to_the_process_alone(box: Sandbox) -> None:
    stream = start(box, "sleep 600 & trap 'echo caught; exit 3' TERM; echo ready; wait")
    events = iter(stream)
    pid = next(events)["start"]["pid"]
    next(events)
    call(box, "SendSignal", process={"pid": pid}, signal="SIGNAL_SIGTERM")
    assert base64.b64decode(next(events)["data"]["stdout"]) == b"caught\n"
    assert [event["end"]["exitCode"] for event in events] == [3]
    assert start(box, "pgrep -c sleep || grep -als '^sleep' /proc/[0-9]*/cmdline | wc -l").read() != b"0\n"


def test_a_client_that_leaves_leaves_the_process_running(box: Sandbox) -> None:
    stream = start(box, "echo ready; sleep 600", tag="kept")
    events = iter(stream)
    pid = next(events)["start"]["pid"]
    next(events)
    stream.response.close()
    (listed,) = call(box, "List")["processes"]
    assert (listed["pid"], listed["tag"]) == (pid, "kept")
    again = Stream(box, "Connect", {"process": {"tag": "kept"}})
    follower = iter(again)
    assert next(follower)["start"]["pid"] == pid
    call(box, "SendSignal", process={"pid": pid}, signal="SIGNAL_SIGKILL")
    assert [event["end"]["status"] for event in follower] == ["signal: killed"]


def test_the_end_of_the_sandbox_is_said_in_the_stream(server: LocalServer) -> None:
    with RawClient.of(server).create() as sandbox:
        stream = start(sandbox, "sleep 600")
        events = iter(stream)
        next(events)
        sandbox.client.ask("DELETE", sandbox.path)
        assert list(events) == []
        assert stream.error["code"] == "unavailable"
        assert "was not found" in stream.error["message"]


def test_a_terminal(box: Sandbox) -> None:
    message = {
        "process": {"cmd": "/bin/bash", "args": ["-i", "-l"], "envs": {"TERM": "xterm-256color"}},
        "pty": {"size": {"cols": 100, "rows": 30}},
    }
    stream = Stream(box, "Start", message)
    events = iter(stream)
    pid = next(events)["start"]["pid"]

    def send(text: str) -> None:
        call(box, "SendInput", process={"pid": pid}, input={"pty": base64.b64encode(text.encode()).decode()})

    send("stty size; tty\n")
    shown = b""
    while b"/dev/pts/" not in shown:
        shown += base64.b64decode(next(events)["data"]["pty"])
    assert b"30 100" in shown
    call(box, "Update", process={"pid": pid}, pty={"size": {"cols": 44, "rows": 11}})
    send("stty size\n")
    while b"11 44" not in shown:
        shown += base64.b64decode(next(events)["data"]["pty"])
    send("exit\n")
    while "data" in (event := next(events)):
        pass
    assert event["end"]["status"] == "exit status 0"


# -- output


def rss(pid: int) -> int:
    """Bytes of memory that a process holds."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) << 10


class PeakRss(threading.Thread):
    """The most memory that a process holds while the block runs, beyond what it held before."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self._pid = pid
        self._done = threading.Event()
        self._before = rss(pid)
        self.growth = 0

    def run(self) -> None:
        while not self._done.wait(0.02):
            self.growth = max(self.growth, rss(self._pid) - self._before)

    def __enter__(self) -> PeakRss:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()


def longest_gap_beside_stopped_readers(box: Sandbox, megabytes: int) -> float:
    """Seconds between two events of a reader, at most, while five others do not read at all."""
    reading = iter(start(box, f"read line; head -c {megabytes << 20} /dev/zero", stdin=True))
    process = {"pid": next(reading)["start"]["pid"]}
    stopped = [Stream(box, "Connect", {"process": process}) for _ in range(5)]
    call(box, "SendInput", process=process, input={"stdin": base64.b64encode(b"go\n").decode()})
    total, longest, last = 0, 0.0, time.monotonic()
    for event in reading:
        longest = max(longest, time.monotonic() - last)
        total += len(base64.b64decode(event.get("data", {}).get("stdout", "")))
        last = time.monotonic()
    assert total == megabytes << 20
    for stream in stopped:
        list(stream)
        assert stream.error["code"] == "resource_exhausted"
    return longest


def test_readers_that_have_stopped_hold_up_nobody_and_cost_no_memory(
    server: LocalServer, box: Sandbox
) -> None:
    """G10: another reader waits less than 100 ms; the server grows by less than 64 MiB for 1 GiB."""
    assert server.pid is not None
    with PeakRss(server.pid) as peak:
        gaps = [longest_gap_beside_stopped_readers(box, 1024)]
        # What a busy machine adds is not the same every time; what the server does is.
        while min(gaps) >= 0.1 and len(gaps) < 4:
            gaps.append(longest_gap_beside_stopped_readers(box, 64))
    assert peak.growth < 64 << 20
    assert min(gaps) < 0.1, gaps


def test_output_that_nobody_reads_costs_no_memory_and_stalls_nothing(
    server: LocalServer, box: Sandbox
) -> None:
    """G10: infinite output of a process without a reader."""
    assert server.pid is not None
    with PeakRss(server.pid) as peak:
        stream = start(box, "head -c 500000000 /dev/zero; touch /tmp/done; sleep 600")
        next(iter(stream))
        stream.response.close()
        until(lambda: box.ask("GET", "/files?path=/tmp/done").status_code == 200)
    assert peak.growth < 64 << 20


def test_many_commands_at_once_get_their_own_output(box: Sandbox) -> None:
    """G16, G17: the server's half."""
    results: dict[int, bytes] = {}

    def run(number: int) -> None:
        results[number] = start(box, f"for i in $(seq 50); do echo {number}-$i; done").read()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {
        number: b"".join(b"%d-%d\n" % (number, i) for i in range(1, 51)) for number in range(50)
    }


# -- load


def test_a_fork_bomb_stops_neither_health_nor_kill(server: LocalServer) -> None:
    """G7: each answers within five seconds."""
    with RawClient.of(server).create() as sandbox:
        stream = start(sandbox, ":(){ :|:& };: ; sleep 600")
        next(iter(stream))
        time.sleep(1)
        assert sandbox.ask("GET", "/health", timeout=5).status_code == 204
        assert sandbox.ask("GET", "/files?path=/etc/hostname", timeout=5).status_code == 200
        assert sandbox.client.ask("DELETE", sandbox.path, timeout=5).status_code == 204
        stream.response.close()


def test_a_port_of_the_process_is_reached_while_it_runs(box: Sandbox) -> None:
    stream = start(box, "exec python3 -m http.server 8124 --bind 127.0.0.1 2>&1")
    next(iter(stream))
    until(lambda: box.ask("GET", "/", port=8124).status_code == 200)
    stream.response.close()


def test_a_connection_cut_by_the_client_is_noticed(server: LocalServer, box: Sandbox) -> None:
    """G11: the server lets go of the reader within a second; on a busy machine in one of a few tries."""
    assert any(_is_let_go_in_time(server, box) for _ in range(4))


def _is_let_go_in_time(server: LocalServer, box: Sandbox) -> bool:
    payload = json.dumps({"process": {"cmd": "sleep", "args": ["600"]}}).encode()
    host, port = server.url.removeprefix("http://").split(":")
    assert server.pid is not None
    with socket.create_connection((host, int(port))) as sock:
        head = (
            f"POST /process.Process/Start HTTP/1.1\r\nHost: x\r\nE2b-Sandbox-Id: {box.id}\r\n"
            f"E2b-Sandbox-Port: 49983\r\nX-Access-Token: {box.made['envdAccessToken']}\r\n"
            f"Content-Type: application/connect+json\r\nContent-Length: {len(payload) + 5}\r\n\r\n"
        )
        sock.sendall(head.encode() + struct.pack(">BI", 0, len(payload)) + payload)
        assert b"200 OK" in sock.recv(65536)
        local = sock.getsockname()[1]
        assert _established(local)
    deadline = time.monotonic() + 1
    while _established(local):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _established(client_port: int) -> bool:
    """Whether the server's end of a connection from that port is still open."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, _, remote, state = line.split()[:4]
        if remote.endswith(f":{client_port:04X}") and state in ("01", "08"):
            return True
    return False
