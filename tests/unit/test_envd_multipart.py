"""The multipart parser: however a body is cut it has the same parts; names are read as clients write them."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from urllib3.filepost import encode_multipart_formdata

from sandbox_local.envd.multipart import Multipart, MultipartError, parse_field

BOUNDARY = "bound"
BODY = (
    b"preamble\r\n--bound\r\n"
    b'Content-Disposition: form-data; name="file"; filename="/a/b.txt"\r\nContent-Type: text/plain\r\n\r\n'
    b"first\r\n--boundless\r\n--boun\r\n\r\n--bound \t\r\n"
    b"content-disposition: form-data; name=other\r\n\r\n"
    b"\r\n--bound\r\n\r\n"
    b"no header fields\r\n--bound--\r\nepilogue\r\n--bound\r\n"
)
PARTS = [
    ("file", "/a/b.txt", b"first\r\n--boundless\r\n--boun\r\n"),
    ("other", "", b""),
    ("", "", b"no header fields"),
]


async def parts(chunks: list[bytes], boundary: str = BOUNDARY) -> list[tuple[str, str, bytes]]:
    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    multipart, found = Multipart(body(), boundary), []
    while (part := await multipart.next_part()) is not None:
        content = b"".join([piece async for piece in part.content])
        found.append((part.name, part.filename, content))
    return found


def parse(*chunks: bytes, boundary: str = BOUNDARY) -> list[tuple[str, str, bytes]]:
    return asyncio.run(parts(list(chunks), boundary))


def test_a_body_cut_anywhere_has_the_same_parts() -> None:
    async def main() -> None:
        for cut in range(len(BODY)):
            assert await parts([BODY[:cut], BODY[cut:]]) == PARTS
        assert await parts([BODY[i : i + 1] for i in range(len(BODY))]) == PARTS

    asyncio.run(main())


@given(
    st.lists(
        st.binary(max_size=60) | st.sampled_from([b"\r\n--bound", b"--bound", b"\r\n", b"-"]), max_size=9
    )
)
def test_any_content_comes_back_unless_it_holds_a_boundary(pieces: list[bytes]) -> None:
    content = b"".join(pieces)
    wrapped = b"--bound\r\n\r\n" + content + b"\r\n--bound--"
    if any(b"\r\n--bound" + end in b"\r\n" + content + b"\r\n" for end in (b"-", b"\r", b" ", b"\t")):
        return
    assert parse(wrapped) == [("", "", content)]


@pytest.mark.parametrize("seed", range(20))
def test_long_pieces_come_through_whole_and_end_where_they_should(seed: int) -> None:
    """Delimiters, and what only looks like one, across the ends of pieces that are passed on as they came."""
    chance = random.Random(seed)
    likely = (b"\r\n--bound", b"\r\n--boun", b"\r", b"\r\n", b"\r\n--boundary", b"-", b"")
    contents = []
    for _ in range(4):
        content = b""
        while len(content) < 100_000:
            content += chance.randbytes(chance.choice((10, 20_000, 40_000))) + chance.choice(likely)
            if content.endswith(b"\r\n--bound"):
                content += b"x"  # the only thing that no content can have is a whole delimiter
        contents.append(content)
    body = b"".join(b"--bound\r\n\r\n" + content + b"\r\n" for content in contents) + b"--bound--\r\n"
    chunks = []
    while body:
        size = chance.choice((1, 5, 16 << 10, 30_000, 64 << 10))
        found = body.find(b"\r\n--bound")
        if chance.random() < 0.5 and found >= 0:
            size = found + chance.randrange(1, 12)
        chunks.append(body[:size])
        body = body[size:]
    assert [content for _, _, content in parse(*chunks, boundary="bound")] == contents


def test_what_is_not_read_of_a_part_is_skipped() -> None:
    async def main() -> list[str]:
        async def body() -> AsyncIterator[bytes]:
            yield BODY

        multipart, names = Multipart(body(), BOUNDARY), []
        while (part := await multipart.next_part()) is not None:
            names.append(part.name)
        return names

    assert asyncio.run(main()) == [name for name, _, _ in PARTS]


def test_a_part_is_not_held_in_memory() -> None:
    held = []

    async def main() -> int:
        async def body() -> AsyncIterator[bytes]:
            yield b"--bound\r\n\r\n"
            for _ in range(200):
                yield b"x" * 65536
                held.append(len(multipart._buffer))
            yield b"\r\n--bound--"

        multipart = Multipart(body(), BOUNDARY)
        part = await multipart.next_part()
        assert part is not None
        return sum([len(piece) async for piece in part.content])

    assert asyncio.run(main()) == 200 * 65536
    assert max(held) < 100


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\r\n",
        b"--boun",
        b"--bound",
        b"--bound\r\n",
        b"--bound\r\nno colon\r\n\r\nx\r\n--bound--",
        b"--bound\r\n\r\nno end",
        b"--bound\r\n\r\nno end\r\n--bound",
        b"--bound\r\n\r\nno end\r\n--bound-",
        b"--bound trailing\r\n\r\nx\r\n--bound--",
        b"--bound\r\n" + b"a: b\r\n" * 5000 + b"\r\nx\r\n--bound--",
        b"--bound\r\n" + b"a" * 20_000,
    ],
)
def test_a_broken_body_is_an_error(body: bytes) -> None:
    with pytest.raises(MultipartError):
        parse(body)


@pytest.mark.parametrize("boundary", ["", "x" * 201, "bö"])
def test_a_senseless_boundary_is_an_error(boundary: str) -> None:
    with pytest.raises(MultipartError, match="boundary"):
        parse(b"", boundary=boundary)


def test_a_form_without_parts_has_none() -> None:
    assert parse(b"--bound--\r\n") == []


@pytest.mark.parametrize(
    ("field", "parameters"),
    [
        ("form-data; name=a; filename=b", {"name": "a", "filename": "b"}),
        ('form-data;name="a;b";filename="x=y; z"', {"name": "a;b", "filename": "x=y; z"}),
        ('form-data; NAME="a"; name="b"', {"name": "a"}),
        (r'form-data; filename="C:\dir\f"', {"filename": r"C:\dir\f"}),
        (r'form-data; filename="a\"b\\c"', {"filename": r'a"b\c'}),
        ('form-data; filename="never closed', {"filename": ""}),
        ("form-data", {}),
        ("", {}),
    ],
)
def test_fields_are_taken_apart(field: str, parameters: dict[str, str]) -> None:
    assert parse_field(field).parameters == parameters


NAMES = [
    "/home/user/plain.txt",
    "with space and 'quotes'.txt",
    'double"quote',
    "schön 😀 日本",
    "new\nline and\rreturn",
    "semi;colon=x",
    "per%cent",
    "back\\slash",
]


def by_requests(name: str) -> tuple[bytes, str]:
    prepared = requests.Request("POST", "http://x/", files={"file": (name, b"content")}).prepare()
    return prepared.body, prepared.headers["content-type"]  # type: ignore[return-value]


def by_urllib3(name: str) -> tuple[bytes, str]:
    return encode_multipart_formdata({"file": (name, b"content")})


def by_httpx(name: str) -> tuple[bytes, str]:
    request = httpx.Request("POST", "http://x/", files={"file": (name, io.BytesIO(b"content"))})
    return request.read(), request.headers["content-type"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("encode", [by_requests, by_urllib3, by_httpx])
def test_names_are_read_as_clients_write_them(encode: Any, name: str) -> None:
    body, content_type = encode(name)
    boundary = parse_field(content_type).parameters["boundary"]
    assert parse(body, boundary=boundary) == [("file", name, b"content")]


def test_an_extended_name_is_exact() -> None:
    header = (
        b"Content-Disposition: form-data; name=file; filename=x; filename*=UTF-8'en'a%22b%2522%0A%E2%82%AC"
    )
    assert parse(b"--bound\r\n" + header + b"\r\n\r\n\r\n--bound--") == [("file", 'a"b%22\n€', b"")]


def test_a_name_that_is_not_utf8_stays_recognisable() -> None:
    header = b'Content-Disposition: form-data; name="file"; filename="caf\xe9"'
    assert parse(b"--bound\r\n" + header + b"\r\n\r\n\r\n--bound--") == [("file", "caf\udce9", b"")]
