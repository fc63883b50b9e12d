"""What HTTP says of a file, as tables."""

from __future__ import annotations

import pytest

from sandbox_local.envd.content import (
    Span,
    choose_coding,
    content_disposition,
    content_type,
    entity_tag,
    http_date,
    precondition,
    wanted_range,
)
from sandbox_local.http import Headers

MTIME = 1_700_000_000_123_456_789
ETAG = entity_tag(MTIME, 10)
DATE = http_date(MTIME)
BEFORE = http_date(MTIME - 1_000_000_000)
AFTER = http_date(MTIME + 1_000_000_000)


@pytest.mark.parametrize(
    ("name", "beginning", "expected"),
    [
        ("a.txt", b"\0\0", "text/plain; charset=utf-8"),
        ("a.html", b"", "text/html; charset=utf-8"),
        ("a.json", b"", "application/json"),
        ("A.PNG", b"", "image/png"),
        ("a.b.pdf", b"", "application/pdf"),
        ("a.tar.gz", b"\x1f\x8b\x08rest", "application/x-gzip"),
        ("noext", b"plain text\n", "text/plain; charset=utf-8"),
        ("noext", "schön".encode(), "text/plain; charset=utf-8"),
        ("noext", b"", "text/plain; charset=utf-8"),
        ("noext", b"\x89PNG\r\n\x1a\n", "image/png"),
        ("noext", b"\xff\xd8\xff\xe0", "image/jpeg"),
        ("noext", b"%PDF-1.7", "application/pdf"),
        ("noext", b"PK\x03\x04", "application/zip"),
        ("noext", b"\x7fELF\x02\x01\x01\0", "application/octet-stream"),
        ("what?.txt#x", b"\0", "application/octet-stream"),
        ("a.unknownext", b"\0", "application/octet-stream"),
        ("//evil.example/a.png", b"", "image/png"),
        ("data:text/html,x.bin", b"\0", "application/octet-stream"),
    ],
)
def test_the_type_is_known_by_extension_or_beginning(name: str, beginning: bytes, expected: str) -> None:
    assert content_type(name, beginning) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.txt", "inline; filename=a.txt"),
        ("a b.txt", 'inline; filename="a b.txt"'),
        ('a"b\\c', 'inline; filename="a\\"b\\\\c"'),
        ("schön.txt", "inline; filename*=utf-8''sch%C3%B6n.txt"),
        ("a\r\nSet-Cookie: x", "inline; filename*=utf-8''a%0D%0ASet-Cookie%3A%20x"),
        ("", 'inline; filename=""'),
    ],
)
def test_the_name_is_written_so_that_it_can_be_read_and_nothing_else(name: str, expected: str) -> None:
    assert content_disposition(name) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-0", Span(0, 1)),
        ("bytes=2-5", Span(2, 4)),
        ("bytes=2-", Span(2, 8)),
        ("bytes=-3", Span(7, 3)),
        ("bytes=-30", Span(0, 10)),
        ("bytes=0-99999999999999", Span(0, 10)),
        ("bytes= 2 - 5", Span(2, 4)),
        ("bytes=5-2", None),
        ("bytes=a-b", None),
        ("bytes=-", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
        ("bytes=" + "9" * 5000 + "-", None),
    ],
)
def test_one_range_is_understood_and_others_mean_the_whole(header: str | None, expected: Span | None) -> None:
    headers = Headers({} if header is None else {"Range": header})
    assert wanted_range(headers, 10, ETAG, MTIME) == expected


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-20", "bytes=999-", "bytes=-0"])
def test_a_range_outside_of_the_file_is_an_error(header: str) -> None:
    with pytest.raises(IndexError):
        wanted_range(Headers({"range": header}), 10, ETAG, MTIME)


def test_an_empty_file_has_no_ranges() -> None:
    assert wanted_range(Headers({"range": "bytes=0-"}), 0, ETAG, MTIME) is None


@pytest.mark.parametrize(
    ("if_range", "applies"), [(ETAG, True), (DATE, True), ('"other"', False), (BEFORE, False), (AFTER, False)]
)
def test_a_range_applies_only_to_the_file_it_was_meant_for(if_range: str, applies: bool) -> None:
    headers = Headers({"range": "bytes=1-1", "if-range": if_range})
    assert wanted_range(headers, 10, ETAG, MTIME) == (Span(1, 1) if applies else None)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"if-none-match": ETAG}, 304),
        ({"if-none-match": f'"x", W/{ETAG}'}, 304),
        ({"if-none-match": "*"}, 304),
        ({"if-none-match": '"x"'}, None),
        ({"if-none-match": '"x"', "if-modified-since": AFTER}, None),
        ({"if-modified-since": DATE}, 304),
        ({"if-modified-since": AFTER}, 304),
        ({"if-modified-since": BEFORE}, None),
        ({"if-modified-since": "yesterday"}, None),
        ({"if-modified-since": "Mon, 99 Foo 99999999999 00:00:00 GMT"}, None),
        ({"if-match": ETAG}, None),
        ({"if-match": "*"}, None),
        ({"if-match": '"x"'}, 412),
        ({"if-unmodified-since": DATE}, None),
        ({"if-unmodified-since": BEFORE}, 412),
        ({"if-match": ETAG, "if-unmodified-since": BEFORE}, None),
        ({"if-match": ETAG, "if-none-match": ETAG}, 304),
    ],
)
def test_conditions_are_weighed_in_the_order_of_the_standard(
    headers: dict[str, str], expected: int | None
) -> None:
    assert precondition(Headers(headers), ETAG, MTIME) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, "identity"),
        ("", "identity"),
        ("gzip, deflate", "identity"),
        ("gzip;q=1.0", "identity"),
        ("*", "identity"),
        ("identity;q=0", None),
        ("identity;q=0, gzip", "gzip"),
        ("gzip, identity; q=0.000", "gzip"),
        ("*;q=0", None),
        ("*;q=0, gzip", "gzip"),
        ("*;q=0, identity", "identity"),
        ("*;q=0, gzip;q=0", None),
        ("identity;q=0, *", "gzip"),
        ("identity;q=0, br", None),
        ("GZIP, Identity;Q=0", "gzip"),
        (";;;,=,", "identity"),
    ],
)
def test_identity_is_sent_unless_it_is_forbidden(header: str | None, expected: str | None) -> None:
    assert choose_coding(header) == expected


def test_dates_that_http_cannot_write_are_moved() -> None:
    assert http_date(-(10**30)) == "Thu, 01 Jan 1970 00:00:00 GMT"
    assert http_date(10**30) == "Fri, 31 Dec 9999 23:59:59 GMT"
