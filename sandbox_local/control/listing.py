"""Which sandboxes a list request means, in which order, and one page of them. Pure functions."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from urllib.parse import unquote

from sandbox_local.control.errors import BadRequest
from sandbox_local.control.registry import Sandbox, State


@dataclass(frozen=True)
class Filter:
    """Which sandboxes to list; each condition must hold.

    Attributes:
        states: They are in one of these.
        metadata: They carry each of these labels.
        started_after: They were created then or later.
        template: They come from the template of this id or name.
    """

    states: frozenset[State] = frozenset(State)
    metadata: dict[str, str] = field(default_factory=dict)
    started_after: datetime | None = None
    template: str | None = None

    def admits(self, sandbox: Sandbox) -> bool:
        """Whether `sandbox` is meant."""
        return (
            sandbox.state in self.states
            and all(sandbox.plan.metadata.get(key) == value for key, value in self.metadata.items())
            and (self.started_after is None or sandbox.started_at >= self.started_after)
            and (self.template is None or sandbox.plan.template.is_called(self.template))
        )


@dataclass(frozen=True)
class Cursor:
    """The last sandbox of a page, in the order that the page was made in."""

    started_at: datetime
    sandbox_id: str
    ascending: bool

    def encode(self) -> str:
        """The opaque token of this cursor."""
        order = "__asc" if self.ascending else ""
        text = f"{self.started_at.isoformat(timespec='microseconds')}__{self.sandbox_id}{order}"
        return base64.urlsafe_b64encode(text.encode()).decode()

    @classmethod
    def decode(cls, token: str, ascending: bool) -> Cursor:
        """Read a token back.

        Raises:
            BadRequest: It is no token of ours, or it was made for the other order.
        """
        try:
            text = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True).decode("ascii")
            started_at, sandbox_id, *order = text.split("__")
            cursor = cls(datetime.fromisoformat(started_at), sandbox_id, order == ["asc"])
        except (ValueError, binascii.Error):
            raise BadRequest(
                "nextToken: not a token of this server; list again from the first page"
            ) from None
        if order not in ([], ["asc"]) or cursor.started_at.tzinfo is None:
            raise BadRequest("nextToken: not a token of this server; list again from the first page")
        if cursor.ascending != ascending:
            raise BadRequest("nextToken: made for the other order; list again from the first page")
        return cursor

    @property
    def position(self) -> tuple[datetime, str]:
        """Where it stands among sandboxes, by start time, then by id."""
        return self.started_at, self.sandbox_id


@dataclass(frozen=True)
class Page:
    """One page of a list, and the cursor to the next if there is more."""

    sandboxes: Sequence[Sandbox]
    next: Cursor | None


def ordered(sandboxes: Iterable[Sandbox], ascending: bool) -> list[Sandbox]:
    """The sandboxes by start time."""
    return sorted(sandboxes, key=_position, reverse=not ascending)


def page(sandboxes: Iterable[Sandbox], ascending: bool, after: Cursor | None, limit: int) -> Page:
    """The first `limit` of `sandboxes`, by start time, that come after the cursor."""
    rest = ordered(sandboxes, ascending)
    if after is not None:
        rest = [
            sandbox
            for sandbox in rest
            if (_position(sandbox) > after.position if ascending else _position(sandbox) < after.position)
        ]
    shown = rest[:limit]
    more = len(rest) > limit
    return Page(shown, Cursor(shown[-1].started_at, shown[-1].sandbox_id, ascending) if more else None)


def _position(sandbox: Sandbox) -> tuple[datetime, str]:
    return sandbox.started_at, sandbox.sandbox_id


def parse_states(values: Iterable[str]) -> frozenset[State]:
    """The states that `state` parameters name, each a list with commas; none means all.

    Raises:
        BadRequest: There is no such state.
    """
    names = [name for value in values for name in value.split(",") if name]
    try:
        return frozenset(State(name) for name in names) or frozenset(State)
    except ValueError:
        raise BadRequest(
            f"state: must be among {', '.join(s.value for s in State)}; got {','.join(names)!r}"
        ) from None


def parse_metadata(value: str | None) -> dict[str, str]:
    """The labels of a `metadata` parameter: a query string, with keys and values escaped, escaped once more.

    Raises:
        BadRequest: It is malformed.
    """
    labels: dict[str, str] = {}
    if not value:
        return labels
    for pair in _unescape(value).split("&"):
        key, equals, wanted = pair.partition("=")
        if not equals:
            raise BadRequest(f"metadata: {pair!r} is not of the form key=value")
        labels[_unescape(key)] = _unescape(wanted)
    return labels


def _unescape(text: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise BadRequest(f"metadata: bad percent escape in {text!r}")
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise BadRequest(f"metadata: {text!r} is not UTF-8") from None


def parse_time(name: str, value: str) -> datetime:
    """An RFC 3339 time.

    Raises:
        BadRequest: It is none.
    """
    # fromisoformat knows neither "Z" nor nanoseconds before Python 3.11.
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", value)
    try:
        if match is None:
            raise ValueError
        whole, fraction, zone = match.groups()
        offset = "+00:00" if zone in "Zz" else zone
        return datetime.fromisoformat(f"{whole}.{(fraction or '0')[:6]:0<6}{offset}").astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise BadRequest(f"{name}: {value!r} is not an RFC 3339 time such as 2025-01-31T12:00:00Z") from None
