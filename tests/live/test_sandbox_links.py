"""Links to files: whoever has one may do one thing to one file, with any HTTP client, until it expires."""

from __future__ import annotations

import subprocess
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import pytest

from sandbox_local import LocalServer
from sandbox_sync import InvalidArgumentException, Sandbox
from tests.raw_client import RawClient

# A proxy of the machine's own must not stand between these tests and the server.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))

ODD_NAMES = ["plain.txt", "with space", "\u00e4\u20ac.txt", "a+b%20c&d=e", "quote'\"", "#?;", "sub/dir/file"]


def get(url: str) -> bytes:
    with OPENER.open(url, timeout=20) as response:
        content: bytes = response.read()
    return content


def post(url: str, data: bytes, content_type: str = "application/octet-stream") -> int:
    request = urllib.request.Request(url, data, {"Content-Type": content_type})
    with OPENER.open(request, timeout=20) as response:
        return int(response.status)


def changed(url: str, **parameters: str | None) -> str:
    """The same link with other parameters, or without those that are None."""
    parts = urlsplit(url)
    query = {**dict(parse_qsl(parts.query)), **parameters}
    return urlunsplit(parts._replace(query=urlencode({k: v for k, v in query.items() if v is not None})))


def is_refused(url: str, data: bytes | None = None) -> bool:
    try:
        get(url) if data is None else post(url, data)
    except urllib.error.HTTPError as error:
        with error:
            return error.code == 401
    return False


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_link_needs_no_header(sandbox: Sandbox, name: str) -> None:
    assert post(sandbox.upload_url(name), b"content \xff\x00") == 200
    assert sandbox.files.read(name, format="bytes") == b"content \xff\x00"
    assert get(sandbox.download_url(name)) == b"content \xff\x00"


def test_curl_understands_it(sandbox: Sandbox) -> None:
    def curl(*arguments: str, data: bytes = b"") -> bytes:
        return subprocess.run(
            ["curl", "--silent", "--fail", "--noproxy", "*", *arguments],
            input=data,
            stdout=subprocess.PIPE,
            timeout=30,
            check=True,
        ).stdout

    if subprocess.run(["which", "curl"], stdout=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("curl is not installed")
    up, down = sandbox.upload_url("by curl.txt"), sandbox.download_url("by curl.txt")
    curl("-F", "file=@-;filename=x", up, data=b"as a form")
    assert curl(down) == b"as a form"
    curl("-H", "Content-Type: application/octet-stream", "--data-binary", "@-", up, data=b"as it is")
    assert curl(down) == b"as it is"
    curl("-F", "file=@-;filename=two/named.txt", sandbox.upload_url(), data=b"named by the form")
    assert sandbox.files.read("two/named.txt") == "named by the form"


def test_a_link_is_for_a_user(sandbox: Sandbox) -> None:
    assert post(sandbox.upload_url("mine", user="root"), b"root's") == 200
    assert sandbox.files.read("/root/mine", user="root") == "root's"
    assert get(sandbox.download_url("mine", user="root")) == b"root's"
    assert get(sandbox.download_url("/root/mine")) == b"root's"
    assert sandbox.files.get_info("/root/mine", user="root").owner == "root"


def test_a_link_is_for_one_thing_alone(sandbox: Sandbox) -> None:
    sandbox.files.write("a", "secret a")
    sandbox.files.write("b", "secret b")
    down, up = sandbox.download_url("a", use_signature_expiration=60), sandbox.upload_url("a")
    assert get(down) == b"secret a"
    assert is_refused(changed(down, path="b"))
    assert is_refused(changed(down, path="./a"))
    assert is_refused(changed(down, username="root"))
    assert is_refused(changed(down, signature=None))
    assert is_refused(changed(down, signature=dict(parse_qsl(urlsplit(down).query))["signature"][:-1]))
    assert is_refused(changed(down, signature_expiration=str(int(time.time()) + 9999)))
    assert is_refused(changed(down, signature_expiration=None))
    assert is_refused(down, b"written")
    assert is_refused(up)
    assert is_refused(changed(up, path="b"), b"written")
    assert is_refused(changed(sandbox.upload_url(), path="b"), b"written")
    assert (sandbox.files.read("a"), sandbox.files.read("b")) == ("secret a", "secret b")
    with Sandbox.create() as other:
        other.files.write("a", "of another")
        there = dict(parse_qsl(urlsplit(other.download_url("a")).query))
        elsewhere = changed(down, **{"e2b-sandbox-id": there["e2b-sandbox-id"]})
        assert is_refused(elsewhere)


def test_a_link_expires(sandbox: Sandbox) -> None:
    sandbox.files.write("a", "x")
    before = int(time.time())
    down = sandbox.download_url("a", use_signature_expiration=1)
    up = sandbox.upload_url("a", use_signature_expiration=1)
    end = int(dict(parse_qsl(urlsplit(down).query))["signature_expiration"])
    assert before + 1 <= end <= int(time.time()) + 1
    assert get(down) == b"x"
    while time.time() < end + 1:
        time.sleep(0.05)
    assert is_refused(down)
    assert is_refused(up, b"y")
    assert get(sandbox.download_url("a")) == b"x"


def test_a_link_does_not_show_the_token(sandbox: Sandbox) -> None:
    token = sandbox._open().access.token
    assert token
    assert token not in sandbox.download_url("a") + sandbox.upload_url("a")


@pytest.mark.parametrize(
    "arguments", [{"path": ""}, {"path": "a\0b"}, {"path": "a", "user": ""}, {"path": "a", "user": "x\udc80"}]
)
def test_what_no_link_can_be_made_of_is_refused(sandbox: Sandbox, arguments: dict[str, Any]) -> None:
    for make in (sandbox.download_url, sandbox.upload_url):
        with pytest.raises(InvalidArgumentException):
            make(**arguments)
    lifetimes: list[object] = [-1, 1.5, "60", True]
    for lifetime in lifetimes:
        with pytest.raises(InvalidArgumentException, match="use_signature_expiration"):
            sandbox.download_url("a", use_signature_expiration=lifetime)  # type: ignore[arg-type]


def test_a_sandbox_that_is_open_to_all_has_plain_links(server: LocalServer, transport: str) -> None:
    """Such sandboxes come from older programs; the SDK attaches to them."""
    client = RawClient.of(server)
    made = client.ask(
        "POST", "/sandboxes", json={"templateID": "base", "timeout": 60, "secure": False}
    ).json()
    sandbox = Sandbox.connect(
        made["sandboxID"], server.api_key, api_url=server.url, sandbox_url=server.url, transport=transport
    )
    with sandbox:
        assert post(sandbox.upload_url("open"), b"to all") == 200
        assert get(sandbox.download_url("open")) == b"to all"
        assert "signature" not in sandbox.download_url("open")
        with pytest.raises(InvalidArgumentException, match="no access token"):
            sandbox.download_url("open", use_signature_expiration=60)
