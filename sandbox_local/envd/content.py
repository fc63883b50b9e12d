"""What HTTP says of a file: its type and name, and which part of it is wanted, if any. Pure functions."""

from __future__ import annotations

import email.utils
import mimetypes
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote

SNIFFED = 512
"""Bytes of the beginning of a file that tell its type."""

# Without the files of this machine, so that the same file has the same type everywhere.
_TYPES = mimetypes.MimeTypes(filenames=())

_MAGIC = (
    (b"%PDF-", "application/pdf"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"\x1f\x8b\x08", "application/x-gzip"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x00asm", "application/wasm"),
)
_NOT_TEXT = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.ASCII)
_CODING = re.compile(r"\s*([^\s;,]+)\s*(?:;\s*q\s*=\s*([01](?:\.\d{0,3})?))?\s*", re.ASCII | re.IGNORECASE)


class Span(NamedTuple):
    """A part of a file, in bytes."""

    offset: int
    length: int


def content_type(name: str, beginning: bytes) -> str:
    """The media type of a file by its extension, otherwise by its beginning."""
    by_name, encoding = _TYPES.guess_type("file:" + quote(name, safe=""))
    if by_name is not None and encoding is None:
        return f"{by_name}; charset=utf-8" if by_name.startswith("text/") else by_name
    for magic, by_content in _MAGIC:
        if beginning.startswith(magic):
            return by_content
    return "application/octet-stream" if _NOT_TEXT.search(beginning) else "text/plain; charset=utf-8"


def content_disposition(name: str) -> str:
    """The field that names a file to a browser."""
    if _TOKEN.fullmatch(name):
        return f"inline; filename={name}"
    if name.isascii() and name.isprintable():
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        return f'inline; filename="{escaped}"'
    return f"inline; filename*=utf-8''{quote(name, safe='')}"


def entity_tag(mtime_ns: int, size: int) -> str:
    """A tag that changes when the file does."""
    return f'"{mtime_ns:x}-{size:x}"'


def http_date(mtime_ns: int) -> str:
    """A time as HTTP writes it, whole seconds; times that it can't write are moved to those it can."""
    seconds = min(max(mtime_ns // 1_000_000_000, 0), 253402300799)
    return email.utils.formatdate(seconds, usegmt=True)


def precondition(headers: Mapping[str, str], etag: str, mtime_ns: int) -> int | None:
    """What the conditions of a GET lead to: 412, 304, or None when the file is to be sent."""
    modified = mtime_ns // 1_000_000_000
    if "if-match" in headers:
        if not _names_tag(headers["if-match"], etag):
            return 412
    elif (since := _seconds(headers.get("if-unmodified-since"))) is not None and modified > since:
        return 412
    if "if-none-match" in headers:
        return 304 if _names_tag(headers["if-none-match"], etag) else None
    if (since := _seconds(headers.get("if-modified-since"))) is not None and modified <= since:
        return 304
    return None


def wanted_range(headers: Mapping[str, str], size: int, etag: str, mtime_ns: int) -> Span | None:
    """The one range that a GET asks for, or None for the whole file.

    What is malformed and what asks for several ranges is answered with the whole file, as HTTP allows.

    Raises:
        IndexError: The range lies outside of the file.
    """
    found = _RANGE.fullmatch(headers.get("range", "").replace(" ", ""))
    if found is None or size == 0 or not _if_range(headers.get("if-range"), etag, mtime_ns):
        return None
    first, last = found.groups()
    if first:
        start, end = int(first), min(int(last) + 1 if last else size, size)
        if last and int(last) < start:
            return None
    elif last:
        start, end = max(size - int(last), 0), size
    else:
        return None
    if start >= end:
        raise IndexError
    return Span(start, end - start)


def choose_coding(accept_encoding: str | None) -> str | None:
    """Which coding to send: "identity" unless it is forbidden, then "gzip"; None when neither is accepted.

    A file is sent as it is to all who accept that, gzip or not: the kernel sends it, its length is known and
    ranges of it can be asked for.
    """
    weights: dict[str, float] = {}
    for item in (accept_encoding or "").split(","):
        found = _CODING.fullmatch(item)
        if found:
            weights.setdefault(found[1].lower(), float(found[2] or 1))
    others = weights.get("*")
    if weights.get("identity", 1 if others is None else others) > 0:
        return "identity"
    return "gzip" if weights.get("gzip", others or 0) > 0 else None


def _names_tag(field: str, etag: str) -> bool:
    return any(tag.strip() in ("*", etag, f"W/{etag}") for tag in field.split(","))


def _if_range(field: str | None, etag: str, mtime_ns: int) -> bool:
    return field is None or field == etag or _seconds(field) == mtime_ns // 1_000_000_000


def _seconds(date: str | None) -> float | None:
    try:
        parsed = email.utils.parsedate_to_datetime(date or "")
        return parsed.timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
