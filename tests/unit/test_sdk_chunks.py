"""Chunks of HTTP/1.1 as they arrive, cut anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_sync.transport.chunks import Chunks
from sandbox_sync.transport.heads import AnswerError


def encoded(contents: list[bytes], trailers: bytes = b"") -> bytes:
    chunks = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(content), content) for content in contents)
    return chunks + b"0\r\n" + trailers + b"\r\n"


@given(
    st.lists(st.binary(min_size=1, max_size=40)),
    st.sampled_from([b"", b"grpc-status: 0\r\n", b"a: 1\r\nb: 2\r\n"]),
    st.integers(1, 50),
)
def test_the_content_is_the_same_however_it_arrives(
    contents: list[bytes], trailers: bytes, step: int
) -> None:
    data = encoded(contents, trailers)
    chunks = Chunks()
    got = []
    for start in range(0, len(data), step):
        assert not chunks.ended
        got.append(chunks.feed(data[start : start + step]))
    assert b"".join(got) == b"".join(contents)
    assert chunks.ended


def test_what_is_there_of_a_large_chunk_is_not_waited_for() -> None:
    chunks = Chunks()
    assert chunks.feed(b"100\r\nabc") == b"abc"
    assert chunks.feed(b"def") == b"def"
    assert not chunks.ended


@pytest.mark.parametrize(
    "data",
    [
        b"x\r\n",
        b"\r\n",
        b"-1\r\na",
        b"+1\r\na\r\n",
        b"1_0\r\n",
        b"0x1\r\na\r\n",
        b"1\r\nab\r\n0\r\n\r\n",
        b"1\r\na\n\n0\r\n\r\n",
        b"1" * 70_000,
        b"0\r\n" + b"a: b\r\n" * 20_000,
    ],
    ids=[
        "letter",
        "nothing",
        "minus",
        "plus",
        "underscore",
        "prefix",
        "longer",
        "newline",
        "endless",
        "endless trailers",
    ],
)
def test_what_is_not_in_chunks_is_refused(data: bytes) -> None:
    with pytest.raises(AnswerError):
        Chunks().feed(data)


def test_a_cut_in_a_length_or_before_the_end_is_no_end() -> None:
    for data in (b"1\r\na\r\n0", b"1\r\na\r\n0\r\n", b"1\r\na\r\n0\r\nname: value\r\n", b"1\r\na"):
        chunks = Chunks()
        assert chunks.feed(data) == b"a"
        assert not chunks.ended


def test_what_follows_the_end_is_kept_apart() -> None:
    chunks = Chunks()
    assert chunks.feed(b"1\r\na\r\n0\r\nb: c\r\n\r\nHTTP/1.1 200 OK\r\n\r\n") == b"a"
    assert chunks.ended
    assert chunks.surplus == b"HTTP/1.1 200 OK\r\n\r\n"
