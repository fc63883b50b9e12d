"""Requests, responses and bodies as values."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from sandbox_local.http import Body, BodyTooLarge, FileSlice, Headers, HttpError, Request, Response


def request(target: str, body: Body | None = None) -> Request:
    return Request("GET", target, Headers({"Host": "h"}), body or Body())


def body_of(*chunks: bytes, length: int | None = None) -> Body:
    body = Body(length)
    for chunk in chunks:
        body.feed(chunk)
    body.end()
    return body


def test_headers_are_found_in_any_case_and_keep_every_value() -> None:
    headers = Headers([("X-A", "1"), ("x-a", "2"), ("B", "3")])
    assert (headers["x-A"], headers.get("X-A"), headers.get("none")) == ("1", "1", None)
    assert headers.get_all("x-a") == ["1", "2"]
    assert list(headers.fields()) == [("x-a", "1"), ("x-a", "2"), ("b", "3")]
    assert "X-a" in headers
    assert dict(headers) == {"x-a": "1", "b": "3"}
    headers.set("X-A", "4")
    assert headers.get_all("x-a") == ["4"]


def test_headers_show_no_values_in_their_repr() -> None:
    assert "s3cret" not in repr(Headers({"X-API-Key": "s3cret"}))
    assert "s3cret" not in repr(Response(headers={"X-Access-Token": "s3cret"}))
    assert "s3cret" not in repr(Request("GET", "/", Headers({"authorization": "s3cret"}), Body()))


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", []),
        ("/a%20b/%C3%BC?x=1", "/a b/ü", [("x", "1")]),
        ("/a+b", "/a+b", []),
        ("/f?p=a+b&p=a%20b&q=%2B&e=&n", "/f", [("p", "a b"), ("p", "a b"), ("q", "+"), ("e", ""), ("n", "")]),
        ("http://host:1/x?y=z", "/x", [("y", "z")]),
        ("http://host?y=z", "/", [("y", "z")]),
        ("/x?u=http://h/p", "/x", [("u", "http://h/p")]),
        ("*", "*", []),
    ],
)
def test_target_is_split_and_decoded(target: str, path: str, query: list[tuple[str, str]]) -> None:
    assert (request(target).path, request(target).query) == (path, query)


def test_parameter_is_the_first_of_its_name() -> None:
    assert request("/?a=1&a=2").parameter("a") == "1"
    assert request("/?a=1&a=2").parameter("b") is None


@pytest.mark.parametrize("target", ["/%FF", "/%ed%a0%80"])
def test_path_that_is_not_utf8_is_a_bad_request(target: str) -> None:
    with pytest.raises(HttpError) as caught:
        _ = request(target).path
    assert caught.value.status == 400


@pytest.mark.parametrize("target", ["/?a=%FF", "/?" + "&".join(["a=1"] * 1001)])
def test_query_that_is_not_utf8_or_endless_is_a_bad_request(target: str) -> None:
    with pytest.raises(HttpError) as caught:
        _ = request(target).query
    assert caught.value.status == 400


def test_body_is_read_whole_or_piece_by_piece() -> None:
    async def pieces(body: Body) -> list[bytes]:
        return [piece async for piece in body]

    assert asyncio.run(body_of(b"ab", b"c").read(3)) == b"abc"
    assert asyncio.run(body_of().read(0)) == b""
    assert asyncio.run(pieces(body_of(b"ab", b"c"))) == [b"ab", b"c"]


@pytest.mark.parametrize("body", [body_of(b"ab", b"cd"), body_of(length=4)])
def test_body_longer_than_the_limit_is_refused(body: Body) -> None:
    with pytest.raises(BodyTooLarge) as caught:
        asyncio.run(body.read(3))
    assert caught.value.status == 413


def test_body_tells_what_was_taken_and_when_it_is_waited_for() -> None:
    taken: list[int] = []
    wanted: list[bool] = []

    async def main() -> None:
        body = Body()
        body.on_taken, body.on_wanted = taken.append, lambda: wanted.append(True)
        body.feed(b"abc")
        assert await anext(body) == b"abc"
        assert not wanted
        asyncio.get_running_loop().call_soon(body.feed, b"de")
        assert await anext(body) == b"de"
        body.feed(b"f")
        body.discard()
        assert body.buffered == 0

    asyncio.run(main())
    assert taken == [3, 2, 1]
    assert wanted == [True]


def test_body_that_fails_gives_first_what_had_arrived() -> None:
    async def main() -> None:
        body = Body()
        body.feed(b"x")
        body.fail(HttpError(400, "cut"))
        assert await anext(body) == b"x"
        for _ in range(2):
            with pytest.raises(HttpError, match="cut"):
                await anext(body)

    asyncio.run(main())


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 200_000])
def test_body_that_is_not_json_is_a_bad_request(text: bytes) -> None:
    with pytest.raises(HttpError) as caught:
        asyncio.run(request("/", body_of(text)).json(1 << 20))
    assert caught.value.status == 400
    assert asyncio.run(request("/", body_of(b'{"a":1}')).json(100)) == {"a": 1}


def test_error_becomes_json_with_its_code_message_and_fields() -> None:
    error = HttpError(502, "no sandbox", headers={"Retry-After": "1"}, fields={"sandboxId": "i1"})
    response = Response.error(error)
    assert (response.status, response.headers["retry-after"]) == (502, "1")
    assert response.body == b'{"code":502,"message":"no sandbox","sandboxId":"i1"}'
    assert HttpError(404).message == "Not Found"


def test_file_slice_closes_its_descriptor_once(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    part = FileSlice(os.open(tmp_path / "f", os.O_RDONLY), 0, 1)
    part.close()
    part.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(part.fd)
