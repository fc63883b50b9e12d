"""envd's files in real sandboxes: ownership, the box's own root, its disk, and hostile insides."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from sandbox_local import LocalServer
from tests.raw_client import RawClient, Sandbox

PLAIN = {"content-type": "application/octet-stream"}


@pytest.fixture
def box(server: LocalServer) -> Iterator[Sandbox]:
    with RawClient.of(server).create() as sandbox:
        yield sandbox


def read(box: Sandbox, path: str, **query: str) -> requests.Response:
    return box.ask("GET", "/files", params={"path": path, **query})


def write(box: Sandbox, path: str, content: Any, **query: str) -> requests.Response:
    return box.ask("POST", "/files", params={"path": path, **query}, data=content, headers=PLAIN)


def ask(box: Sandbox, method: str, *, user: str = "", **message: Any) -> requests.Response:
    headers = {"authorization": "Basic " + base64.b64encode(f"{user}:".encode()).decode()} if user else {}
    return box.ask("POST", f"/filesystem.Filesystem/{method}", json=message, headers=headers)


def entry(box: Sandbox, path: str, **options: Any) -> dict[str, Any]:
    response = ask(box, "Stat", path=path, **options)
    assert response.status_code == 200, response.text
    return dict(response.json()["entry"])


def names(box: Sandbox, path: str) -> list[str]:
    response = ask(box, "ListDir", path=path)
    assert response.status_code == 200, response.text
    return [found["name"] for found in response.json().get("entries", [])]


# -- users and ownership


@pytest.mark.parametrize(("user", "home"), [("user", "/home/user"), ("root", "/root")])
def test_what_is_made_belongs_to_the_user_it_was_made_for(box: Sandbox, user: str, home: str) -> None:
    assert write(box, "a/b/file", b"x", username=user).status_code == 200
    assert ask(box, "MakeDir", path="c/d", user=user).status_code == 200
    assert ask(box, "Move", source="a/b/file", destination="e/f/file", user=user).status_code == 200
    body = {"source_paths": ["e/f/file"], "destination": "g/whole", "username": user}
    assert box.ask("POST", "/files/compose", json=body).status_code == 200
    found = box.run(f"find {home}/? -printf '%u:%g %y %m %P\\n' | sort -u", user="root").splitlines()
    assert {line.split()[0] for line in found} == {f"{user}:{user}"}
    assert {line.split()[1:3] == ["d", "755"] or line.split()[1:3] == ["f", "644"] for line in found} == {
        True
    }


def test_the_permissions_of_the_user_are_not_applied(box: Sandbox) -> None:
    box.run("echo secret > /root/f; chmod 600 /root/f; mkdir /root/d; chmod 700 /root/d", user="root")
    assert read(box, "/root/f").content == b"secret\n"
    assert write(box, "/root/d/new", b"x").status_code == 200
    assert entry(box, "/root/d/new")["owner"] == "user"


def test_users_are_those_of_the_sandbox(box: Sandbox) -> None:
    assert read(box, "f", username="late").status_code == 401
    box.run(
        "useradd -m -u 1234 late || echo 'late:x:1234:1234::/home/late:/bin/sh' >> /etc/passwd", user="root"
    )
    assert write(box, "f", b"x", username="late").status_code == 200
    found = entry(box, "f", user="late")
    assert (found["path"], found["owner"]) == ("/home/late/f", "late")
    box.run("touch /tmp/f; chown 4321:4321 /tmp/f", user="root")
    assert (entry(box, "/tmp/f")["owner"], entry(box, "/tmp/f")["group"]) == ("4321", "4321")


def test_metadata_is_kept_with_the_file(box: Sandbox) -> None:
    response = box.ask(
        "POST", "/files", params={"path": "f"}, data=b"x", headers={**PLAIN, "X-Metadata-Author": "me"}
    )
    assert response.json()[0]["metadata"] == {"author": "me"}
    assert entry(box, "f")["metadata"] == {"author": "me"}
    write(box, "f", b"y")
    assert "metadata" not in entry(box, "f")


# -- the sandbox's own root


def test_no_path_leaves_the_sandbox(box: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    box.run(
        f"ln -s {secret} abs; ln -s ../../../../../../../../..{secret} rel; ln -s / top;"
        "ln -s /proc/1/root one; ln -s /proc/self/root self"
    )
    for path in (
        str(secret),
        f"../../../../../../..{secret}",
        "abs",
        "rel",
        f"top{secret}",
        f"one{secret}",
        f"self{secret}",
        f"/proc/self/root{secret}",
        f"/proc/self/cwd/..{secret}",
        f"/proc/1/cwd{secret}",
    ):
        answer = read(box, path)
        assert answer.status_code in (400, 404, 500), path
        assert b"of the host" not in answer.content
    assert write(box, f"one{tmp_path}/planted", b"x").status_code in (200, 400, 500)
    assert os.listdir(tmp_path) == ["secret"]


def test_links_are_followed_inside(box: Sandbox) -> None:
    box.run("mkdir d; echo inside > d/f; ln -s /home/user/d/f abs; ln -s d/f rel; ln -s nowhere broken")
    assert read(box, "abs").content == read(box, "rel").content == b"inside\n"
    assert read(box, "broken").status_code == 404
    found = entry(box, "abs")
    assert (found["type"], found["isSymlink"], found["symlinkTarget"]) == (
        "FILE_TYPE_FILE",
        True,
        "/home/user/d/f",
    )
    assert write(box, "broken", b"made").status_code == 200
    assert box.run("cat nowhere") == "made"


@pytest.mark.parametrize("path", ["fifo", "/dev/zero", "/dev/tty", "sock", "/proc", "~"])
def test_what_is_no_file_is_refused_at_once(box: Sandbox, path: str) -> None:
    box.run("mkfifo fifo; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'")
    began = time.monotonic()
    assert read(box, path).status_code == 400
    assert write(box, path, b"x").status_code == 400
    assert time.monotonic() - began < 5


def test_system_files_can_be_changed_and_moved(box: Sandbox) -> None:
    """The box is made of several file systems; one who uses it sees one."""
    assert write(box, "/usr/local/bin/tool", b"#!/bin/sh\necho tool\n", username="root").status_code == 200
    box.run("chmod +x /usr/local/bin/tool", user="root")
    assert box.run("tool") == "tool\n"
    for source, destination in (
        ("/usr/local/bin/tool", "/etc/tool"),
        ("/etc/tool", "/tmp/d/tool"),
        ("/tmp/d", "d"),
    ):
        assert ask(box, "Move", source=source, destination=destination).status_code == 200
    assert box.run("./d/tool") == "tool\n"
    box.run("cp -r /usr/share/zoneinfo /tmp/z || cp -r /usr/lib/python3 /tmp/z", user="root")
    assert ask(box, "Move", source="/etc/apt", destination="/tmp/apt").status_code in (200, 404)
    assert ask(box, "Remove", path="/etc/passwd-").status_code == 200


# -- names and sizes


def test_hostile_names(box: Sandbox) -> None:
    box.run(
        "python3 -c 'import os\n"
        'for n in (b"new\\nline", b"caf\\xe9", b"\\xff" * 255, b"-rf", b"\\x1b[31m", "é".encode() * 127): '
        'open(b"/tmp/odd/" + n, "w") if os.makedirs(b"/tmp/odd", exist_ok=True) is None else 0\''
    )
    assert sorted(names(box, "/tmp/odd")) == sorted(
        ["new\nline", "caf\ufffd", "\ufffd" * 255, "-rf", "\x1b[31m", "é" * 127]
    )
    assert read(box, "/tmp/odd/new\nline").status_code == 200
    assert read(box, "/tmp/odd/caf\ufffd").status_code == 404
    assert ask(box, "Remove", path="/tmp/odd").status_code == 200
    assert ask(box, "Stat", path="/tmp/odd").status_code == 404


def test_a_listing_of_fifty_thousand(box: Sandbox) -> None:
    """G39: the server's half."""
    box.run("mkdir many; cd many; seq -w 50000 | xargs touch")
    response = ask(box, "ListDir", path="many")
    entries = response.json()["entries"]
    assert [found["name"] for found in entries] == [f"{i:05}" for i in range(1, 50_001)]


def test_the_removal_of_a_large_tree_delays_no_read(box: Sandbox) -> None:
    """G7: a read while a hundred thousand files are being removed."""
    box.run("mkdir tree; cd tree; for i in $(seq 100); do mkdir $i; (cd $i; seq 1000 | xargs touch); done")
    waits = []
    with ThreadPoolExecutor(1) as pool:
        removing = pool.submit(ask, box, "Remove", path="tree")
        while not removing.done():
            began = time.monotonic()
            assert read(box, "/etc/hostname").status_code == 200
            waits.append(time.monotonic() - began)
    assert removing.result().status_code == 200
    assert len(waits) > 3
    assert sorted(waits)[len(waits) // 2] < 0.2
    assert ask(box, "Stat", path="tree").status_code == 404


# -- the disk


def test_a_full_disk_is_507_and_passes(box: Sandbox) -> None:
    free = int(box.run("df --output=avail -B1 /tmp | tail -1"))
    box.run(f"head -c {free - (8 << 20)} /dev/zero > /tmp/filler")
    answer = write(box, "/tmp/too-large", b"x" * (16 << 20))
    assert answer.status_code == 507
    assert answer.json() == {"code": 507, "message": "not enough disk space available"}
    form = {"file": ("/tmp/too-large", b"x" * (16 << 20))}
    assert box.ask("POST", "/files", files=form).status_code == 507
    box.run("rm /tmp/filler /tmp/too-large", user="root")
    assert write(box, "/tmp/fits", b"x" * (16 << 20)).status_code == 200


def test_a_disk_that_is_full_in_the_middle_of_a_form_keeps_what_is_before(box: Sandbox) -> None:
    free = int(box.run("df --output=avail -B1 /tmp | tail -1"))
    box.run(f"fallocate -l {free - (2 << 20)} /tmp/filler")
    form = [("file", (f"/tmp/many/{i:03}", bytes([i]) * 50_000)) for i in range(100)]
    answer = box.ask("POST", "/files", files=form)
    assert answer.status_code == 507
    assert answer.json() == {"code": 507, "message": "not enough disk space available"}
    sizes = [int(size) for size in box.run("stat -c %s /tmp/many/*").split()]
    assert 10 < len(sizes) < 100
    assert set(sizes[:-1]) == {50_000}
    assert sizes[-1] < 50_000, "the one that did not fit is left as far as it came"
    box.run("rm /tmp/filler")
    assert box.ask("POST", "/files", files=form).status_code == 200
    assert read(box, "/tmp/many/099").content == bytes([99]) * 50_000


def test_metrics_see_the_disk_and_the_processor(box: Sandbox) -> None:
    before = box.ask("GET", "/metrics").json()
    write(box, "/tmp/f", b"x" * (32 << 20))
    box.run("timeout 0.7 sh -c 'while :; do :; done' || true")
    after = box.ask("GET", "/metrics").json()
    assert (32 << 20) <= after["disk_used"] - before["disk_used"] < (64 << 20)
    assert after["cpu_used_pct"] > 5
    assert before["mem_used"] > 1 << 20
    assert after["cpu_count"] == os.cpu_count()


# -- clients and insides that misbehave


def test_a_client_that_vanishes_in_an_upload_leaves_what_came_and_no_descriptor(
    server: LocalServer, box: Sandbox
) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    write(box, "f", b"old")  # the worker is there now
    assert server.pid is not None
    before = len(os.listdir(f"/proc/{server.pid}/fd"))
    for _ in range(10):
        with socket.create_connection((host, int(port))) as sock:
            head = (
                f"POST /files?path=f HTTP/1.1\r\nHost: x\r\nE2b-Sandbox-Id: {box.id}\r\n"
                f"E2b-Sandbox-Port: 49983\r\nX-Access-Token: {box.made['envdAccessToken']}\r\n"
                "Content-Type: application/octet-stream\r\nContent-Length: 1000000\r\n\r\n"
            )
            sock.sendall(head.encode() + b"x" * 500_000)
            deadline = time.monotonic() + 5
            while read(box, "f").content[:1] != b"x":
                assert time.monotonic() < deadline
    deadline = time.monotonic() + 5
    while len(os.listdir(f"/proc/{server.pid}/fd")) > before:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert set(read(box, "f").content) == {ord("x")}


def test_file_operations_survive_the_death_of_their_worker(box: Sandbox) -> None:
    write(box, "f", b"content")
    box.run(
        "cd /proc; for pid in [0-9]*; do [ $pid -gt 1 ] && [ $pid != $$ ] && kill -9 $pid; done; :",
        "root",
    )
    deadline = time.monotonic() + 5
    while (answer := read(box, "f")).status_code != 200:
        assert answer.status_code == 500
        assert time.monotonic() < deadline
    assert answer.content == b"content"


def test_a_sandbox_that_has_ended_is_502(server: LocalServer) -> None:
    with RawClient.of(server).create() as sandbox:
        write(sandbox, "f", b"x")
        sandbox.client.ask("DELETE", sandbox.path)
        for answer in (read(sandbox, "f"), write(sandbox, "f", b"x"), ask(sandbox, "Stat", path="f")):
            assert answer.status_code == 502
            assert "was not found" in answer.json()["message"]


def test_large_files_pass_both_ways(box: Sandbox) -> None:
    content = os.urandom(1 << 20) * 64
    assert (
        write(box, "f", iter([content[i : i + 99_999] for i in range(0, len(content), 99_999)])).status_code
        == 200
    )
    assert box.run("sha256sum f").split()[0] == hashlib.sha256(content).hexdigest()
    assert read(box, "f").content == content
    assert entry(box, "f")["size"] == str(len(content))
