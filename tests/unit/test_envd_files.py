"""envd's plain HTTP over real sockets, with the real file worker."""

from __future__ import annotations

import gzip
import http.client
import io
import json
import os
import random
import socket
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import requests

from sandbox_local.envd.access import signature
from tests.unit.envd_standin import EnvdServer

TOKEN = "the-access-token"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EnvdServer]:
    with EnvdServer(tmp_path) as server:
        before = set(os.listdir("/proc/self/fd"))
        yield server
        _settled(lambda: len(os.listdir("/proc/self/fd")) <= len(before) + 8)  # but for pooled connections


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[EnvdServer]:
    with EnvdServer(tmp_path, TOKEN) as server:
        yield server


@pytest.fixture
def http_(server: EnvdServer) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def _settled(condition: Any) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def get(http_: requests.Session, server: EnvdServer, path: str, **headers: str) -> requests.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return http_.get(f"{server.url}/files", params={"path": path}, headers=named, timeout=20)


def form(*files: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("file", file) for file in files]


def error(response: requests.Response) -> tuple[int, str]:
    """Status and message of a JSON error, checked for its form."""
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-content-type-options"] == "nosniff"
    body = response.json()
    assert body["code"] == response.status_code
    return response.status_code, body["message"]


# -- reading


def test_a_file_is_read_with_all_that_describes_it(http_: requests.Session, server: EnvdServer) -> None:
    (server.home / "a.json").write_bytes(b"[1]")
    os.utime(server.home / "a.json", (0, 1_700_000_000))
    response = get(http_, server, "a.json")
    assert (response.status_code, response.content) == (200, b"[1]")
    headers = response.headers
    assert headers["content-type"] == "application/json"
    assert headers["content-disposition"] == "inline; filename=a.json"
    assert headers["last-modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert headers["accept-ranges"] == "bytes"
    assert headers["vary"] == "Accept-Encoding"
    assert headers["content-length"] == "3"
    assert "content-encoding" not in headers


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("missing", 404),
        ("", 400),
        ("dir", 400),
        ("~root", 400),
        ("fifo", 400),
        ("/dev/zero", 400),
        ("a\0b", 400),
        ("file/below", 500),
        ("x" * 300, 400),
        ("loop", 500),
    ],
)
def test_what_cannot_be_read_is_answered_with_the_reason(
    http_: requests.Session, server: EnvdServer, path: str, status: int
) -> None:
    (server.home / "dir").mkdir()
    (server.home / "file").write_text("")
    (server.home / "loop").symlink_to("loop")
    os.mkfifo(server.home / "fifo")
    assert error(get(http_, server, path))[0] == status


def test_an_unknown_user_is_401(http_: requests.Session, server: EnvdServer) -> None:
    for query, auth in (({"username": "nobody-here"}, None), ({}, ("nobody-here", ""))):
        for method in ("GET", "POST"):
            url = f"{server.url}/files?" + urlencode({"path": "x", **query})
            data = b"x" if method == "POST" else None
            headers = {"content-type": "application/octet-stream"}
            assert error(http_.request(method, url, data=data, headers=headers, auth=auth))[0] == 401


@pytest.mark.parametrize("encoded", ["with%20space%2Bplus%C3%A9", "with+space%2bplus%c3%a9"])
def test_a_space_in_a_query_is_written_in_two_ways(
    http_: requests.Session, server: EnvdServer, encoded: str
) -> None:
    (server.home / "with space+plusé").write_text("found")
    response = http_.get(f"{server.url}/files?path={encoded}")
    assert response.content == b"found"
    assert response.headers["content-disposition"] == "inline; filename*=utf-8''with%20space%2Bplus%C3%A9"


def test_a_path_that_is_not_utf8_is_400(http_: requests.Session, server: EnvdServer) -> None:
    assert error(http_.get(f"{server.url}/files?path=caf%e9"))[0] == 400


def test_ranges_and_conditions(http_: requests.Session, server: EnvdServer) -> None:
    (server.home / "f").write_bytes(bytes(range(100)))
    whole = get(http_, server, "f")
    part = get(http_, server, "f", range="bytes=10-19")
    assert (part.status_code, part.content) == (206, bytes(range(10, 20)))
    assert part.headers["content-range"] == "bytes 10-19/100"
    tail = get(http_, server, "f", range="bytes=-5", if_range=whole.headers["etag"])
    assert (tail.status_code, tail.content) == (206, bytes(range(95, 100)))
    stale = get(http_, server, "f", range="bytes=-5", if_range='"other"')
    assert (stale.status_code, stale.content) == (200, whole.content)
    outside = get(http_, server, "f", range="bytes=100-")
    assert error(outside)[0] == 416
    assert outside.headers["content-range"] == "bytes */100"
    for condition in (
        {"if_none_match": whole.headers["etag"]},
        {"if_modified_since": whole.headers["last-modified"]},
    ):
        unchanged = get(http_, server, "f", **condition)
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert unchanged.headers["etag"] == whole.headers["etag"]
    assert error(get(http_, server, "f", if_match='"other"'))[0] == 412
    (server.home / "f").write_bytes(b"changed")
    assert get(http_, server, "f", if_none_match=whole.headers["etag"]).content == b"changed"


def test_identity_is_sent_to_all_who_take_it_and_gzip_to_the_rest(
    http_: requests.Session, server: EnvdServer
) -> None:
    content = b"compressible " * 100_000
    (server.home / "f").write_bytes(content)
    plain = get(http_, server, "f", accept_encoding="gzip, deflate")
    assert "content-encoding" not in plain.headers
    packed = http_.get(
        f"{server.url}/files?path=f", headers={"accept-encoding": "gzip, identity;q=0"}, stream=True
    )
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-length" not in packed.headers
    raw = packed.raw.read(decode_content=False)
    assert len(raw) < len(content) / 10
    assert gzip.decompress(raw) == content
    assert error(get(http_, server, "f", accept_encoding="identity;q=0"))[0] == 406
    (server.home / "empty").write_bytes(b"")
    assert get(http_, server, "empty", accept_encoding="*;q=0, gzip").content == b""


def test_a_large_file_is_exact(http_: requests.Session, server: EnvdServer) -> None:
    content = random.Random(1).randbytes(20_000_000)
    (server.home / "f").write_bytes(content)
    assert get(http_, server, "f").content == content


def test_what_the_kernel_makes_up_is_read(http_: requests.Session, server: EnvdServer) -> None:
    assert b"MemTotal" in get(http_, server, "/proc/meminfo").content


# -- writing


def test_a_plain_body_is_stored(http_: requests.Session, server: EnvdServer) -> None:
    content = random.Random(2).randbytes(3_000_000)
    for body in (content, iter([content[:1], content[1:]])):
        response = http_.post(
            f"{server.url}/files?path=a/b.bin",
            data=body,
            headers={"content-type": "application/octet-stream"},
        )
        assert response.status_code == 200
        assert response.json() == [{"path": str(server.home / "a/b.bin"), "name": "b.bin", "type": "file"}]
        assert (server.home / "a/b.bin").read_bytes() == content


def test_a_shorter_body_leaves_nothing_of_the_old(http_: requests.Session, server: EnvdServer) -> None:
    (server.home / "f").write_bytes(b"long old content")
    headers = {"content-type": "application/octet-stream"}
    http_.post(f"{server.url}/files?path=f", data=b"new", headers=headers)
    assert (server.home / "f").read_bytes() == b"new"
    http_.post(f"{server.url}/files?path=f", data=b"", headers=headers)
    assert (server.home / "f").read_bytes() == b""


def test_a_form_stores_each_file_under_its_whole_name(http_: requests.Session, server: EnvdServer) -> None:
    large = random.Random(3).randbytes(2_000_000)
    files = form(("x/one", b"1"), (str(server.home / "two é"), large), ("~/three", b""))
    response = http_.post(f"{server.url}/files", files=[*files, ("other", ("ignored", b"?"))])
    assert [(entry["name"], entry["type"]) for entry in response.json()] == [
        ("one", "file"),
        ("two é", "file"),
        ("three", "file"),
    ]
    assert (server.home / "x/one").read_bytes() == b"1"
    assert (server.home / "two é").read_bytes() == large
    assert (server.home / "three").read_bytes() == b""
    assert sorted(os.listdir(server.home)) == ["three", "two é", "x"]


def test_the_path_of_the_query_beats_the_name_of_the_part(
    http_: requests.Session, server: EnvdServer
) -> None:
    response = http_.post(f"{server.url}/files?path=target", files=form(("elsewhere", b"x")))
    assert response.json()[0]["name"] == "target"
    assert os.listdir(server.home) == ["target"]


@pytest.mark.parametrize(
    ("query", "files"),
    [
        ("?path=same", form(("a", b"first"), ("b", b"second"))),
        ("", form(("same", b"first"), ("./x/../same", b"second"))),
    ],
)
def test_the_same_target_twice_is_400_and_the_first_is_kept(
    http_: requests.Session, server: EnvdServer, query: str, files: Any
) -> None:
    status, message = error(http_.post(f"{server.url}/files{query}", files=files))
    assert status == 400
    assert "same path" in message
    assert (server.home / "same").read_bytes() == b"first"


def test_a_form_without_files_stores_nothing(http_: requests.Session, server: EnvdServer) -> None:
    response = http_.post(f"{server.url}/files", files=[("other", ("name", b"x"))])
    assert (response.status_code, response.json()) == (200, [])
    assert os.listdir(server.home) == []


@pytest.mark.parametrize(
    ("content_type", "query", "body", "status"),
    [
        ("application/octet-stream", "", b"x", 400),
        ("application/octet-stream", "?path=", b"x", 400),
        ("application/octet-stream", "?path=dir", b"x", 400),
        ("application/octet-stream", "?path=fifo", b"x", 400),
        ("application/octet-stream", "?path=~root/x", b"x", 400),
        ("application/octet-stream", "?path=file/below", b"x", 500),
        ("application/json", "?path=x", b"{}", 400),
        ("", "?path=x", b"x", 400),
        ("multipart/form-data", "?path=x", b"x", 400),
        ("multipart/form-data; boundary=b", "?path=x", b"--b\r\nbroken", 500),
        (
            "multipart/form-data; boundary=b",
            "",
            b'--b\r\ncontent-disposition: form-data; name="file"; filename=""\r\n\r\nx\r\n--b--',
            400,
        ),
        (
            "multipart/form-data; boundary=b",
            "",
            b'--b\r\ncontent-disposition: form-data; name="file"; filename="caf\xe9"\r\n\r\nx\r\n--b--',
            400,
        ),
    ],
)
def test_what_cannot_be_stored_is_answered_with_the_reason(
    http_: requests.Session, server: EnvdServer, content_type: str, query: str, body: bytes, status: int
) -> None:
    (server.home / "dir").mkdir()
    (server.home / "file").write_text("")
    os.mkfifo(server.home / "fifo")
    response = http_.post(f"{server.url}/files{query}", data=body, headers={"content-type": content_type})
    assert error(response)[0] == status
    assert sorted(os.listdir(server.home)) == ["dir", "fifo", "file"]


def test_files_before_the_broken_end_of_a_form_stay(http_: requests.Session, server: EnvdServer) -> None:
    body = b'--b\r\ncontent-disposition: form-data; name="file"; filename="one"\r\n\r\n1\r\n--b\r\nbroken'
    response = http_.post(
        f"{server.url}/files", data=body, headers={"content-type": "multipart/form-data; boundary=b"}
    )
    assert error(response)[0] == 500
    assert (server.home / "one").read_bytes() == b"1"


# -- compressed bodies


@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress(b"content" * 100_000),
        gzip.compress(b"content" * 50_000) + gzip.compress(b"content" * 50_000),
    ],
    ids=["one member", "two members"],
)
def test_a_gzip_body_is_unpacked(http_: requests.Session, server: EnvdServer, packed: bytes) -> None:
    headers = {"content-type": "application/octet-stream", "content-encoding": "gzip"}
    assert http_.post(f"{server.url}/files?path=f", data=packed, headers=headers).status_code == 200
    assert (server.home / "f").read_bytes() == b"content" * 100_000


def test_a_form_may_be_packed_as_a_whole(http_: requests.Session, server: EnvdServer) -> None:
    prepared = requests.Request("POST", server.url, files=form(("f", b"content"))).prepare()
    assert isinstance(prepared.body, bytes)
    headers = {"content-type": prepared.headers["content-type"], "content-encoding": "gzip"}
    response = http_.post(f"{server.url}/files", data=gzip.compress(prepared.body), headers=headers)
    assert response.json()[0]["name"] == "f"
    assert (server.home / "f").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", b"no gzip at all"),
        ("gzip", gzip.compress(b"cut off" * 1000)[:-3]),
        ("gzip", b""),
        ("gzip", gzip.compress(b"x") + b"trailing"),
        ("br", b"x"),
        ("deflate", zlib.compress(b"x")),
    ],
    ids=["no gzip", "cut off", "empty", "trailing", "brotli", "deflate"],
)
def test_a_body_that_cannot_be_unpacked_is_400(
    http_: requests.Session, server: EnvdServer, coding: str, body: bytes
) -> None:
    headers = {"content-type": "application/octet-stream", "content-encoding": coding}
    response = http_.post(f"{server.url}/files?path=f", data=io.BytesIO(body), headers=headers)
    assert error(response)[0] == 400


# -- metadata


def test_metadata_is_stored_shown_and_replaced(http_: requests.Session, server: EnvdServer) -> None:
    url = f"{server.url}/files?path=f"
    headers = {
        "content-type": "application/octet-stream",
        "X-Metadata-Author": "me & you",
        "x-metadata-n": "",
    }
    stored = http_.post(url, data=b"x", headers=headers).json()[0]
    if "metadata" not in stored:
        pytest.skip("the file system of the temporary directory has no user attributes")
    assert stored["metadata"] == {"author": "me & you", "n": ""}
    assert os.getxattr(server.home / "f", "user.e2b.author") == b"me & you"
    files = form(("f", b"1"), ("g", b"2"))
    both = http_.post(f"{server.url}/files", files=files, headers={"x-metadata-k": "v"}).json()
    assert [entry["metadata"] for entry in both] == [{"k": "v"}] * 2
    assert (
        "metadata"
        not in http_.post(url, data=b"x", headers={"content-type": "application/octet-stream"}).json()[0]
    )
    assert os.listxattr(server.home / "f") == []


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Metadata-": "v"},
        {"X-Metadata-k": "tab\there"},
        {"X-Metadata-k": "caf\xe9"},
        {"X-Metadata-" + "k" * 247: "v"},
        {"X-Metadata-k": "v" * 4087},
        {f"X-Metadata-{i}": "v" * 400 for i in range(10)},
    ],
    ids=range(6),
)
def test_metadata_that_cannot_be_stored_is_400(
    http_: requests.Session, server: EnvdServer, headers: dict[str, str]
) -> None:
    headers = {**headers, "content-type": "application/octet-stream"}
    assert error(http_.post(f"{server.url}/files?path=f", data=b"x", headers=headers))[0] == 400
    assert os.listdir(server.home) == []


def test_of_metadata_sent_twice_the_first_counts(server: EnvdServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.putrequest("POST", "/files?path=f")
    for name, value in (
        ("content-type", "application/octet-stream"),
        ("content-length", "0"),
        ("x-metadata-k", "first"),
        ("X-Metadata-K", "second"),
    ):
        connection.putheader(name, value)
    connection.endheaders()
    stored = json.loads(connection.getresponse().read())[0]
    connection.close()
    assert stored.get("metadata", {"k": "first"}) == {"k": "first"}


# -- failure on the way


def test_a_full_disk_is_507(
    http_: requests.Session, server: EnvdServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that fails stands in for a full disk; the live tests fill a real one."""

    def full(fd: int, *pieces: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sandbox_local.http.body.write_all", full)
    headers = {"content-type": "application/octet-stream"}
    response = http_.post(f"{server.url}/files?path=f", data=b"x" * 1_000_000, headers=headers)
    assert error(response) == (507, "not enough disk space available")


def test_a_client_that_vanishes_gets_no_success_and_blocks_nothing(
    http_: requests.Session, server: EnvdServer
) -> None:
    head = (
        b"POST /files?path=f HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\n"
        b"content-length: 1000000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(head + b"x" * 300_000)
        _settled(lambda: (server.home / "f").exists() and (server.home / "f").stat().st_size > 0)
    server_fds = f"/proc/{os.getpid()}/fd"

    def closed() -> bool:
        links = []
        for fd in os.listdir(server_fds):
            try:
                links.append(os.readlink(f"{server_fds}/{fd}"))
            except OSError:
                continue
        return str(server.home / "f") not in links

    _settled(closed)
    assert get(http_, server, "f").status_code == 200


def test_a_file_that_is_cut_while_it_is_sent_is_no_whole_answer(server: EnvdServer) -> None:
    (server.home / "f").write_bytes(b"x" * 50_000_000)
    with requests.Session() as session:
        response = session.get(f"{server.url}/files?path=f", stream=True, timeout=20)
        response.raw.read(1000)
        os.truncate(server.home / "f", 1000)
        with pytest.raises(requests.exceptions.RequestException):
            for _ in response.iter_content(1 << 20):
                pass


# -- composing


def test_files_are_composed(http_: requests.Session, server: EnvdServer) -> None:
    for name in ("1", "2"):
        (server.home / name).write_text(name)
    response = http_.post(
        f"{server.url}/files/compose", json={"source_paths": ["1", "~/2"], "destination": "out/whole"}
    )
    assert response.json() == {"path": str(server.home / "out/whole"), "name": "whole", "type": "file"}
    assert (server.home / "out/whole").read_text() == "12"
    assert os.listdir(server.home) == ["out"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"source_paths": [], "destination": "x"}, 400),
        ({"source_paths": ["a", "missing"], "destination": "x"}, 404),
        ({"source_paths": ["a", "a"], "destination": "x"}, 400),
        ({"source_paths": ["a", "dir"], "destination": "x"}, 400),
        ({"source_paths": ["a"], "destination": "dir"}, 400),
        ({"source_paths": ["a"], "destination": ""}, 400),
        ({"source_paths": ["a"]}, 400),
        ({"source_paths": "a", "destination": "x"}, 400),
        ({"source_paths": [1], "destination": "x"}, 400),
        ({"source_paths": ["a"], "destination": "x", "username": "nobody-here"}, 401),
        ({"source_paths": ["a"], "destination": "x", "username": 7}, 400),
        ([], 400),
        (None, 400),
    ],
)
def test_a_composition_that_cannot_be_made(
    http_: requests.Session, server: EnvdServer, body: Any, status: int
) -> None:
    (server.home / "a").write_text("a")
    (server.home / "dir").mkdir()
    assert error(http_.post(f"{server.url}/files/compose", json=body))[0] == status
    assert sorted(os.listdir(server.home)) == ["a", "dir"]


# -- the rest of the port


def test_health_needs_nothing_and_says_nothing(http_: requests.Session, secured: EnvdServer) -> None:
    response = http_.get(f"{secured.url}/health")
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["cache-control"] == "no-store"


def test_envs_are_those_of_the_sandbox(http_: requests.Session, server: EnvdServer) -> None:
    assert http_.get(f"{server.url}/envs").json() == {
        "MINE": "m",
        "E2B_SANDBOX": "true",
        "E2B_SANDBOX_ID": "i" * 21,
        "E2B_TEMPLATE_ID": "base",
    }


def test_metrics_are_measured(http_: requests.Session, server: EnvdServer) -> None:
    metrics = http_.get(f"{server.url}/metrics").json()
    assert set(metrics) == {
        "ts",
        "cpu_count",
        "cpu_used_pct",
        "mem_total",
        "mem_used",
        "mem_cache",
        "mem_total_mib",
        "mem_used_mib",
        "disk_used",
        "disk_total",
    }
    assert abs(metrics["ts"] - time.time()) < 5
    assert metrics["mem_used"] > 0
    assert metrics["mem_total_mib"] == metrics["mem_total"] >> 20
    assert 0 < metrics["disk_used"] < metrics["disk_total"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/no/such", 404),
        ("PUT", "/files", 405),
        ("HEAD", "/files?path=f", 405),
        ("POST", "/health", 405),
        ("GET", "/files/compose", 405),
        ("GET", "/process.Process/List", 405),
        ("POST", "/process.Process/NoSuchMethod", 404),
    ],
)
def test_other_paths_and_methods_are_refused(
    http_: requests.Session, server: EnvdServer, method: str, path: str, status: int
) -> None:
    assert http_.request(method, server.url + path).status_code == status


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/metrics"),
        ("GET", "/envs"),
        ("POST", "/files/compose"),
        ("POST", "/process.Process/List"),
        ("POST", "/filesystem.Filesystem/Stat"),
    ],
)
def test_a_secured_sandbox_wants_its_token(
    http_: requests.Session, secured: EnvdServer, method: str, path: str
) -> None:
    for headers in ({}, {"X-Access-Token": "wrong"}):
        status, message = error(http_.request(method, secured.url + path, json={}, headers=headers))
        assert status == 401
        assert message.startswith("unauthorized access")
        assert TOKEN not in message
    response = http_.request(method, secured.url + path, json={}, headers={"X-Access-Token": TOKEN})
    assert response.status_code != 401


def test_a_signed_url_reads_and_another_writes(http_: requests.Session, secured: EnvdServer) -> None:
    def url(operation: str, path: str, expiration: int | None = None) -> str:
        query: dict[str, Any] = {"path": path, "signature": signature(path, operation, "", TOKEN, expiration)}
        if expiration is not None:
            query["signature_expiration"] = expiration
        return f"{secured.url}/files?" + urlencode(query)

    headers = {"content-type": "application/octet-stream"}
    assert http_.post(url("write", "~/a b"), data=b"signed", headers=headers).status_code == 200
    assert http_.get(url("read", "~/a b", int(time.time()) + 60)).content == b"signed"
    assert error(http_.get(url("read", "~/a b", int(time.time()) - 60)))[1] == "signature is already expired"
    assert error(http_.get(url("write", "~/a b")))[1] == "invalid signature"
    assert error(http_.post(url("read", "~/a b"), data=b"x", headers=headers))[1] == "invalid signature"
    assert error(http_.get(f"{secured.url}/files?path=x"))[1] == "missing signature query parameter"
    assert (secured.home / "a b").read_bytes() == b"signed"


def test_pages_of_any_origin_may_ask(http_: requests.Session, secured: EnvdServer) -> None:
    preflight = http_.options(
        f"{secured.url}/process.Process/Start",
        headers={
            "Origin": "https://page.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "x-access-token,connect-protocol-version",
        },
    )
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert preflight.headers["access-control-allow-headers"] == "x-access-token,connect-protocol-version"
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert preflight.headers["access-control-max-age"] == "7200"
    for path in ("/health", "/envs"):
        answer = http_.get(secured.url + path, headers={"Origin": "https://page.example"})
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "Connect-Content-Encoding" in answer.headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in http_.get(f"{secured.url}/health").headers
